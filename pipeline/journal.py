"""The response journal: one durable record per paid response, so that none is paid for twice.

A directory holds one append-only file per writing process. A file is a magic line and then frames:

    length of the body, 4 bytes | CRC-32 of the body, 4 bytes | body

(big-endian), where a body is `<request hash> <sample index>\\n<payload>`. A record counts once
`put` has returned, that is after fsync. A process that is killed can leave half a frame at the end
of its file; readers stop there, and look again at the next `refresh`. Damage before a whole record
costs what it hit and no more: readers go on at that record. Nobody ever writes to another process's
file, so this works on shared file systems, where locks and embedded databases do not. Object
stores, which know no appending, keep the same files whole: see `pipeline.object_journal`.
"""

import logging
import os
import re
import socket
import struct
import threading
import uuid
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

logger = logging.getLogger(__name__)

_MAGIC = b"response journal 1\n"
_FRAME = struct.Struct(">II")
_START = re.compile(rb"\0(?!\0\0\0)")
"""Where a frame of less than 16 MiB can begin: JSON holds no zero byte, and no body is empty."""


class JournalError(Exception):
    """A journal file that is none, or is of another version."""


@dataclass(frozen=True, slots=True)
class _Place:
    path: Path
    offset: int  # of the payload, bytes
    length: int


class Journal:
    """The records of a directory: those found when it was opened, and those put since.

    Records that other processes append meanwhile are seen after `refresh`. Safe to use from several
    threads.
    """

    def __init__(self, directory: Path | str) -> None:
        """Read every file. Raises JournalError for a file that is no journal."""
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._places: dict[tuple[str, int], _Place] = {}
        self._read_to: dict[Path, int] = {}
        self._writing = threading.Lock()
        self._syncing = threading.Lock()
        self._reading = threading.Lock()
        self._file: _Writer | None = None
        self.refresh()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, record: tuple[str, int]) -> bool:
        return record in self._places

    def refresh(self) -> None:
        """See what others have recorded since. Raises JournalError as opening does."""
        with self._reading:
            for path in sorted(self.directory.glob("*.journal")):
                mine = self._file is not None and path == self._file.path
                start = self._read_to.get(path, 0)
                if not mine and path.stat().st_size > start:
                    places, self._read_to[path] = _read(path, start)
                    self._places.update(places)

    def payloads(self) -> Iterator[bytes]:
        """Every recorded payload."""
        for request_hash, sample_index in list(self._places):
            payload = self.get(request_hash, sample_index)
            if payload is not None:
                yield payload

    def get(self, request_hash: str, sample_index: int) -> bytes | None:
        """The payload of a recorded response, None where there is none."""
        place = self._places.get((request_hash, sample_index))
        if place is None:
            return None
        with place.path.open("rb") as file:
            file.seek(place.offset)
            return file.read(place.length)

    def put(self, request_hash: str, sample_index: int, payload: bytes) -> None:
        """Record a response; it is on disk when this returns. Raises OSError where it cannot be.

        Threads that put at the same time share one fsync.
        """
        self.put_all([(request_hash, sample_index, payload)])

    def put_all(self, records: Iterable[tuple[str, int, bytes]]) -> None:
        """`put` many, with one fsync; where it raises, some of them may be recorded."""
        places: dict[tuple[str, int], _Place] = {}
        with self._writing:
            if self._file is None:
                self._file = _Writer(self.directory)
            file, end = self._file, 0
            try:
                for request_hash, sample_index, payload in records:
                    end = file.append(_frame(request_hash, sample_index, payload))
                    place = _Place(file.path, end - len(payload), len(payload))
                    places[request_hash, sample_index] = place
            except OSError:
                self._file = None  # it may end in half a frame: nothing may follow that
                raise
        with self._syncing:
            file.sync(end)
        self._places.update(places)

    def close(self) -> None:
        with self._writing:
            if self._file is not None:
                self._file.close()
                self._file = None


class _Writer:
    """The one file that this process appends to."""

    def __init__(self, directory: Path) -> None:
        name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.journal"
        self.path = directory / name
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        self._end = self._synced = 0
        self._write(_MAGIC)
        folder = os.open(directory, os.O_RDONLY)  # the name itself must survive a crash too
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def append(self, frame: bytes) -> int:
        """Returns the offset of the end of the frame, which `sync` makes durable."""
        self._write(frame)
        return self._end

    def sync(self, end: int) -> None:
        if self._synced < end:
            written = self._end
            os.fsync(self._fd)
            self._synced = written

    def close(self) -> None:
        os.close(self._fd)

    def _write(self, data: bytes) -> None:
        while data:
            count = os.write(self._fd, data)
            self._end += count
            data = data[count:]


def file_of(records: Iterable[tuple[str, int, bytes]]) -> bytes:
    """A whole journal file that holds these records."""
    return _MAGIC + b"".join(_frame(*record) for record in records)


def _frame(request_hash: str, sample_index: int, payload: bytes) -> bytes:
    body = f"{request_hash} {sample_index}\n".encode() + payload
    return _FRAME.pack(len(body), zlib.crc32(body)) + body


def _read(path: Path, start: int) -> tuple[dict[tuple[str, int], _Place], int]:
    """Where each record of a file from `start` is, up to the first frame that is not whole and has
    no whole one after it, and where that is."""
    places: dict[tuple[str, int], _Place] = {}
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(len(_MAGIC))
        if not _MAGIC.startswith(magic):
            raise JournalError(
                f"{path} is no response journal of this version: it begins with {magic!r}, not "
                f"{_MAGIC!r}; move it away, or use the version that wrote it"
            )
        end = max(start, len(magic))
        file.seek(end)
        while end < size:
            body = _body(file.read(_FRAME.size), file, size)
            if body is None:
                whole = _next_whole(path, end, size)
                if whole is None:
                    logger.warning(
                        "%s: the last %d bytes are no whole record (a writer was killed, or is at "
                        "it): ignored",
                        path,
                        size - end,
                    )
                    break
                logger.warning(
                    "%s: damaged: %d bytes from offset %d are no whole record: what they held is "
                    "asked for again, the records after them are kept",
                    path,
                    whole - end,
                    end,
                )
                end = whole
                file.seek(end)
                continue
            head, _, payload = body.partition(b"\n")
            request_hash, sample_index = head.decode().split(" ")
            end = file.tell()
            place = _Place(path, end - len(payload), len(payload))
            places[request_hash, int(sample_index)] = place
    return places, end


def _body(head: bytes, file: BinaryIO, size: int) -> bytes | None:
    """The body of the frame whose head was just read from `file`; None where it is not whole."""
    if len(head) < _FRAME.size:
        return None
    length, checksum = _FRAME.unpack(head)
    # A hole that a crash left is zeros: a frame of length 0, whose checksum agrees.
    if not length or file.tell() + length > size:
        return None
    body = file.read(length)
    return body if len(body) == length and zlib.crc32(body) == checksum else None


def _next_whole(path: Path, damaged: int, size: int) -> int | None:
    """Where the first whole frame after a damaged one begins, whose length may be what is damaged;
    None where there is none. Holds the rest of the file."""
    with path.open("rb") as file:
        file.seek(damaged)
        rest = file.read(size - damaged)
    for found in _START.finditer(rest, 1):
        begin = found.start()
        if begin + _FRAME.size > len(rest):
            break
        length, checksum = _FRAME.unpack_from(rest, begin)
        body = memoryview(rest)[begin + _FRAME.size :][:length]
        if len(body) == length and zlib.crc32(body) == checksum:
            return damaged + begin
    return None
