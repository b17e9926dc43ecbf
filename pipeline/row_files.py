"""Files of rows: plain or compressed as their names say, on this machine or at any fsspec URI.

Whatever is wrong with a path or with the bytes behind it is an OSError that begins with the path.
"""

import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import fsspec
import pyarrow as pa
from fsspec.compression import register_compression

_CHUNK = 1 << 20


def _zstd(file: Any, mode: str = "rb", **_: Any) -> io.BufferedReader:
    return io.BufferedReader(pa.CompressedInputStream(file, "zstd"))


register_compression("zstd", _zstd, "zst", force=True)  # fsspec's own needs one more package


def lines(paths: Sequence[str]) -> Iterator[tuple[str, int, bytes]]:
    """File, number (from 1) and text of every row that is not blank; a byte order mark is no text.
    Raises OSError."""
    for path in paths:
        with told_of(path), fsspec.open(path, "rb", compression="infer") as file:
            for number, line in enumerate(file, start=1):  # pyright: ignore[reportArgumentType]
                text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if text.strip():
                    yield path, number, text


def read_bytes(path: str) -> bytes:
    """What is in the file, decompressed. Raises OSError."""
    with told_of(path), fsspec.open(path, "rb", compression="infer") as file:
        data: bytes = file.read()  # pyright: ignore[reportAttributeAccessIssue]
    return data.removeprefix(codecs.BOM_UTF8)


def chunks(path: str) -> Iterator[bytes]:
    """The file as it is stored, piece by piece. Raises OSError."""
    with told_of(path), fsspec.open(path, "rb") as file:
        while chunk := file.read(_CHUNK):  # pyright: ignore[reportAttributeAccessIssue]
            yield chunk


def filesystem(path: str) -> tuple[Any, str]:
    """The file system behind a path, and the path's name on it. Raises OSError."""
    with told_of(path):
        return fsspec.core.url_to_fs(path)


@contextmanager
def told_of(path: str) -> Iterator[None]:
    """Around what reads a path, and nothing else: whatever is wrong there becomes an OSError that
    begins with the path."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise OSError(f"{path}: the compressed file is cut off or damaged: {error}") from error
    except OSError as error:
        # fsspec's clients may say no more than the path themselves, and keep the reason as cause.
        reason = error.strerror or error.__cause__ or error
        raise OSError(f"{path}: cannot be read: {reason}") from error
    except (ImportError, ValueError) as error:  # no client for the protocol, or no such protocol
        raise OSError(f"{path}: cannot be opened: {error}") from error
