"""Make sure that a test left nothing behind: no process, no file.

Runs inside the sandbox, standard library only. Root in the container has neither KILL nor
DAC_OVERRIDE, so the remains of a test are killed and removed with the test's own uid.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import rmdir

from sandbox.linux import SIGKILL, reap

# Real uids while acting for a test. No test has one, so that none may signal the sweeper; and each
# side has its own, or the runner that kills a test would kill the stem that sweeps up after it.
_RUNNER_UID, _STEM_UID = 65_530, 65_531
PATIENCE_S = 3.0  # longest that the remains of one test are fought
_MAX_DEPTH = 64  # of directories


def leave_nothing(directory: str, uid: int | None) -> bool:
    """Kill and reap every process of the test, remove its directory; False where that failed.

    The caller is the test's subreaper: `reap` proves that no process is left, and a successful
    rmdir that no file is. `uid` None: the test had the caller's own uid.
    """
    if not reap():
        deadline = time.monotonic() + PATIENCE_S
        while not reap():
            if time.monotonic() > deadline:
                return False
            kill_processes(uid, _STEM_UID)
            time.sleep(0.0005)
    try:
        rmdir(directory)
    except OSError:
        try:
            with _acting_as(uid, _STEM_UID):
                os.chmod(directory, 0o700)
                _remove_contents(os.open(directory, os.O_RDONLY | os.O_DIRECTORY), _MAX_DEPTH)
            os.rmdir(directory)
        except OSError:
            return False
    return True


def kill_processes(uid: int | None, sweeper: int = _RUNNER_UID) -> None:
    """SIGKILL to every process of the test, as `sweeper`.

    With a uid of its own that is one atomic `kill(-1)`, which a fork bomb cannot outrun. Without,
    every child is killed; their orphans become children, for the next call.
    """
    if uid is not None:
        with _acting_as(uid, sweeper), suppress(ProcessLookupError):
            os.kill(-1, SIGKILL)
        return
    for pid in _children():
        with suppress(ProcessLookupError):
            os.kill(pid, SIGKILL)


def _children() -> list[int]:
    """Read from every process's `stat`: not all kernels have /proc/self/task/*/children."""
    me = str(os.getpid())
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/stat") as stat:
            if stat.read().rpartition(")")[2].split()[1] == me:
                found.append(int(name))
    return found


@contextmanager
def _acting_as(uid: int | None, sweeper: int) -> Iterator[None]:
    """Effective uid `uid`, real uid `sweeper`, saved uid root's: what the test may do, and immune
    to what the test may do to its own processes."""
    if uid is None:
        yield
        return
    os.setresuid(sweeper, uid, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def _remove_contents(directory: int, depth: int) -> None:
    """Empty an open directory and close it. Raises OSError for a tree deeper than `depth`."""
    try:
        with os.scandir(directory) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_directory in found:
            if not is_directory:
                os.unlink(name, dir_fd=directory)
                continue
            if depth == 0:
                raise OSError("a directory tree too deep to remove")
            os.chmod(name, 0o700, dir_fd=directory)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            _remove_contents(os.open(name, flags, dir_fd=directory), depth - 1)
            os.rmdir(name, dir_fd=directory)
    finally:
        os.close(directory)
