"""One driver per stage: a lock file with a heartbeat, left stale by a driver that died.

The lock lives in the stage's directory, so that it is seen wherever the store is. A driver renews
it while it works; one that has not been renewed for a while, or whose process is known to be dead,
is taken over. A driver that was only suspended, or cut off from the store, learns of it at its next
heartbeat.

An object store has no write that fails where a file is there already. So who writes last holds the
lock, and two rules make sure that nobody works on unknowing beside it. A driver whose write took
long waits several times as long before it trusts it; and a holder looks often at first, so that it
has met a slow write that began before its own by the time the slow writer is through with waiting.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace

from pipeline.files import StoreError, delete, read_bytes, write_atomically
from sandbox.owner import is_dead, this_process

HEARTBEAT_S = 5.0
SETTLE_S = 0.2  # at least, between a write and the look whether it stands
SETTLE_WRITES = 5.0  # at least, in times that the write took
STALE_AFTER_S = 60.0  # many heartbeats: a busy machine or a slow file system must not lose a lock


class StageLocked(Exception):
    """Another driver is working on this stage."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock; times are seconds since the epoch."""

    host: str
    pid: int
    token: str  # tells two locks of one process apart
    since: float
    renewed: float
    owner: str = ""
    """The process, as `sandbox.owner` names it: a host's name and a pid are not its own alone where
    containers or copied machines share them."""

    def is_alive(self) -> bool:
        if time.time() - self.renewed > STALE_AFTER_S:
            return False
        return not (self.owner and is_dead(self.owner))

    def __str__(self) -> str:
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"host {self.host}, pid {self.pid}, since {started}"


class StageLock:
    """A lock that this driver holds, for as long as no other takes it over."""

    def __init__(self, path: str, mine: Holder) -> None:
        self._path, self._mine = path, mine
        self._taken_by: Holder | None = None

    def check(self) -> None:
        """Raises StageLocked if another driver took it over: this one must stop."""
        if self._taken_by is not None:
            raise StageLocked(
                f"{self._path}: taken over by another driver ({self._taken_by}), because this one "
                f"did not renew it for {STALE_AFTER_S:.0f} s, or began at the same moment. Wait "
                "for it, or stop it; what is finished is kept"
            )

    def look(self) -> None:
        """See who holds it now."""
        holder = read_holder(self._path)
        if holder is not None and holder.token != self._mine.token:
            self._taken_by = holder

    def renew(self) -> None:
        self.look()
        if self._taken_by is None:
            write_atomically(self._path, _encode(replace(self._mine, renewed=time.time())))

    def release(self) -> None:
        self.look()
        if self._taken_by is None:
            delete(self._path)


@contextmanager
def stage_lock(directory: str) -> Iterator[StageLock]:
    """Hold the stage in `directory` for the duration. Raises StageLocked, naming host, pid and
    since when, if a living driver holds it, and at the end if one took it over meanwhile."""
    path = f"{directory.rstrip('/')}/lock.json"
    now = time.time()
    mine = Holder(socket.gethostname(), os.getpid(), secrets.token_hex(8), now, now, this_process())
    _acquire(path, mine)
    lock, stopped = StageLock(path, mine), threading.Event()

    def beat() -> None:
        pause = SETTLE_S
        while not stopped.wait(pause):
            # A heartbeat that cannot be written now (a full disk) is tried again: many must be
            # missed before the lock counts as stale.
            with suppress(StoreError, OSError):
                lock.renew()
            pause = min(2 * pause, HEARTBEAT_S)

    heartbeat = threading.Thread(target=beat, name="stage-lock", daemon=True)
    heartbeat.start()
    try:
        yield lock
    finally:
        stopped.set()
        heartbeat.join()
        with suppress(StoreError, OSError):
            lock.release()
    lock.check()


def _acquire(path: str, mine: Holder) -> None:
    """Of drivers that start at once, the one that writes last holds the lock: all look again."""
    _check_free(path, mine)
    started = time.monotonic()
    write_atomically(path, _encode(mine))
    time.sleep(max(SETTLE_S, SETTLE_WRITES * (time.monotonic() - started)))
    _check_free(path, mine)


def _check_free(path: str, mine: Holder) -> None:
    holder = read_holder(path)
    if holder is not None and holder.token != mine.token and holder.is_alive():
        raise StageLocked(
            f"{path}: another driver is working on it: {holder}. Wait for it, or stop it"
        )


def read_holder(path: str) -> Holder | None:
    """Who holds the lock file at `path`; None where nobody does."""
    data = read_bytes(path)
    if data is None:
        return None
    try:
        return Holder(**json.loads(data))
    except (ValueError, TypeError):
        return None  # not a lock that we wrote


def _encode(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode()
