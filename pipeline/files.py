"""Files that appear whole or not at all, in a folder or behind an fsspec URI."""

import os
import tempfile

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem


class StoreError(Exception):
    """A stage's files cannot be read or written as they should."""


def exists(path: str) -> bool:
    filesystem, name = fsspec.core.url_to_fs(path)
    return filesystem.exists(name)


def write_atomically(path: str, data: bytes | pa.Buffer) -> None:
    """Make `path` hold `data`, durably, or leave it as it was.

    Object stores put whole objects; a local file is written beside its final name, synced, then
    renamed. Raises StoreError naming the file.
    """
    filesystem, name = fsspec.core.url_to_fs(path)
    try:
        if isinstance(filesystem, LocalFileSystem):
            _write_local(name, data)
        else:
            filesystem.pipe_file(name, bytes(data))
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written ({error.strerror or error}); nothing was left behind. "
            "Make room or choose another --root, then run again: finished parts are kept"
        ) from error


def _write_local(path: str, data: bytes | pa.Buffer) -> None:
    directory = os.path.dirname(path)
    os.makedirs(directory, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=".", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    directory_handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(directory_handle)
    finally:
        os.close(directory_handle)
