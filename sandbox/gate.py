"""The side that forks. It never reads a test.

Runs inside the sandbox, standard library only. The *gate* forks one *stem* per program; the stem
reads the program and forks one *child* per test. A program with a single test does without a stem:
the process that read it becomes the child. The runner orders, over a socket whose other end no
child ever holds; what happened goes back over a pipe, in the order of events.

Whoever forks a child is its subreaper, so every process that a test leaves behind becomes its
child too: "no child left" and "the directory could be removed" prove that a test left nothing
(`sweep.py`), and only then is the next child forked.

A fork write-protects every page of the process that forks, and copying a page costs more than all
else here: so this side does as little as it can between two forks, and the runner, which never
forks, does the rest.
"""

import gc
import marshal
import os
import resource
import socket
import struct
import sys
import traceback
from typing import NamedTuple, NoReturn

from sandbox import child, rehearsal, sweep

# --- orders: runner -> gate and stem -----------------------------------------------------------

_COMMAND = struct.Struct(">cQI")  # kind, serial of the (first) test, length of what follows
STEM = b"P"  # to the gate: fork a stem; then, for the stem, a program (`child.Work`)
SINGLE = b"S"  # to the gate: fork a process that takes a program and becomes its only child
CODE = b"C"  # to the stem: the program, compiled
TEST = b"T"  # fork a child; comes with its three pipe ends (see `send_test`)
END = b"E"  # to the stem: no more tests

_SPARE_CPU_S = 5  # a stem's own CPU time counts towards the limit that its children inherit

# --- events: gate and stem -> runner -----------------------------------------------------------

_PID = struct.Struct(">i")  # over the socket, unasked, as soon as a child is forked
_EVENT = struct.Struct(">ci2d?")  # over the pipe
ENDED = b"e"  # a child
OVER = b"o"  # a stem


class Event(NamedTuple):
    """A process has ended with this wait status. `is_clean`: it left nothing behind; where it is
    false the whole sandbox must be given up."""

    kind: bytes
    status: int
    cpu_s: float
    peak_mb: float
    is_clean: bool


class Orders:
    """The runner's end."""

    def __init__(self, orders: socket.socket, events: int) -> None:
        self._orders = orders
        self.events = events  # a file descriptor to poll

    def start(self, work: child.Work, serial: int, *, has_one_test: bool) -> None:
        program = marshal.dumps(tuple(work))
        self._send(SINGLE if has_one_test else STEM, serial, program)

    def send_code(self, marshalled: bytes) -> None:
        self._send(CODE, 0, marshalled)

    def send_test(self, serial: int, ends: tuple[int, int, int]) -> None:
        """`ends`: the child's standard input and output, and its channel to the runner."""
        ancillary = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("3i", *ends))
        self._orders.sendmsg([_COMMAND.pack(TEST, serial, 0)], [ancillary])

    def end(self) -> None:
        self._send(END, 0)

    def read_events(self) -> list[Event]:
        """What has happened since; raises EOFError where the gate is gone."""
        data = os.read(self.events, _EVENT.size * 16)  # written whole, being short
        if not data:
            raise EOFError
        return [Event(*fields) for fields in _EVENT.iter_unpack(data)]

    def read_pid(self) -> int | None:
        """The pid of the next child that was forked, if it was. There is one for every child, on
        the way before its end is."""
        try:
            data = self._orders.recv(_PID.size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        if not data:
            raise EOFError
        return _PID.unpack(data)[0]

    def _send(self, kind: bytes, serial: int, body: bytes = b"") -> None:
        self._orders.sendall(_COMMAND.pack(kind, serial, len(body)) + body)


def open_gate(box: str, uids: range | None) -> Orders:
    """Fork the gate. The caller must not have read anything secret yet, and is not to fork."""
    orders, gates_orders = socket.socketpair()
    events, gates_events = os.pipe()
    if os.fork() == 0:
        status = 1
        try:
            orders.close()
            os.close(events)
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1):  # the judge's stream is the runner's
                os.dup2(null, descriptor)
            rehearsal.rehearse()
            gc.freeze()
            _Gate(gates_orders, gates_events, box, uids, null).serve()
            status = 0
        except EOFError:
            pass  # the runner is gone
        except BaseException:  # noqa: BLE001 - the copy must not go on as a second runner
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    gates_orders.close()
    os.close(gates_events)
    return Orders(orders, events)


class _Gate:
    """The gate and, after a fork, a stem or a child."""

    def __init__(
        self, orders: socket.socket, events: int, box: str, uids: range | None, null: int
    ) -> None:
        self._orders = orders
        self._events = events
        self._box = box
        self._uids = uids
        self._null = null
        child.adopt_orphans()
        child.die_with_parent()

    def serve(self) -> None:
        """One process per program, for ever. Raises EOFError once the runner is gone."""
        while True:
            kind, serial, length = _COMMAND.unpack(self._receive(_COMMAND.size))
            pid = os.fork()
            if pid == 0:
                self._take_program(kind, length)
            if kind == SINGLE:
                self._see_out(pid, serial)
            else:
                _, status, _ = os.wait4(pid, 0)
                self._tell(OVER, status, 0.0, 0.0, sweep.no_child_left())

    def _take_program(self, kind: bytes, length: int) -> NoReturn:
        status = 1
        try:
            work = child.Work(*marshal.loads(self._receive(length)))
            # Inherited by the children of a stem, and set once.
            resource.setrlimit(resource.RLIMIT_AS, (work.reserve_bytes, work.reserve_bytes))
            cpu = int(work.cpu_s) + _SPARE_CPU_S  # the runner's clock is finer: the second line
            resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
            if kind == SINGLE:
                _, serial, _, ends = self._next_order()
                self._become_child(work, serial, ends)
            child.adopt_orphans()
            child.die_with_parent()
            self._serve_tests(work)
            status = 0
        except EOFError:
            pass
        except BaseException:  # noqa: BLE001 - the gate must not go on as a second copy
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _serve_tests(self, work: child.Work) -> None:
        while True:
            kind, serial, length, ends = self._next_order()
            if kind == END:
                return
            if kind == CODE:
                prelude, code = marshal.loads(self._receive(length))
                work = work._replace(prelude=prelude, code=code)
                continue
            pid = os.fork()
            if pid == 0:
                self._become_child(work, serial, ends)
            for end in ends:
                os.close(end)
            self._see_out(pid, serial)

    def _become_child(self, work: child.Work, serial: int, ends: tuple[int, ...]) -> NoReturn:
        try:
            stdin, stdout, channel = ends
            directory, uid = f"{self._box}/{serial}", uid_of(self._uids, serial)
            child.become(work, directory, uid, stdin, stdout, self._null, channel)
        finally:
            os._exit(1)

    def _see_out(self, pid: int, serial: int) -> None:
        self._orders.send(_PID.pack(pid))
        _, status, usage = os.wait4(pid, 0)
        is_clean = sweep.leave_nothing(f"{self._box}/{serial}", uid_of(self._uids, serial))
        cpu_s, peak_mb = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
        self._tell(ENDED, status, cpu_s, peak_mb, is_clean)
        if not is_clean:
            os._exit(1)

    def _tell(self, *event: object) -> None:
        os.write(self._events, _EVENT.pack(*event))

    def _receive(self, count: int) -> bytes:
        data = self._orders.recv(count)
        while len(data) < count:
            more = self._orders.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def _next_order(self) -> tuple[bytes, int, int, tuple[int, ...]]:
        data, ancillary, _, _ = self._orders.recvmsg(_COMMAND.size, socket.CMSG_LEN(12))
        if not data:
            raise EOFError
        ends = struct.unpack("3i", ancillary[0][2]) if ancillary else ()
        return *_COMMAND.unpack(data), ends


def uid_of(uids: range | None, serial: int) -> int | None:
    """The uid of a test; None where tests have the runner's own."""
    return None if uids is None else uids[serial % len(uids)]
