"""One driver per stage: a lock file with a heartbeat, left stale by a driver that died.

The lock lives in the stage's directory, so that it is seen wherever the store is. A driver renews
it while it works; one that has not been renewed for a while, or whose process is known to be dead,
is taken over.
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

HEARTBEAT_S = 5.0
SETTLE_S = 0.2  # longer than a read and a write take
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

    def is_alive(self) -> bool:
        if time.time() - self.renewed > STALE_AFTER_S:
            return False
        return self.host != socket.gethostname() or _process_exists(self.pid)


@contextmanager
def stage_lock(directory: str) -> Iterator[None]:
    """Hold the stage in `directory` for the duration. Raises StageLocked, naming host, pid and
    since when, if a living driver holds it."""
    path = f"{directory.rstrip('/')}/lock.json"
    now = time.time()
    mine = Holder(socket.gethostname(), os.getpid(), secrets.token_hex(8), now, renewed=now)
    _acquire(path, mine)
    stopped = threading.Event()

    def is_mine() -> bool:
        holder = read_holder(path)
        return holder is not None and holder.token == mine.token

    def renew() -> None:
        while not stopped.wait(HEARTBEAT_S):
            # A heartbeat that cannot be written now (a full disk) is tried again: many must be
            # missed before the lock counts as stale.
            with suppress(StoreError, OSError):
                if is_mine():
                    write_atomically(path, _encode(replace(mine, renewed=time.time())))

    heartbeat = threading.Thread(target=renew, name="stage-lock", daemon=True)
    heartbeat.start()
    try:
        yield
    finally:
        stopped.set()
        heartbeat.join()
        with suppress(OSError):
            if is_mine():
                delete(path)


def _acquire(path: str, mine: Holder) -> None:
    """Of two drivers that start at once, the one that writes last holds the lock: both look again
    after a moment."""
    for attempt in range(2):
        holder = read_holder(path)
        if holder is not None and holder.token != mine.token and holder.is_alive():
            started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.since))
            raise StageLocked(
                f"{path}: another driver is working on this stage: host {holder.host}, "
                f"pid {holder.pid}, since {started}. Wait for it, or stop it"
            )
        if attempt == 0:
            write_atomically(path, _encode(mine))
            time.sleep(SETTLE_S)


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


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
