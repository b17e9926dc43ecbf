"""The side that forks. It never reads a test.

Runs inside the sandbox, standard library only. The *gate* forks one *stem* per program, before that
program is there, and never reads it. The stem does, and forks one *child* per test; where there is
one test, it becomes the child.

Whoever forks a child is its subreaper, so every process that a test leaves behind becomes its
child too: "no child left" and "the directory could be removed" prove that a test left nothing
(`sweep.py`), and only then is the next child forked.

A fork write-protects every page of the process that forks, and copying a page costs more than all
else here: so this side does as little as it can between two forks, and the runner, which never
forks, does the rest.
"""

import _socket
import gc
import os
import sys
from _socket import MSG_WAITALL
from collections.abc import Callable
from marshal import loads
from os import O_RDWR, _exit, close, dup2, pwrite, write
from os import open as open_
from resource import RLIMIT_AS, RLIMIT_CPU, setrlimit
from typing import Any, NoReturn

from sandbox import child, orders, rehearsal
from sandbox.child import CHANNEL, STDERR, STDIN, STDOUT, become, prepare, prepare_calls
from sandbox.compiler import Compiler, open_compiler
from sandbox.linux import adopt_orphans, die_with_parent, fork, reap, stay, wait
from sandbox.orders import CALL, END, ENDED, OVER, SINGLE, STEM
from sandbox.sweep import leave_nothing

# What gate and stem keep open, out of the way: the ends of a test arrive where its child is to have
# them, which are the lowest numbers.
_ORDERS, _CALLS, _EVENTS, _COMPILER, _SCORE, _DIAGNOSTICS = range(
    child.OPEN_FILES - 6, child.OPEN_FILES
)
_ENDS_BYTES = _socket.CMSG_LEN(orders.ENDS.size)

# Of the ends where a test starts or ends nothing is looked up more than once.
_HEAD_BYTES, _unpack_head = orders.HEAD.size, orders.HEAD.unpack
_COMMAND_BYTES, _unpack_command = orders.COMMAND.size, orders.COMMAND.unpack
_unpack_ends, _pack_pid, _pack_event = orders.ENDS.unpack, orders.PID.pack, orders.EVENT.pack

_FRAMES_TO_CHILD = 2  # from `_serve` down to `become`
_OOM_SCORE = "/proc/self/oom_score_adj"
_MOST_LIKELY = b"1000"  # to be killed where memory runs out
_SPARE_CPU_S = 5  # a stem's own CPU time counts towards the limit that its children inherit


def open_gate(box: str, uids: range | None) -> tuple[orders.Orders, Compiler]:
    """Fork the gate, and from it the compiler. The caller must not have read anything secret yet,
    and is not to fork. It takes in what loses its parent, as the compiler does at once."""
    adopt_orphans()
    ours, gates = _socket.socketpair()
    compiler, compilers = _socket.socketpair()
    gates_calls, calls = os.pipe()
    events, gates_events = os.pipe()
    if fork() == 0:
        status = 1
        try:
            gc.disable()  # until a child is a program
            os.dup2(STDERR, _DIAGNOSTICS)
            os.dup2(gates.detach(), _ORDERS)
            os.dup2(gates_calls, _CALLS)
            os.dup2(gates_events, _EVENTS)
            os.dup2(compilers.detach(), _COMPILER)
            ours.detach()
            compiler.detach()
            os.closerange(0, _ORDERS)  # the judge's stream among them, which is the runner's
            os.dup2(null := os.open(os.devnull, os.O_RDWR), STDERR)
            close(null)
            rehearsal.rehearse()
            gc.freeze()  # a child that collects must not touch, and so copy, the warm heap
            open_compiler(_COMPILER, has_own_uid=uids is not None)
            _serve(box, uids)
            status = 0
        except EOFError:
            pass  # the runner is gone
        except BaseException as error:  # noqa: BLE001 - the copy must not go on as a second runner
            _tell_of_error(error)
        finally:
            _exit(status)
    gates.close()
    compilers.close()
    os.close(gates_calls)
    os.close(gates_events)
    return orders.Orders(ours, calls, events), Compiler(compiler)


def _serve(box: str, uids: range | None) -> None:
    """One process per program, for ever. Raises EOFError once the runner is gone."""
    wire = _socket.socket(fileno=_ORDERS)
    receive, receive_ends, send, path = wire.recv, wire.recvmsg, wire.send, sys.path
    with open(_OOM_SCORE, "rb") as file:
        score = file.read()
    adopt_orphans()
    die_with_parent()
    prepare(_FRAMES_TO_CHILD)
    while True:
        pid = fork()
        if pid == 0:
            _serve_program(receive, receive_ends, send, path, box, uids, score)
        send(_pack_pid(pid))
        ended = wait(pid)
        call = os.read(_CALLS, CALL.size)  # written whole, being short
        if not call:
            raise EOFError
        kind, serial = CALL.unpack(call)
        if kind == SINGLE:
            _tell_of_end(ended, f"{box}/{serial}", orders.uid_of(uids, serial))
        else:
            write(_EVENTS, _pack_event(OVER, reap(), ended))


def _serve_program(
    receive: Callable[[int, int], bytes],
    receive_ends: Callable[[int, int], tuple[bytes, list[tuple[int, int, bytes]], int, Any]],
    send: Callable[[bytes], int],
    path: list[str],
    box: str,
    uids: range | None,
    score: bytes,
) -> NoReturn:
    """The stem, which takes a program and forks its tests, or becomes the only one. It is given
    what the gate has at hand: to look it up again would write to more pages."""
    status = 1
    try:
        die_with_parent()
        if uids is not None:
            dup2(file := open_(_OOM_SCORE, O_RDWR), _SCORE)
            close(file)
        command = receive(_COMMAND_BYTES, MSG_WAITALL)
        if not command:
            raise EOFError
        kind, _, length = _unpack_command(command)
        has_stem = kind == STEM
        cpu_s, address_space, size = _unpack_head(receive(_HEAD_BYTES, MSG_WAITALL))
        entry_point = receive(size, MSG_WAITALL).decode("utf-8", "surrogatepass") if size else None
        prelude, code = loads(receive(length - _HEAD_BYTES - size, MSG_WAITALL))
        if entry_point is not None:
            prepare_calls()
        # Inherited by the children of a stem, and set once.
        setrlimit(RLIMIT_AS, (address_space, address_space))
        cpu_s += _SPARE_CPU_S  # the runner's clock is finer: the second line
        setrlimit(RLIMIT_CPU, (cpu_s, cpu_s))
        if has_stem:
            stay()
            adopt_orphans()
            gc.freeze()  # what a child asks of its collector is about its own
        while True:
            command, ancillary, _, _ = receive_ends(_COMMAND_BYTES, _ENDS_BYTES)
            if not command:
                raise EOFError
            kind, serial, _ = _unpack_command(command)
            if kind == END:
                break
            if _unpack_ends(ancillary[0][2]) != (STDIN, STDOUT, CHANNEL):
                raise RuntimeError("the ends of a test are not where they belong")
            directory = f"{box}/{serial}"
            path[0] = directory  # modules that the test writes there can be imported
            uid = None
            if uids is not None:
                uid = uids[serial % len(uids)]  # `uid_of`, without a call
                # Where memory runs out, the kernel is to take the test and not its stem.
                pwrite(_SCORE, _MOST_LIKELY, 0)
            pid = fork() if has_stem else 0
            if pid == 0:
                try:
                    become(prelude, code, entry_point, directory, uid, is_only=not has_stem)
                finally:
                    _exit(1)
            if uid is not None:
                pwrite(_SCORE, score, 0)
            send(_pack_pid(pid))
            ended = wait(pid)
            # Only now: what is written to while the child lives must be copied.
            close(STDIN)
            close(STDOUT)
            close(CHANNEL)
            _tell_of_end(ended, directory, uid)
        status = 0
    except EOFError:
        pass  # the runner is gone
    except BaseException as error:  # noqa: BLE001 - must not go on as a second gate
        _tell_of_error(error)
    finally:
        _exit(status)


def _tell_of_end(ended: bytes, directory: str, uid: int | None) -> None:
    is_clean = leave_nothing(directory, uid)
    write(_EVENTS, _pack_event(ENDED, is_clean, ended))
    if not is_clean:
        _exit(1)


def _tell_of_error(error: BaseException) -> None:
    """On the runner's standard error, which the judge quotes. (`traceback` would bring another
    sixty pages.)"""
    with open(_DIAGNOSTICS, "w", closefd=False) as sys.stderr:
        sys.excepthook(type(error), error, error.__traceback__)
