"""The judged side of a fork: give up every privilege, then become an ordinary `python3 program.py`.

Runs inside the sandbox, standard library only. What it reports (an exception's line, a call's
result) is never trusted beyond a rejection: see `runner.py`.

Of a short test most time goes to pages that a child writes to, and so must copy; to use an object
is to write to its reference count. So functions of modules are imported by name, which leaves out
the module and its dictionary, and whatever can be made before the fork is (`prepare`).
"""

import builtins
import struct
import sys
from _thread import _count as count_threads
from atexit import _run_exitfuncs as run_exit_functions
from collections.abc import Callable
from functools import partial
from gc import collect, enable, get_objects
from io import BufferedWriter, TextIOWrapper
from os import _exit, chdir, closerange, dup2, read, setresgid, setresuid, setsid, write
from types import CodeType, ModuleType
from typing import Any, NoReturn

from sandbox import nodes, values
from sandbox.linux import die_with_parent, roam

STDIN, STDOUT, STDERR, CHANNEL = range(4)  # where a child finds its ends of the pipes
OPEN_FILES = 128  # at once, for gate, stem and child alike
REPORT = struct.Struct(">cI")  # kind, length

READY = b"U"  # about to compile or run the program: whatever fails before is not its doing
SYNTAX = b"S"  # it does not compile, or has no entry point
RAISED = b"E"
MEMORY = b"M"  # MemoryError
RESULT = b"R"  # what the entry point returned, in the form of `values`

SET_UP = REPORT.pack(READY, 0)

# Beyond `become`: the frame of `run_program`, and two calls by which the interpreter itself may
# count more.
_FRAMES_TO_PROGRAM = 3
_CALL_RECURSION_LIMIT = 50_000  # LiveCodeBench's

_modules = sys.modules
_STREAMS = (TextIOWrapper, BufferedWriter)  # text first: it goes through a buffer


def prepare(frames_to_child: int) -> None:
    """All of an interpreter's start that every program has in common: a module, empty, its
    arguments, its recursion limit. The caller will run `become` so many frames below itself."""
    module = ModuleType("__main__")
    module.__dict__.update(__builtins__=builtins, __file__="program.py")
    _modules["__main__"] = module
    sys.argv = ["program.py"]
    sys.path.insert(0, "")  # each test's own directory (`gate.py`)
    # The frames above a program are ours, not to be paid for out of its recursion limit.
    depth, frame = frames_to_child + _FRAMES_TO_PROGRAM, sys._getframe()
    while frame := frame.f_back:
        depth += 1
    sys.setrecursionlimit(sys.getrecursionlimit() + depth)


def prepare_calls() -> None:
    """The tests call what the program defines: it is imported, so to speak."""
    _modules["solution"] = module = _modules["__main__"]
    module.__name__ = "solution"
    sys.setrecursionlimit(_CALL_RECURSION_LIMIT)


def become(
    prelude: bytes | CodeType,
    code: bytes | CodeType,
    entry_point: str | None,
    directory: str,
    uid: int | None,
    is_only: bool,
) -> NoReturn:
    """Run a program's test in this forked, prepared process and exit.

    `prelude` and `code` are code objects, or texts where they did not compile (`compiler.py`). The
    prelude runs first, in the namespace of the code, which still has its own first line and its own
    `from __future__`. `uid` None keeps the uid; `is_only`: no stem keeps it on one CPU.

    The descriptors of this test are where they belong: `STDIN` and its fellows. `sys.stdin` and its
    fellows were opened by the gate's interpreter, which never reads or writes through them, and
    stand on them as if new.
    """
    setsid()
    closerange(CHANNEL + 1, OPEN_FILES)
    if uid is None:
        die_with_parent()  # no container: no stem, no test
    else:
        setresgid(uid, uid, uid)
        # From here on /proc/self is root's, unless the program asks for it (PR_SET_DUMPABLE).
        # /dev/stdin opens all the same: the pipe is its own (`runner.py`).
        setresuid(uid, uid, uid)
    chdir(directory)
    enable()  # the collector, which gate and stem must do without
    if not is_only:
        roam()  # its stem sleeps by now, so that it need not move
    test, arguments = b"", None
    if entry_point is not None:
        test = _read_to_end(STDIN)
        dup2(STDERR, STDIN)  # /dev/null: a call has no input
        arguments = None if test[:1] == b"S" else values.decode(test[1:])
    write(CHANNEL, SET_UP)
    if isinstance(code, bytes):
        prelude, code = _compiled(prelude, code)
    if entry_point is None:
        _exit(run_program(prelude, code))
    _exit(_run_call(prelude, code, entry_point, test, arguments))


def _compiled(prelude: bytes | CodeType, code: bytes) -> tuple[bytes | CodeType, CodeType]:
    """Code objects for both texts; an empty prelude stays what it is."""
    try:
        if prelude and not isinstance(prelude, CodeType):
            prelude = compile(prelude, "prelude.py", "exec", dont_inherit=True)
        return prelude, compile(code, "program.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        _report(SYNTAX, _one_line(error))
        _exit(1)


def _run_call(
    prelude: bytes | CodeType, code: CodeType, entry_point: str, test: bytes, arguments: Any
) -> int:
    """Call the entry point with `arguments` (the test is `C` and their text), or run a script (`S`
    and its source)."""
    is_script, body = test[:1] == b"S", test[1:]

    def run_script(solution: ModuleType) -> None:
        _resolve(solution, entry_point)
        failed = _failed_assertion(body.decode("utf-8", "surrogatepass"), solution)
        _report(RESULT, values.encode(failed or True).encode())

    def call(solution: ModuleType) -> None:
        target = _resolve(solution, entry_point)
        args, kwargs = arguments
        if b'Node":[' in body:
            args, kwargs = nodes.to_objects(arguments, partial(_node_class, solution))
        _report(RESULT, values.encode(target(*args, **kwargs)).encode("utf-8", "surrogatepass"))

    return run_program(prelude, code, run_script if is_script else call)


def _failed_assertion(script: str, module: ModuleType) -> str | None:
    """Run a test script in the program's namespace; its own assertion that failed, if any. What
    the program itself raises, AssertionError included, is raised."""
    try:
        exec(compile(script, "script", "exec", dont_inherit=True), module.__dict__)
    except AssertionError as error:
        last = error.__traceback__
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        if last is None or last.tb_frame.f_code.co_filename != "script":
            raise
        return f"script line {last.tb_lineno}: {script.splitlines()[last.tb_lineno - 1].strip()}"
    return None


def _node_class(module: ModuleType, kind: str) -> type:
    """The program's own class of LeetCode's nodes, or LeetCode's."""
    return getattr(module, kind, None) or getattr(nodes, kind)


def run_program(
    prelude: bytes | CodeType, code: CodeType, call: Callable[[ModuleType], None] | None = None
) -> int:
    """Run in the prepared module and end as the interpreter would: threads joined, atexit run,
    finalizers called, files flushed, but without its slow tear-down. Returns the exit code."""
    module = _modules["__main__"]
    stdout = sys.stdout
    exit_code = 0
    try:
        if prelude:
            exec(prelude, module.__dict__)
        exec(code, module.__dict__)
        if call is not None:
            call(module)
    except SystemExit as request:
        exit_code = _exit_code(request.code)
    except _NoEntryPoint:
        _report(SYNTAX, b"no entry point")
        exit_code = 1
    except MemoryError as error:
        _report(MEMORY, _one_line(error))
        exit_code = 1
    except BaseException as error:  # noqa: BLE001 - whatever a program raises is its own failure
        _report(RAISED, _one_line(error))
        exit_code = 1
    try:
        if count_threads() and (threading := _modules.get("threading")):
            threading._shutdown()
        run_exit_functions()
        if (printed := getattr(sys, "stdout", None)) is not stdout and printed is not None:
            _flush(printed)
        _flush(stdout)
        if call is None:  # nobody reads what a call prints
            # Not cleared: while the collector calls finalizers, the globals are still what they
            # were.
            _modules.pop("__main__", None)
            del module
            # In a cycle it may close a buffer before the text that is to go through it.
            _flush_left()
            collect()
            _flush_left(stdout)  # what finalizers printed, and what is still referred to
    except BaseException as error:  # noqa: BLE001 - the program may have put anything there
        _report(RAISED, _one_line(error))
        exit_code = 120
    return exit_code


def _flush(stream: Any) -> None:
    try:
        stream.flush()
    except ValueError:
        if not getattr(stream, "closed", False):
            raise


def _flush_left(*streams: Any) -> None:
    """Flush these, and all that the program has opened and not closed. As in any tear-down, errors
    are ignored."""
    left = [each for each in get_objects() if type(each) in _STREAMS]
    if left:
        left.sort(key=lambda stream: type(stream) is BufferedWriter)
    for stream in (*streams, *left):
        try:  # noqa: SIM105 - `suppress` is a class, two functions and their code
            stream.flush()
        except Exception:  # noqa: BLE001
            pass


class _NoEntryPoint(Exception):
    """The program does not define what it was asked for."""


def _resolve(module: ModuleType, entry_point: str) -> Any:
    owner, dot, method = entry_point.partition("().")
    found = getattr(module, owner, None)
    if found is not None and dot:
        found = getattr(found(), method, None)
    if not callable(found):
        raise _NoEntryPoint
    return found


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1


def _one_line(error: BaseException) -> bytes:
    """`line 3: ValueError: ...`, as far as the program's own exception classes let us."""
    try:
        text = f"{type(error).__name__}: {error}"
        trace, line = error.__traceback__, None
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == "program.py":
                line = trace.tb_lineno
            trace = trace.tb_next
        if line is not None:
            text = f"line {line}: {text}"
    except BaseException:  # noqa: BLE001 - str() of a program's exception may do anything
        text = "an exception that cannot be shown"
    return " ".join(text[:300].split()).encode("utf-8", "backslashreplace")


def _report(kind: bytes, body: bytes) -> None:
    view = memoryview(REPORT.pack(kind, len(body)) + body)
    while view:
        view = view[write(CHANNEL, view) :]


def _read_to_end(descriptor: int) -> bytes:
    chunks = []
    while chunk := read(descriptor, 1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)
