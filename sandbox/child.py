"""The judged side of a fork: give up every privilege, then become an ordinary `python3 program.py`.

Runs inside the sandbox, standard library only. What it reports (compiled code, an exception's
line, a call's result) is never trusted beyond a rejection: see `runner.py`.
"""

import _thread
import atexit
import builtins
import ctypes
import gc
import marshal
import os
import signal
import struct
import sys
import types
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from io import BufferedWriter, TextIOWrapper
from typing import Any, NamedTuple, NoReturn

from sandbox import nodes, values, warm

CHANNEL = 3  # the one descriptor beyond stdin, stdout and stderr
OPEN_FILES = 128  # at once, for gate, stem and child alike
REPORT = struct.Struct(">cI")  # kind, length

READY = b"U"  # about to compile or run the program: whatever fails before is not its doing
COMPILED = b"C"  # marshalled code objects, before any line of the program has run
SYNTAX = b"S"  # it does not compile, or has no entry point
RAISED = b"E"
MEMORY = b"M"  # MemoryError
RESULT = b"R"  # what the entry point returned, in the form of `values`

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# Address space beyond the memory limit. Resident memory decides MLE; reserved but untouched memory
# (a 512 MB stack for a recursive thread, numpy's arenas) is an honest idiom.
_RESERVE_MB = 768

libc = ctypes.CDLL(None, use_errno=True)


class Work(NamedTuple):
    """What a test child is to run."""

    # Source text, or what an earlier test made of both. The prelude runs first, in the namespace of
    # the code, which still has its own first line and its own `from __future__`.
    prelude: bytes | types.CodeType
    code: bytes | types.CodeType
    entry_point: str | None
    cpu_s: float
    memory_mb: int

    @property
    def reserve_bytes(self) -> int:
        """Address space that it may reserve."""
        return (self.memory_mb + _RESERVE_MB) << 20


def adopt_orphans() -> None:
    """Become a subreaper. Not inherited by a fork, so each generation asks for itself."""
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def become(
    work: Work, directory: str, uid: int | None, stdin: int, stdout: int, null: int, channel: int
) -> NoReturn:
    """Run `work` in this forked process and exit. `uid` None keeps the uid.

    `sys.stdin` and its fellows were opened by the gate's interpreter, which never reads or writes
    through them: they now stand, fresh, on the descriptors of this test.
    """
    os.setsid()
    for source, target in ((stdin, 0), (stdout, 1), (null, 2), (channel, CHANNEL)):
        os.dup2(source, target)
    os.closerange(CHANNEL + 1, OPEN_FILES)
    if uid is not None:
        # Where memory runs out, the kernel is to take the test and not its stem.
        badness = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(badness, b"1000")
        os.close(badness)
        os.setresgid(uid, uid, uid)
        # From here on /proc/self is root's, unless the program asks for it (PR_SET_DUMPABLE).
        # /dev/stdin opens all the same: the pipe is its own (`runner.py`).
        os.setresuid(uid, uid, uid)
    else:
        die_with_parent()  # no container: no stem, no test
    os.chdir(directory)
    sys.path.insert(0, directory)  # modules that it writes can be imported
    warm.become_program()
    if work.entry_point is None:
        _report(READY, b"")
        os._exit(run_program(_compiled(work)))
    test = _read_to_end(0)
    os.dup2(2, 0)  # /dev/null: a call has no input
    arguments = None if test[:1] == b"S" else values.decode(test[1:])
    _report(READY, b"")
    os._exit(_run_call(_compiled(work), work.entry_point, test, arguments))


def _compiled(work: Work) -> Work:
    """With code objects for its texts; an empty prelude stays what it is."""
    if isinstance(work.code, types.CodeType):
        return work
    prelude = work.prelude
    try:
        if prelude and not isinstance(prelude, types.CodeType):
            prelude = compile(prelude, "prelude.py", "exec", dont_inherit=True)
        code = compile(work.code, "program.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        _report(SYNTAX, _one_line(error))
        os._exit(1)
    _report(COMPILED, marshal.dumps((prelude, code)))
    return work._replace(prelude=prelude, code=code)


def run_program(work: Work) -> int:
    """Run compiled work as `python3 program.py` would; returns its exit code."""
    return _execute(work, "__main__")


def _run_call(work: Work, entry_point: str, test: bytes, arguments: Any) -> int:
    """Call the entry point with `arguments` (the test is `C` and their text), or run a script (`S`
    and its source)."""
    is_script, body = test[:1] == b"S", test[1:]

    def run_script(solution: types.ModuleType) -> None:
        _resolve(solution, entry_point)
        failed = _failed_assertion(body.decode("utf-8", "surrogatepass"), solution)
        _report(RESULT, values.encode(failed or True).encode())

    def call(solution: types.ModuleType) -> None:
        target = _resolve(solution, entry_point)
        args, kwargs = arguments
        if b'Node":[' in body:
            args, kwargs = nodes.to_objects(arguments, partial(_node_class, solution))
        _report(RESULT, values.encode(target(*args, **kwargs)).encode("utf-8", "surrogatepass"))

    return _execute(work, "solution", run_script if is_script else call)


def _failed_assertion(script: str, module: types.ModuleType) -> str | None:
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


def _node_class(module: types.ModuleType, kind: str) -> type:
    """The program's own class of LeetCode's nodes, or LeetCode's."""
    return getattr(module, kind, None) or getattr(nodes, kind)


def _execute(work: Work, name: str, call: Callable[[types.ModuleType], None] | None = None) -> int:
    """Run as a module of this name and end as the interpreter would: threads joined, atexit run,
    finalizers called, files flushed, but without its slow tear-down. Returns the exit code."""
    module = types.ModuleType(name)
    module.__dict__.update(__builtins__=builtins, __file__="program.py")
    sys.modules["__main__"] = sys.modules[name] = module
    sys.argv = ["program.py"]
    stdout = sys.stdout
    # The frames below a program are ours, not to be paid for out of its recursion limit; calls get
    # LiveCodeBench's.
    sys.setrecursionlimit(sys.getrecursionlimit() + _depth() if call is None else 50_000)
    exit_code = 0
    try:
        if work.prelude:
            exec(work.prelude, module.__dict__)
        exec(work.code, module.__dict__)
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
        if _thread._count() and (threading := sys.modules.get("threading")):
            threading._shutdown()
        atexit._run_exitfuncs()
        _flush(getattr(sys, "stdout", None), stdout)
        if call is None:  # nobody reads what a call prints
            # Not cleared: while the collector calls finalizers, the globals are still what they
            # were.
            sys.modules.pop("__main__", None)
            del module
            # In a cycle it may close a buffer before the text that is to go through it.
            _flush_left()
            gc.collect()
            _flush_left(stdout)  # what finalizers printed, and what is still referred to
    except BaseException as error:  # noqa: BLE001 - the program may have put anything there
        _report(RAISED, _one_line(error))
        exit_code = 120
    return exit_code


def _depth() -> int:
    """The frames below a program that its caller runs, and two calls by which the interpreter
    itself may count more."""
    depth, frame = 2, sys._getframe()
    while frame := frame.f_back:
        depth += 1
    return depth


def _flush(*streams: Any) -> None:
    for stream in streams:
        if stream is not None and not getattr(stream, "closed", False):
            stream.flush()


def _flush_left(*streams: Any) -> None:
    """Flush these, and all that the program has opened and not closed. As in any tear-down, errors
    are ignored."""
    left = [each for each in gc.get_objects() if type(each) in (TextIOWrapper, BufferedWriter)]
    # Text first: it goes through a buffer.
    for stream in sorted((*streams, *left), key=lambda stream: type(stream) is BufferedWriter):
        with suppress(Exception):
            stream.flush()


class _NoEntryPoint(Exception):
    """The program does not define what it was asked for."""


def _resolve(module: types.ModuleType, entry_point: str) -> Any:
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
        view = view[os.write(CHANNEL, view) :]


def _read_to_end(descriptor: int) -> bytes:
    chunks = []
    while chunk := os.read(descriptor, 1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)
