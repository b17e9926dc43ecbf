"""Watch one test from start to end: feed it, drain it, and stop it at its limits.

Runs inside the sandbox, standard library only. CPU time decides a TLE; the wall limit only catches
what waits. Nothing here blocks on the judged process, which may do anything with its ends.
"""

import os
import select
import signal
import time
from collections.abc import Callable
from typing import NamedTuple

from sandbox import child
from sandbox.meter import Meter

_TICK_S = 0.05  # between looks at the CPU clock and the memory
_CHUNK = 1 << 16
_REPORT_BYTES = 1 << 22  # of a report beyond the output limit: compiled code
_DETAIL = 400
_CLOSED = -1
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
    compiled: bytes | None


class Watch:
    """One test in flight.

    The outer ends of its pipes: `feed` takes standard input, or a call's arguments; `stdout` is
    None for a call; `report` brings what `child.py` says. Non-blocking, and closed at the end.
    """

    def __init__(self, pid: int, feed: int, stdout: int | None, report: int) -> None:
        self._pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._input = feed
        self._stdout = stdout
        self._report = report
        self._pending = memoryview(b"")
        self._printed = bytearray()
        self._reported = bytearray()
        self._poll = select.poll()
        for descriptor in (self._pidfd, report, stdout):
            if descriptor is not None:
                self._poll.register(descriptor, select.POLLIN)

    def run(self, payload: bytes, limits: Limits, usage: Meter, kill: Callable[[], None]) -> Ending:
        """Give the child its input and see it through. `kill` ends every process of the test."""
        ooms = usage.ooms()
        idle_cpu_s = usage.cpu_s() - time.process_time()
        started = time.monotonic()
        self._pending = memoryview(payload)
        if not self._feed(self._input):
            self._poll.register(self._input, select.POLLOUT)
        stopped, detail = self._until_exit(started, limits, ooms, idle_cpu_s, usage)
        if stopped:
            kill()
        _, status, spent = os.wait4(self._pid, 0)
        wall_s = time.monotonic() - started
        self._drain(limits.output_bytes)
        self._close()
        cpu_s = spent.ru_utime + spent.ru_stime
        if wall_s > limits.cpu_s >= cpu_s:  # else no other process of the test can be over it
            all_cpu_s = usage.cpu_s() - time.process_time() - idle_cpu_s
            cpu_s = all_cpu_s if all_cpu_s > limits.cpu_s else cpu_s
        peak_mb = spent.ru_maxrss / 1024
        compiled, kind, body = self._parse_report()
        outcome = stopped or "OK"
        is_wall_only = stopped == "TLE" and cpu_s <= limits.cpu_s
        if stopped in ("", "TLE") and (usage.ooms() > ooms or peak_mb > limits.memory_mb):
            # A machine short of memory is slow first: the cause wins over the symptom.
            outcome, detail, is_wall_only = "MLE", f"over {limits.memory_mb} MiB", False
        elif stopped:
            pass
        elif cpu_s > limits.cpu_s:
            outcome, detail = "TLE", f"over {limits.cpu_s:g} s of CPU time"
        elif self._is_too_long(limits.output_bytes) or (
            kind == child.RESULT and len(body) > limits.output_bytes
        ):
            outcome, detail = "OLE", f"over {limits.output_bytes} bytes"
        elif kind in (child.SYNTAX, child.MEMORY):
            outcome = "CE" if kind == child.SYNTAX else "MLE"
            detail = body[:_DETAIL].decode("utf-8", "replace")
        elif os.WIFSIGNALED(status):
            outcome, detail = "RE", f"ended by {_signal_name(os.WTERMSIG(status))}"
        elif code := os.waitstatus_to_exitcode(status):
            outcome = "RE"
            detail = body[:_DETAIL].decode("utf-8", "replace") if kind == child.RAISED else ""
            detail = detail or f"exit code {code}"
        output: bytes | None = bytes(self._printed)
        if self._stdout is None:
            output = body if kind == child.RESULT else None
        return Ending(outcome, detail, cpu_s, wall_s, peak_mb, is_wall_only, output, compiled)

    def _until_exit(
        self, started: float, limits: Limits, ooms: int, idle_cpu_s: float, usage: Meter
    ) -> tuple[str, str]:
        """Serve the pipes until the child has ended, or must be: then why, as (status, detail)."""
        deadline = started + limits.wall_s
        next_look = started + _TICK_S
        while True:
            timeout = max(0.0, min(next_look, deadline) - time.monotonic())
            for descriptor, _ in self._poll.poll(timeout * 1000 + 1):
                if descriptor == self._pidfd:
                    return "", ""
                self._serve(descriptor)
            if self._is_too_long(limits.output_bytes):
                return "OLE", f"over {limits.output_bytes} bytes"
            now = time.monotonic()
            if now >= next_look:
                next_look = now + _TICK_S
                memory_mb = max(_resident_mb(self._pid), usage.memory_mb())
                if usage.ooms() > ooms or memory_mb > limits.memory_mb:
                    return "MLE", f"over {limits.memory_mb} MiB"
                all_cpu_s = usage.cpu_s() - time.process_time() - idle_cpu_s
                if max(_cpu_time(self._pid), all_cpu_s) > limits.cpu_s:
                    return "TLE", f"over {limits.cpu_s:g} s of CPU time"
            if now >= deadline:
                return "TLE", f"over {limits.wall_s:g} s of wall time"

    def _serve(self, descriptor: int) -> None:
        if descriptor == self._input:
            is_done = self._feed(descriptor)
        elif descriptor == self._stdout:
            is_done = not _read_into(self._printed, descriptor)
        else:
            is_done = not _read_into(self._reported, descriptor)
        if is_done:
            self._poll.unregister(descriptor)

    def _feed(self, descriptor: int) -> bool:
        """Write what the child can take now; True, and its input closed, once that is all."""
        try:
            while self._pending:
                self._pending = self._pending[os.write(descriptor, self._pending) :]
        except BlockingIOError:
            return False
        except BrokenPipeError:
            pass  # it closed its input: its own affair
        self._input = _CLOSED
        os.close(descriptor)
        return True

    def _is_too_long(self, output_bytes: int) -> bool:
        return max(len(self._printed), len(self._reported) - _REPORT_BYTES) > output_bytes

    def _drain(self, output_bytes: int) -> None:
        """Take what is still in the pipes; other processes of the test may hold them open, or go
        on writing."""
        streams = [(self._reported, self._report)]
        if self._stdout is not None:
            streams.append((self._printed, self._stdout))
        for buffer, descriptor in streams:
            size = -1
            while size != len(buffer) and not self._is_too_long(output_bytes):
                size = len(buffer)
                _read_into(buffer, descriptor)

    def _close(self) -> None:
        for descriptor in (self._pidfd, self._input, self._report, self._stdout):
            if descriptor not in (None, _CLOSED):
                os.close(descriptor)

    def _parse_report(self) -> tuple[bytes | None, bytes, bytes]:
        """The compiled code, if any, and the first other report. The code is believed only as the
        very first report: it was written before a line of the program had run."""
        compiled, kind, body, position = None, b"", b"", 0
        while not kind and position + child.REPORT.size <= len(self._reported):
            kind, length = child.REPORT.unpack_from(self._reported, position)
            start = position + child.REPORT.size
            body = bytes(self._reported[start : start + length])
            if len(body) < length:
                return compiled, b"", b""  # cut off
            if kind == child.COMPILED:
                if position == 0:
                    compiled = body
                kind, body = b"", b""
            position = start + length
        return compiled, kind, body


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


def _resident_mb(pid: int) -> float:
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * _PAGE_MB


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
