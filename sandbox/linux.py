"""Calls of Linux for which Python has no function, or one that writes to many pages.

Runs inside the sandbox, standard library only. After a fork each page that is written to is copied,
by whichever side writes first. `os.fork` makes the interpreter ready for threads that it has lost,
and `os.wait4` imports a module each time: of either no more is wanted here than the call.
"""

import ctypes
import struct
import sys
from typing import NamedTuple

SIGKILL = 9  # `signal` would bring enumerations of sixty pages

_WNOHANG = 1
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# What the kernel says of a child that has ended: its status, then `struct rusage`, which begins
# with user and system time in seconds and microseconds, and the largest resident size in KiB.
_ENDED = struct.Struct("@i18l")
ENDED_BYTES = _ENDED.size

_libc = ctypes.CDLL(None)
_keeping_lock = ctypes.PyDLL(None)  # the interpreter's, which a child is to find held
# Since glibc 2.34: without what `fork` does for other threads.
_fork = getattr(_keeping_lock, "_Fork", None) or _keeping_lock.fork
_prctl, _wait4 = _libc.prctl, _libc.wait4
_get_cpu, _set_cpus = _libc.sched_getcpu, _libc.sched_setaffinity
_ended = ctypes.create_string_buffer(ENDED_BYTES)
_usage = ctypes.byref(_ended, struct.calcsize("@i0l"))

# Sets of CPUs are bit masks, as long as the kernel's.
_all_cpus = ctypes.create_string_buffer(128)
_knows_cpus = _libc.sched_getaffinity(0, len(_all_cpus), _all_cpus) == 0
_this_cpu = ctypes.create_string_buffer(len(_all_cpus))


class Ended(NamedTuple):
    status: int  # as `os.waitpid` gives it
    cpu_s: float
    peak_mb: float

    @classmethod
    def read(cls, told: bytes) -> "Ended":
        """What `wait` was told."""
        status, user_s, user_us, system_s, system_us, peak_kb, *_ = _ENDED.unpack(told)
        return cls(status, user_s + system_s + (user_us + system_us) / 1e6, peak_kb / 1024)


def fork() -> int:
    """For a process that has one thread and no hooks to run. Returns the child's pid, and 0 in the
    child. Raises OSError."""
    pid: int = _fork()
    if pid < 0:
        raise OSError("cannot fork")
    return pid


def wait(pid: int) -> bytes:
    """Wait for a child to end; returns `ENDED_BYTES` for `Ended.read`, which need not be here.
    Raises OSError for what is no child, or where a signal comes first: none is handled here."""
    if _wait4(pid, _ended, 0, _usage) != pid:
        raise OSError(f"cannot wait for process {pid}")
    return _ended.raw


def reap() -> bool:
    """Take note of every child that has ended. True where no child, ended or alive, remains."""
    while (pid := _wait4(-1, None, _WNOHANG, None)) > 0:
        pass
    return pid < 0  # no child: the only error that there can be


def stay() -> None:
    """Keep this process, and all that it forks, on the CPU where it is, which has its pages at
    hand. A scheduler with another CPU idle would start each fork there."""
    if not _knows_cpus:  # and could not undo it
        return
    _this_cpu.raw = (1 << _get_cpu()).to_bytes(len(_this_cpu), sys.byteorder)
    _set_cpus(0, len(_this_cpu), _this_cpu)


def roam() -> None:
    """Undo `stay`: whatever CPU may run this process."""
    _set_cpus(0, len(_all_cpus), _all_cpus)


def adopt_orphans() -> None:
    """Become a subreaper. Not inherited by a fork, so each generation asks for itself."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
