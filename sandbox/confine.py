"""What holds for everything in a sandbox, from before its gate is forked.

Runs inside the sandbox, standard library only.
"""

import os
import resource

from sandbox import child, syscalls

_FIRST_UID = 1 << 16

_LIMITS = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_NOFILE: child.OPEN_FILES,
    resource.RLIMIT_FSIZE: 32 << 20,
    resource.RLIMIT_STACK: 128 << 20,  # C recursion (repr, lru_cache) as deep as judges allow
    resource.RLIMIT_MSGQUEUE: 0,
    resource.RLIMIT_MEMLOCK: 0,
}
_PROCESSES = 40  # of one uid, threads included


def confine(box: str, own_uids: bool) -> range | None:
    """Set the limits and the filter that no process of this sandbox can lift again; returns the
    uids that tests take turns with, None where they have this process's own."""
    os.umask(0o077)
    limits = _LIMITS | ({resource.RLIMIT_NPROC: _PROCESSES} if own_uids else {})
    for limit, most in limits.items():
        hard = resource.getrlimit(limit)[1]
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(limit, (most, most))
    os.chmod(box, 0o711)  # a test may enter its own directory, and list no others
    if not own_uids:
        return None
    os.setgroups([])
    syscalls.narrow()
    return _uids()


def _uids() -> range:
    """As many as this user namespace has."""
    with open("/proc/self/uid_map") as uid_map:
        top = max(int(line.split()[0]) + int(line.split()[2]) for line in uid_map)
    top = min(top, 1 << 31)
    return range(_FIRST_UID if top > 2 * _FIRST_UID else 1000, top - 8)
