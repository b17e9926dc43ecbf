"""What the whole sandbox uses, by the kernel's account of its cgroup.

Runs inside the sandbox, standard library only. A test may hide behind processes that nobody waits
for, and in memory that belongs to no process (files in memory, socket buffers): its cgroup counts
all of it. Works with cgroup v1 and v2; where there is neither (gVisor), and where the cgroup is not
the sandbox's alone (a mere process, or the root's), every figure is 0 and the limits of single
processes remain.
"""

import os
import re

_CGROUP = "/sys/fs/cgroup"
_DRIFT_MB = 2  # of usage, before it is looked at closely: that costs 20 us
_MOST_LEFT_MB = 32


class Meter:
    """The counters, kept open: a child closes what it inherits, and cannot open them faster."""

    def __init__(self, has_own_cgroup: bool) -> None:
        self._usage = None
        if has_own_cgroup:
            # The root of a hierarchy, which is the machine's, has no such file in cgroup v2.
            self._usage = _open("memory.current", "memory/memory.usage_in_bytes")

        def counter(*paths: str) -> int | None:
            return _open(*paths) if self._usage is not None else None

        self._ooms = counter("memory.events", "memory/memory.oom_control")
        self._last_events = b""
        self.kills = 0  # of processes, for memory, when last looked at
        self._memory = counter("memory.stat", "memory/memory.stat")
        self._cpu = counter("cpu.stat", "cpuacct/cpuacct.usage")
        self._fresh_mb = self._rest_mb = self._level_mb()
        self._usage_at_rest = self._usage_mb()

    def ooms(self) -> int:
        """How often the kernel killed a process for memory."""
        if self._ooms is not None:
            events = os.pread(self._ooms, 4096, 0)
            if events != self._last_events:  # read for every test, and nearly always the same
                self._last_events = events
                found = re.search(rb"\boom_kill (\d+)", events)
                self.kills = int(found[1]) if found else 0
        return self.kills

    def cpu_s(self) -> float:
        """CPU time of all processes that there ever were."""
        microseconds = _find(rb"\busage_usec (\d+)", self._cpu)
        return microseconds / 1e6 or _find(rb"\A(\d+)\n", self._cpu) / 1e9

    def memory_mb(self) -> float:
        """MiB in use beyond those at `rest`, without the file cache that the kernel can take
        back."""
        return self._level_mb() - self._rest_mb

    def rest(self) -> None:
        """No test runs: what is in use now is not the next program's. The kernel keeps memory of
        its own for a sandbox (names that were looked up, for one) and takes it back at leisure."""
        self.ooms()
        usage_mb = self._usage_mb()
        if abs(usage_mb - self._usage_at_rest) >= _DRIFT_MB:
            self._usage_at_rest = usage_mb
            self._rest_mb = self._level_mb()

    def has_grown(self) -> bool:
        """No test runs: whether so much is left in use that the next programs would feel it."""
        return self._level_mb() - self._fresh_mb > _MOST_LEFT_MB

    def _usage_mb(self) -> float:
        return _find(rb"\A(\d+)\n", self._usage) / (1 << 20)

    def _level_mb(self) -> float:
        cache = sum(
            _find(rb"\n%s_file (\d+)" % kind, self._memory) for kind in (b"inactive", b"active")
        )
        return self._usage_mb() - cache / (1 << 20)


def _open(*paths: str) -> int | None:
    for path in paths:
        try:
            return os.open(f"{_CGROUP}/{path}", os.O_RDONLY)
        except OSError:
            continue
    return None


def _find(pattern: bytes, descriptor: int | None) -> float:
    if descriptor is None:
        return 0
    found = re.search(pattern, os.pread(descriptor, 8192, 0))
    return int(found[1]) if found else 0
