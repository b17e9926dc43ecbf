"""Files that appear whole or not at all, in a folder or behind a URI.

A URI is opened by pyarrow's own file systems where there is one (s3://, gs://), else by fsspec.
"""

import functools
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import fs

STALE_PARTIAL_S = 3600.0
"""A temporary file that nobody has touched for so long was left by a writer that was killed: no
part takes an hour to write, whatever it took to make."""

_PARTIAL = ".partial"


class StoreError(Exception):
    """A stage's files cannot be read or written as they should."""


@dataclass(frozen=True, slots=True)
class FileState:
    """What a listing tells of a file."""

    size: int  # bytes
    modified_ns: int  # 0: the client of the store does not tell

    def is_still(self, before: "FileState | None") -> bool:
        """Whether the content is sure to be what it was when the file's state was `before`."""
        return self == before and self.modified_ns != 0


def is_local(path: str) -> bool:
    return "://" not in path


def exists(path: str) -> bool:
    if is_local(path):
        return os.path.exists(path)
    filesystem, name = _located(path)
    return filesystem.get_file_info(name).type is not fs.FileType.NotFound


def read_bytes(path: str) -> bytes | None:
    """The whole file, None where there is none. Raises OSError."""
    try:
        with open_file(path) as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextmanager
def open_file(path: str) -> Iterator[pa.NativeFile]:
    """A file to read, at random. Raises FileNotFoundError, OSError."""
    filesystem, name = _located(path)
    with filesystem.open_input_file(name) as file:
        yield file


def delete(path: str) -> None:
    """Make sure that there is no such file."""
    with suppress(FileNotFoundError):
        if is_local(path):
            os.unlink(path)
        else:
            filesystem, name = _located(path)
            filesystem.delete_file(name)


def listing(directory: str) -> dict[str, FileState]:
    """The files of a directory by name, in one look; empty where there is no such directory.

    Temporary files that killed writers left are removed on the way.
    """
    return _list_local(directory) if is_local(directory) else _list_remote(directory)


def tree(directory: str) -> dict[str, FileState]:
    """All files below a directory by their path from there; empty where there is none."""
    filesystem, name = _located(directory)
    selector = fs.FileSelector(name, allow_not_found=True, recursive=True)
    return {
        # Some of fsspec's clients begin their paths with a slash, whatever they were asked for.
        os.path.relpath(f"/{info.path}", f"/{name}"): FileState(info.size or 0, info.mtime_ns or 0)
        for info in filesystem.get_file_info(selector)
        if info.is_file
    }


def copy(source: str, target: str) -> None:
    """Copy one file, a piece at a time, between any two places. Raises StoreError."""
    (reading, read), (writing, written) = _located(source), _located(target)
    try:
        if is_local(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
        fs.copy_files(read, written, source_filesystem=reading, destination_filesystem=writing)
    except OSError as error:
        raise StoreError(f"{target}: cannot be copied from {source}: {error}") from error


def write_atomically(
    path: str, data: bytes | bytearray | memoryview, *, durable: bool = True
) -> None:
    """Make `path` hold `data`, or leave it as it was; `durable`: it survives a crash of the machine
    from then on.

    Object stores put whole objects; a local file is written beside its final name, synced, then
    renamed. Raises StoreError naming the file.
    """
    try:
        if is_local(path):
            _write_local(path, data, durable=durable)
        else:
            filesystem, name = _located(path)
            with filesystem.open_output_stream(name) as file:
                file.write(data)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written ({error.strerror or error}); nothing was left behind. "
            "Make room or choose another folder (--root of a run, --out of a job), then run again: "
            "finished parts are kept"
        ) from error


@functools.cache
def _filesystem(root: str) -> fs.FileSystem:
    """The file system of a `scheme://bucket`; making one costs a client and its threads. Raises
    StoreError where there is none."""
    try:
        return fs.FileSystem.from_uri(root)[0]
    except (pa.ArrowInvalid, NotImplementedError):  # not one of pyarrow's own
        try:
            return fs.PyFileSystem(fs.FSSpecHandler(_fsspec_client(root)))
        except (ImportError, ValueError) as error:  # no client for the protocol, or no such one
            raise StoreError(
                f"{root}: cannot be opened: {error}. Use a folder, s3://, gs:// or abfss://, or "
                "install the fsspec client of this protocol"
            ) from error
    except OSError as error:
        raise StoreError(f"{root}: cannot be reached: {error}") from error


def _fsspec_client(root: str) -> Any:
    """One that lists anew each time: a part that another process wrote must be in the next
    listing."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(root, use_listings_cache=False)[0]
    except TypeError:  # a client with options of its own alone
        return fsspec.core.url_to_fs(root)[0]


def _located(path: str) -> tuple[fs.FileSystem, str]:
    if is_local(path):
        return _LOCAL, path
    scheme, _, name = path.partition("://")
    return _filesystem(f"{scheme}://{name.partition('/')[0]}"), name


_LOCAL = fs.LocalFileSystem()


def _list_local(directory: str) -> dict[str, FileState]:
    found: dict[str, FileState] = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # renamed or removed meanwhile
                    state = entry.stat()
                    if entry.name.endswith(_PARTIAL):
                        if time.time() - state.st_mtime > STALE_PARTIAL_S:
                            os.unlink(entry.path)
                    elif entry.is_file():
                        found[entry.name] = FileState(state.st_size, state.st_mtime_ns)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return found


def _list_remote(directory: str) -> dict[str, FileState]:
    filesystem, name = _located(directory)
    selector = fs.FileSelector(name, allow_not_found=True)
    return {
        info.base_name: FileState(info.size or 0, info.mtime_ns or 0)
        for info in filesystem.get_file_info(selector)
        if info.is_file
    }


def _write_local(path: str, data: bytes | bytearray | memoryview, *, durable: bool) -> None:
    directory = os.path.dirname(path)
    os.makedirs(directory, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=".", suffix=_PARTIAL)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    if not durable:
        return
    directory_handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(directory_handle)
    finally:
        os.close(directory_handle)
