"""One driver per stage: a lock file with a heartbeat, left stale by a driver that died.

The lock lives in the stage's directory, so that it is seen wherever the store is. A driver renews
it while it works; one that has not been renewed for a while, or whose process is known to be dead,
is taken over.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import fsspec

from pipeline.store import exists, write_atomically

HEARTBEAT_S = 5.0
STALE_AFTER_S = 60.0  # many heartbeats: a busy machine or a slow file system must not lose a lock


class StageLocked(Exception):
    """Another driver is working on this stage."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock; times are seconds since the epoch."""

    host: str
    pid: int
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
    since = time.time()
    _acquire(path, since)
    stopped = threading.Event()

    def renew() -> None:
        while not stopped.wait(HEARTBEAT_S):
            write_atomically(path, _encode(since))

    heartbeat = threading.Thread(target=renew, name="stage-lock", daemon=True)
    heartbeat.start()
    try:
        yield
    finally:
        stopped.set()
        heartbeat.join()
        filesystem, name = fsspec.core.url_to_fs(path)
        filesystem.rm_file(name)


def _acquire(path: str, since: float) -> None:
    holder = read_holder(path)
    if holder is not None and holder.is_alive():
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.since))
        raise StageLocked(
            f"{path}: another driver is working on this stage: host {holder.host}, "
            f"pid {holder.pid}, since {started}. Wait for it, or stop it"
        )
    write_atomically(path, _encode(since))


def read_holder(path: str) -> Holder | None:
    """Who holds the lock file at `path`; None where nobody does."""
    if not exists(path):
        return None
    try:
        with fsspec.open(path, "rb") as file:
            return Holder(**json.load(file))  # pyright: ignore[reportArgumentType]
    except (FileNotFoundError, ValueError, TypeError):
        return None  # released just now, or not a lock that we wrote


def _encode(since: float) -> bytes:
    return json.dumps(
        asdict(Holder(socket.gethostname(), os.getpid(), since, renewed=time.time()))
    ).encode()


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
