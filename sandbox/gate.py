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
import marshal
import os
import sys
from os import _exit, close, pwrite, write
from resource import RLIMIT_AS, RLIMIT_CPU, setrlimit
from typing import NoReturn

from sandbox import child, hugepages, orders, rehearsal
from sandbox.child import (
    CHANNEL,
    STDERR,
    STDIN,
    STDOUT,
    Work,
    become,
    prepare,
    prepare_calls,
)
from sandbox.linux import adopt_orphans, die_with_parent, fork, stay, wait
from sandbox.orders import CALL, CODE, END, ENDED, OVER, SINGLE, STEM
from sandbox.sweep import leave_nothing, no_child_left

# What gate and stem keep open, out of the way: the ends of a test arrive where its child is to have
# them, which are the lowest numbers.
_ORDERS, _CALLS, _EVENTS, _SCORE, _DIAGNOSTICS = range(child.OPEN_FILES - 5, child.OPEN_FILES)
_ENDS_BYTES = _socket.CMSG_LEN(orders.ENDS.size)

# Of the ends where a test starts or ends nothing is looked up more than once.
_COMMAND_BYTES, _unpack_command = orders.COMMAND.size, orders.COMMAND.unpack
_unpack_ends, _pack_pid, _pack_event = orders.ENDS.unpack, orders.PID.pack, orders.EVENT.pack

_FRAMES_TO_CHILD = 3  # from `serve` down to `become`
_MOST_LIKELY = b"1000"  # to be killed where memory runs out
_SPARE_CPU_S = 5  # a stem's own CPU time counts towards the limit that its children inherit


def open_gate(box: str, uids: range | None) -> orders.Orders:
    """Fork the gate. The caller must not have read anything secret yet, and is not to fork."""
    ours, gates = _socket.socketpair()
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
            ours.detach()
            os.closerange(0, _ORDERS)  # the judge's stream among them, which is the runner's
            os.dup2(null := os.open(os.devnull, os.O_RDWR), STDERR)
            close(null)
            gate = _Gate(box, uids)
            rehearsal.rehearse()
            hugepages.gather_heap()
            gc.freeze()  # a child that collects must not touch, and so copy, the warm heap
            gate.serve()
            status = 0
        except EOFError:
            pass  # the runner is gone
        except BaseException as error:  # noqa: BLE001 - the copy must not go on as a second runner
            _tell_of(error)
        finally:
            _exit(status)
    gates.close()
    os.close(gates_calls)
    os.close(gates_events)
    return orders.Orders(ours, calls, events)


class _Gate:
    """The gate and, after a fork, a stem or a child."""

    def __init__(self, box: str, uids: range | None) -> None:
        self._orders = _socket.socket(fileno=_ORDERS)
        self._box = box
        self._uids = uids
        with open("/proc/self/oom_score_adj", "rb") as score:
            self._score = score.read()
        adopt_orphans()
        die_with_parent()

    def serve(self) -> None:
        """One process per program, for ever. Raises EOFError once the runner is gone."""
        prepare(_FRAMES_TO_CHILD)
        while True:
            pid = fork()
            if pid == 0:
                self._become_stem()
            call = os.read(_CALLS, CALL.size)  # written whole, being short
            if not call:
                raise EOFError
            kind, serial = CALL.unpack(call)
            if kind == SINGLE:
                directory, uid = f"{self._box}/{serial}", orders.uid_of(self._uids, serial)
                self._see_out(pid, directory, uid)
            else:
                write(_EVENTS, _pack_event(OVER, *wait(pid), no_child_left()))

    def _become_stem(self) -> NoReturn:
        status = 1
        try:
            self._serve_program()
            status = 0
        except EOFError:
            pass  # the runner is gone
        except BaseException as error:  # noqa: BLE001 - must not go on as a second gate
            _tell_of(error)
        finally:
            _exit(status)

    def _serve_program(self) -> None:
        receive, box, uids, path = self._orders.recvmsg, self._box, self._uids, sys.path
        die_with_parent()
        if uids is not None:
            os.dup2(score := os.open("/proc/self/oom_score_adj", os.O_RDWR), _SCORE)
            close(score)
        kind, _, length = _unpack_command(self._receive(_COMMAND_BYTES))
        has_stem = kind == STEM
        work = Work(*marshal.loads(self._receive(length)))
        if work.entry_point is not None:
            prepare_calls()
        # Inherited by the children of a stem, and set once.
        setrlimit(RLIMIT_AS, (work.reserve_bytes, work.reserve_bytes))
        cpu_s = int(work.cpu_s) + _SPARE_CPU_S  # the runner's clock is finer: the second line
        setrlimit(RLIMIT_CPU, (cpu_s, cpu_s))
        if has_stem:
            stay()
            adopt_orphans()
        while True:
            command, ancillary, _, _ = receive(_COMMAND_BYTES, _ENDS_BYTES)
            if not command:
                raise EOFError
            kind, serial, length = _unpack_command(command)
            if kind == END:
                return
            if kind == CODE:
                prelude, code = marshal.loads(self._receive(length))
                work = work._replace(prelude=prelude, code=code)
                continue
            if _unpack_ends(ancillary[0][2]) != (STDIN, STDOUT, CHANNEL):
                raise RuntimeError("the ends of a test are not where they belong")
            directory = f"{box}/{serial}"
            path[0] = directory  # modules that the test writes there can be imported
            uid = None
            if uids is not None:
                uid = uids[serial % len(uids)]
                # Where memory runs out, the kernel is to take the test and not its stem.
                pwrite(_SCORE, _MOST_LIKELY, 0)
            pid = fork() if has_stem else 0
            if pid == 0:
                try:
                    become(work, directory, uid, is_only=not has_stem)
                finally:
                    _exit(1)
            if uid is not None:
                pwrite(_SCORE, self._score, 0)
            close(STDIN)
            close(STDOUT)
            close(CHANNEL)
            self._see_out(pid, directory, uid)

    def _see_out(self, pid: int, directory: str, uid: int | None) -> None:
        self._orders.send(_pack_pid(pid))
        status, cpu_s, peak_mb = wait(pid)
        is_clean = leave_nothing(directory, uid)
        write(_EVENTS, _pack_event(ENDED, status, cpu_s, peak_mb, is_clean))
        if not is_clean:
            _exit(1)

    def _receive(self, count: int) -> bytes:
        data = self._orders.recv(count)
        while len(data) < count:
            more = self._orders.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data


def _tell_of(error: BaseException) -> None:
    """On the runner's standard error, which the judge quotes. (`traceback` would bring another
    sixty pages.)"""
    with open(_DIAGNOSTICS, "w", closefd=False) as sys.stderr:
        sys.excepthook(type(error), error, error.__traceback__)
