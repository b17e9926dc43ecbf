"""The response journal behind a URI: an object store cannot append, so it keeps whole files.

Every group of records that is put together becomes one object, a small journal file of its own
(`pipeline.journal` says what is in one); a record counts once its object is there. When a process
has made MERGED of them, it puts them together as one larger object and removes them, so that a
million records are some thousands of objects to list, not a million. A process killed in between
leaves both, which is the same records twice.

What is read is kept in a temporary folder of the process, as a local journal: each object is
fetched once. It holds all records of the store, so it needs as much disk as they are.
"""

import logging
import os
import socket
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.files import StoreError, delete, is_local, listing, read_bytes, write_atomically
from pipeline.journal import Journal, file_of

logger = logging.getLogger(__name__)

MERGED = 256
"""Objects that become one. What a killed process leaves unmerged is at most so many."""

_Record = tuple[str, int, bytes]


class ObjectJournal:
    """As `Journal`, with every put a request to the store: callers on an event loop use a thread.
    Safe to use from several threads."""

    def __init__(self, directory: str) -> None:
        """Fetch every object. Raises JournalError, StoreError, OSError."""
        self.directory = directory.rstrip("/")
        self._folder = tempfile.TemporaryDirectory(prefix="journal-")
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._fetched: set[str] = set()
        self._lock = threading.Lock()
        self._fetching = threading.Lock()
        self._written = 0
        self._unmerged: list[tuple[str, list[_Record]]] = []
        self._here = Journal(self._folder.name)
        self.refresh()

    def __len__(self) -> int:
        return len(self._here)

    def __contains__(self, record: tuple[str, int]) -> bool:
        return record in self._here

    def refresh(self) -> None:
        """See what others have recorded since. Raises as opening does."""
        with self._fetching:
            for name in sorted(listing(self.directory).keys() - self._fetched):
                if not name.endswith(".journal") or name.startswith(self._name):
                    continue
                data = read_bytes(f"{self.directory}/{name}")
                if data is None:
                    continue  # merged meanwhile: the larger object is met now, or next time
                Path(self._folder.name, name).write_bytes(data)
                self._fetched.add(name)
            self._here.refresh()

    def payloads(self) -> Iterator[bytes]:
        return self._here.payloads()

    def get(self, request_hash: str, sample_index: int) -> bytes | None:
        return self._here.get(request_hash, sample_index)

    def put(self, request_hash: str, sample_index: int, payload: bytes) -> None:
        """Record a response; it is in the store when this returns. Raises StoreError."""
        self.put_all([(request_hash, sample_index, payload)])

    def put_all(self, records: Iterable[_Record]) -> None:
        """`put` many as one object."""
        group = list(records)
        path = self._write(group)
        self._here.put_all(group)  # after the store: what is not there must not count
        with self._lock:
            self._unmerged.append((path, group))
            full = self._unmerged if len(self._unmerged) >= MERGED else []
            if full:
                self._unmerged = []
        if full:
            self._merge(full)

    def close(self) -> None:
        with self._lock:
            left, self._unmerged = self._unmerged, []
        if len(left) > 1:
            self._merge(left)
        self._here.close()
        self._folder.cleanup()

    def _write(self, records: list[_Record]) -> str:
        with self._lock:
            self._written += 1
            number = self._written
        path = f"{self.directory}/{self._name}-{number:08d}.journal"
        write_atomically(path, file_of(records))
        return path

    def _merge(self, objects: list[tuple[str, list[_Record]]]) -> None:
        try:
            self._write([record for _, records in objects for record in records])
            for path, _ in objects:
                delete(path)
        except (OSError, StoreError) as error:  # they are all there, in one way or the other
            logger.warning("%s: objects could not be merged: %s", self.directory, error)


def open_journal(directory: str) -> Journal | ObjectJournal:
    """The journal of a store. Raises JournalError, StoreError, OSError."""
    return Journal(directory) if is_local(directory) else ObjectJournal(directory)
