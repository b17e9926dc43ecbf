"""Watch one test from start to end: feed it, drain it, and stop it at its limits.

Runs inside the sandbox, standard library only. CPU time decides a TLE; the wall limit only catches
what waits. A test that waits for nothing but a CPU is not late: the time for which the kernel let
it queue is added to its wall limit, up to twice that limit. Nothing here blocks on the judged
process, which may do anything with its ends.
"""

import os
import signal
import time
from contextlib import suppress
from typing import NamedTuple

from sandbox import child
from sandbox.meter import Meter
from sandbox.orders import Event

TICK_S = 0.05  # between looks at the CPU clock and the memory
_CHUNK = 1 << 16
_REPORT_BYTES = 1 << 12  # of reports beyond the output limit
_DETAIL = 400
_CLOSED = -1
_MOST_QUEUED = 2  # wall limits; `session.py` counts on it
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)


class Limits(NamedTuple):
    cpu_s: float
    wall_s: float
    memory_mb: int
    output_bytes: int


class Ending(NamedTuple):
    """How a test ended. `outcome` is OK (it ended well: compare its output), or the name of a
    status; `output` is what it printed, or for a call what it returned (None: nothing)."""

    outcome: str
    detail: str
    cpu_s: float
    wall_s: float
    peak_mb: float
    is_wall_only: bool
    output: bytes | None


class Pipes(NamedTuple):
    """The outer ends of a test's pipes, non-blocking: `feed` takes standard input, or a call's
    arguments; `stdout` is None for a call; `report` brings what `child.py` says."""

    feed: int
    stdout: int | None
    report: int


class Watch:
    """One test in flight: its child runs, or is about to be forked. The runner calls `start` when
    it is the test's turn, `serve` when a pipe is ready, `look` now and then, `ending` at the end.
    """

    def __init__(self, pipes: Pipes, payload: bytes, limits: Limits, usage: Meter) -> None:
        self._pipes = pipes
        self._input = pipes.feed
        self._limits = limits
        self._usage = usage
        # As of when its predecessor began, which would have failed of any since.
        self._ooms = usage.kills
        self._others_cpu_s: float | None = None  # of the sandbox, before the test
        self._pending = memoryview(payload)
        self._printed = bytearray()
        self._reported = bytearray()
        self._started = self._next_look = 0.0
        self._stopped = self._detail = ""
        self.open = {end for end in pipes if end is not None}
        self._feed()

    @property
    def is_stopped(self) -> bool:
        return bool(self._stopped)

    @property
    def was_set_up(self) -> bool:
        """Whether its child came as far as the program. Believed as the very first report only."""
        return self._reported.startswith(child.SET_UP)

    @property
    def was_looked_at(self) -> bool:
        """Whether it ran long enough for its use of the sandbox to be measured."""
        return self._others_cpu_s is not None

    @property
    def feed(self) -> int:
        """The end of its input, or -1 once that is closed."""
        return self._input

    def start(self, now: float) -> None:
        """From now on time counts, on the clock of `time.monotonic`."""
        self._started = now
        self._next_look = now + TICK_S

    def serve(self, descriptor: int) -> None:
        """Write to or read from a pipe that is ready. It leaves `open` when that was the last."""
        if descriptor == self._input:
            self._feed()
            return
        into = self._printed if descriptor == self._pipes.stdout else self._reported
        if not _read_into(into, descriptor):
            self.open.discard(descriptor)

    def look(self, now: float, pid: int | None) -> None:
        """Stop the test (`is_stopped`) if it is over a limit. `pid`: None before there is one."""
        if self._stopped or pid is None:
            return
        limits = self._limits
        if self._is_too_long():
            self._stopped, self._detail = "OLE", f"over {limits.output_bytes} bytes"
        elif now >= self._next_look:
            self._next_look = now + TICK_S
            try:
                resident_mb, cpu_s = _resident_mb(pid), _cpu_time(pid)
            except OSError:  # it has ended, and the event is on its way
                return
            if self._others_cpu_s is None:
                self._others_cpu_s = self._all_cpu_s() - cpu_s
            cpu_s = max(cpu_s, self._all_cpu_s() - self._others_cpu_s)
            memory_mb = max(resident_mb, self._usage.memory_mb())
            if self._usage.ooms() > self._ooms or memory_mb > limits.memory_mb:
                self._stopped, self._detail = "MLE", f"over {limits.memory_mb} MiB"
            elif cpu_s > limits.cpu_s:
                self._stopped, self._detail = "TLE", f"over {limits.cpu_s:g} s of CPU time"
            elif now >= self._started + limits.wall_s and now >= (
                self._started + limits.wall_s + min(_queued_s(pid), _MOST_QUEUED * limits.wall_s)
            ):
                self._stopped, self._detail = "TLE", f"over {limits.wall_s:g} s of wall time"

    def ending(self, event: Event) -> Ending:
        """What the end of the child means. Closes the pipes."""
        wall_s = time.monotonic() - self._started
        self._drain()
        self.close()
        limits = self._limits
        outcome, detail = self._stopped or "OK", self._detail
        kind, body = self._last_report()
        cpu_s, peak_mb, status = event.cpu_s, event.peak_mb, event.status
        if wall_s > limits.cpu_s >= cpu_s and self._others_cpu_s is not None:
            # Else no other process of the test can be over it.
            all_cpu_s = self._all_cpu_s() - self._others_cpu_s
            cpu_s = all_cpu_s if all_cpu_s > limits.cpu_s else cpu_s
        is_wall_only = outcome == "TLE" and cpu_s <= limits.cpu_s
        if outcome in ("OK", "TLE") and (
            self._usage.ooms() > self._ooms or peak_mb > limits.memory_mb
        ):
            # A machine short of memory is slow first: the cause wins over the symptom.
            outcome, detail, is_wall_only = "MLE", f"over {limits.memory_mb} MiB", False
        elif self._stopped:
            pass
        elif cpu_s > limits.cpu_s:
            outcome, detail = "TLE", f"over {limits.cpu_s:g} s of CPU time"
        elif self._is_too_long() or (kind == child.RESULT and len(body) > limits.output_bytes):
            outcome, detail = "OLE", f"over {limits.output_bytes} bytes"
        elif kind in (child.SYNTAX, child.MEMORY) and status != 0:  # else it was a fork's word
            outcome = "CE" if kind == child.SYNTAX else "MLE"
            detail = body[:_DETAIL].decode("utf-8", "replace")
        elif os.WIFSIGNALED(status):
            outcome, detail = "RE", f"ended by {_signal_name(os.WTERMSIG(status))}"
        elif code := os.waitstatus_to_exitcode(status):
            outcome = "RE"
            detail = body[:_DETAIL].decode("utf-8", "replace") if kind == child.RAISED else ""
            detail = detail or f"exit code {code}"
        output: bytes | None = bytes(self._printed)
        if self._pipes.stdout is None:
            output = body if kind == child.RESULT else None
        return Ending(outcome, detail, cpu_s, wall_s, peak_mb, is_wall_only, output)

    def close(self) -> None:
        for descriptor in (self._input, self._pipes.report, self._pipes.stdout):
            if descriptor not in (None, _CLOSED):
                os.close(descriptor)

    def _feed(self) -> None:
        """Write what the child can take now; once that is all, its input is closed."""
        try:
            while self._pending:
                self._pending = self._pending[os.write(self._input, self._pending) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass  # it closed its input: its own affair
        self.open.discard(self._input)
        os.close(self._input)
        self._input = _CLOSED

    def _all_cpu_s(self) -> float:
        """Of everything in the sandbox but the runner."""
        return self._usage.cpu_s() - time.process_time()

    def _is_too_long(self) -> bool:
        size = max(len(self._printed), len(self._reported) - _REPORT_BYTES)
        return size > self._limits.output_bytes

    def _drain(self) -> None:
        """Take what is still in the pipes; other processes of the test may hold them open, or go
        on writing."""
        for descriptor in self.open - {self._input}:
            buffer = self._printed if descriptor == self._pipes.stdout else self._reported
            size = -_CHUNK
            while len(buffer) - size >= _CHUNK and not self._is_too_long():
                size = len(buffer)  # less than asked for is all that there is
                _read_into(buffer, descriptor)

    def _last_report(self) -> tuple[bytes, bytes]:
        """The first report of how it ended."""
        position = 0
        while position + child.REPORT.size <= len(self._reported):
            kind, length = child.REPORT.unpack_from(self._reported, position)
            start = position + child.REPORT.size
            if start + length > len(self._reported):
                break  # cut off
            if kind != child.READY:
                return kind, bytes(self._reported[start : start + length])
            position = start + length
        return b"", b""


def _read_into(buffer: bytearray, descriptor: int) -> bool:
    """False at the end of the stream."""
    try:
        chunk = os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return True
    buffer += chunk
    return bool(chunk)


def _cpu_time(pid: int) -> float:
    """Seconds of CPU time that all threads of a living or unreaped process have used."""
    return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3), CPUCLOCK_SCHED


def _queued_s(pid: int) -> float:
    """Seconds for which the hungriest thread of a process was ready to run, and did not."""
    most = 0
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:  # it has ended
        return 0.0
    for thread in threads:
        with (
            suppress(OSError),  # this thread has ended, or this kernel does not tell
            open(f"/proc/{pid}/task/{thread}/schedstat") as schedstat,
        ):
            most = max(most, int(schedstat.read().split()[1]))
    return most / 1e9


def _resident_mb(pid: int) -> float:
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * _PAGE_MB


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
