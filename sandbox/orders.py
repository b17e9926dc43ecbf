"""What the runner orders, and what it hears of it: the wires between runner, gate and stem.

Runs inside the sandbox, standard library only. Programs and tests go over a socket whose other end
no child ever holds; the gate hears over a pipe of its own that there is a program; what happened
goes back over a third wire, in the order of events.
"""

import _socket  # `socket` would bring enumerations of sixty pages, which every child would share
import os
import struct
from typing import NamedTuple

from sandbox.linux import ENDED_BYTES, Ended

# --- runner -> gate: what the stem that waits for a program is about to get ----------------------

CALL = struct.Struct(">cQ")  # kind, serial of the (first) test
STEM = b"P"  # a program with several tests: it forks a child for each
SINGLE = b"S"  # a program with one test: it becomes the child

# --- runner -> stem ------------------------------------------------------------------------------

COMMAND = struct.Struct(">cQI")  # kind (one of those two comes first), serial, length of the rest
HEAD = struct.Struct(">2QI")  # of a program: CPU seconds, address space, length of its entry point
TEST = b"T"  # run a child; comes with its three pipe ends (see `send_test`)
END = b"E"  # no more tests

ENDS = struct.Struct("3i")

# Address space beyond the memory limit. Resident memory decides MLE; reserved but untouched memory
# (a 512 MB stack for a recursive thread, numpy's arenas) is an honest idiom.
_RESERVE_MB = 768

# --- gate and stem -> runner --------------------------------------------------------------------

PID = struct.Struct(">i")  # over the socket, unasked, as soon as a stem or a child is forked
EVENT = struct.Struct(f">c?{ENDED_BYTES}s")  # over the pipe
ENDED = b"e"  # a child
OVER = b"o"  # a stem


class Work(NamedTuple):
    """A program to be tested."""

    program: bytes  # prelude and code, marshalled: code objects, or texts
    entry_point: str | None
    cpu_s: float
    memory_mb: int


class Event(NamedTuple):
    """A process has ended with this wait status. `is_clean`: it left nothing behind; where it is
    false the whole sandbox must be given up."""

    kind: bytes
    is_clean: bool
    status: int
    cpu_s: float
    peak_mb: float


class Orders:
    """The runner's end."""

    def __init__(self, orders: _socket.socket, calls: int, events: int) -> None:
        self._orders = orders
        self._calls = calls
        self._stems = 0  # whose pids are no test's
        self.events = events  # a file descriptor to poll

    def start(self, work: Work, serial: int, *, has_one_test: bool) -> None:
        kind = SINGLE if has_one_test else STEM
        self._stems += not has_one_test
        os.write(self._calls, CALL.pack(kind, serial))
        address_space = (work.memory_mb + _RESERVE_MB) << 20
        entry_point = (work.entry_point or "").encode("utf-8", "surrogatepass")
        head = HEAD.pack(int(work.cpu_s), address_space, len(entry_point))
        self._send(kind, serial, head + entry_point + work.program)

    def send_test(self, serial: int, ends: tuple[int, int, int]) -> None:
        """`ends`: the child's standard input and output, and its channel to the runner."""
        ancillary = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, ENDS.pack(*ends))
        self._orders.sendmsg([COMMAND.pack(TEST, serial, 0)], [ancillary])

    def end(self) -> None:
        self._send(END, 0)

    def read_events(self) -> list[Event]:
        """What has happened since; raises EOFError where the gate is gone."""
        data = os.read(self.events, EVENT.size * 16)  # written whole, being short
        if not data:
            raise EOFError
        return [
            Event(kind, is_clean, *Ended.read(told))
            for kind, is_clean, told in EVENT.iter_unpack(data)
        ]

    def read_pid(self) -> int | None:
        """The pid of the next child that was forked, if it was. There is one for every child, on
        the way before its end is."""
        while True:
            try:
                data = self._orders.recv(PID.size, _socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            if not data:
                raise EOFError
            if self._stems == 0:
                return PID.unpack(data)[0]
            self._stems -= 1

    def _send(self, kind: bytes, serial: int, body: bytes = b"") -> None:
        self._orders.sendall(COMMAND.pack(kind, serial, len(body)) + body)


def uid_of(uids: range | None, serial: int) -> int | None:
    """The uid of a test; None where tests have the runner's own."""
    return None if uids is None else uids[serial % len(uids)]
