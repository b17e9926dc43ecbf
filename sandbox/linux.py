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

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# The first members of `struct rusage`: user and system time in seconds and microseconds, and the
# largest resident size in KiB.
_USAGE = struct.Struct("@5l")

_libc = ctypes.CDLL(None)
_fork = ctypes.PyDLL(None).fork  # keeps the interpreter's lock meanwhile
_prctl, _wait4, _set_cpus = _libc.prctl, _libc.wait4, _libc.sched_setaffinity
_status = ctypes.c_int()
_status_at = ctypes.byref(_status)
_usage = ctypes.create_string_buffer(18 * struct.calcsize("l"))  # all of `struct rusage`

# Sets of CPUs are bit masks, as long as the kernel's.
_all_cpus = ctypes.create_string_buffer(128)
_knows_cpus = _libc.sched_getaffinity(0, len(_all_cpus), _all_cpus) == 0
_this_cpu = ctypes.create_string_buffer(len(_all_cpus))


class Ended(NamedTuple):
    status: int  # as `os.waitpid` gives it
    cpu_s: float
    peak_mb: float


def fork() -> int:
    """For a process that has one thread and no hooks to run. Returns the child's pid, and 0 in the
    child. Raises OSError."""
    pid: int = _fork()
    if pid < 0:
        raise OSError("cannot fork")
    return pid


def wait(pid: int) -> Ended:
    """Wait for a child to end. Raises OSError for what is no child, or where a signal comes first:
    none is handled here."""
    if _wait4(pid, _status_at, 0, _usage) != pid:
        raise OSError(f"cannot wait for process {pid}")
    user_s, user_us, system_s, system_us, peak_kb = _USAGE.unpack_from(_usage)
    cpu_s = user_s + system_s + (user_us + system_us) / 1e6
    return Ended(_status.value, cpu_s, peak_kb / 1024)


def stay() -> None:
    """Keep this process, and all that it forks, on the CPU where it is, which has its pages at
    hand. A scheduler with another CPU idle would start each fork there."""
    if not _knows_cpus:  # and could not undo it
        return
    _this_cpu.raw = (1 << _libc.sched_getcpu()).to_bytes(len(_this_cpu), sys.byteorder)
    _set_cpus(0, len(_this_cpu), _this_cpu)


def roam() -> None:
    """Undo `stay`: whatever CPU may run this process."""
    _set_cpus(0, len(_all_cpus), _all_cpus)


def adopt_orphans() -> None:
    """Become a subreaper. Not inherited by a fork, so each generation asks for itself."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
