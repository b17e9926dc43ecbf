"""Whose a container or a folder is: what a killed process left is told from what is in use."""

import os
from pathlib import Path


def this_process() -> str:
    """This process, so that it can be told from any other: machine boot, pid namespace, pid and
    the time it started, with slashes between them."""
    return f"{_here()}/{os.getpid()}/{_start_time(os.getpid())}"


def is_dead(owner: str) -> bool:
    """Whether that process has ended; one on another machine, or in another pid namespace, is
    nobody's business here. Raises ValueError for what names no owner."""
    here, pid, started = owner.rsplit("/", 2)
    return here == _here() and _start_time(int(pid)) != started


def is_alive_here(owner: str) -> bool:
    """Whether that process is known to be at work: it is on this machine, in this pid namespace,
    and has not ended. Raises ValueError for what names no owner."""
    here, pid, started = owner.rsplit("/", 2)
    return here == _here() and _start_time(int(pid)) == started


def _here() -> str:
    """Empty where there is no /proc, as on the laptop from which somebody looks at a store: no
    process of another machine is dead to it."""
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot_id}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start_time(pid: int) -> str:
    """In clock ticks after the machine's start; empty for no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
