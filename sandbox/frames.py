"""The binary frames that judge and runner exchange. Both sides run this very file, so it imports
the standard library alone.

A frame is `kind:u8 request:16 bytes length:u32 head:u32`, a JSON object of `head` bytes, and a
payload of raw bytes; `length` counts both. A request id is random, and the runner answers a test
with the id it came with: a program, which never sees the id, cannot write a valid answer.
"""

import json
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

_HEADER = struct.Struct(">B16sII")

READY = 1  # runner -> judge: warm, waiting for a program
PROGRAM = 2  # judge -> runner: code, entry point, limits, how many tests will follow
TEST = 3  # judge -> runner: one test of the current program
END = 4  # judge -> runner: forget the tests of the current program that have not been answered
RESULT = 5  # runner -> judge: how one test ended

MAX_BYTES = 1 << 28  # of one frame: a longer one is a broken stream

NO_REQUEST = bytes(16)


class Frame(NamedTuple):
    kind: int
    request: bytes  # 16 bytes
    fields: dict[str, Any]
    payload: bytes


class BrokenStream(Exception):
    """What arrived is not a frame."""


def pack(kind: int, request: bytes, fields: dict[str, Any], payload: bytes = b"") -> bytes:
    head = json.dumps(fields).encode()
    header = _HEADER.pack(kind, request, len(head) + len(payload), len(head))
    return b"".join((header, head, payload))


def read(receive: Callable[[int], bytes]) -> Frame:
    """The next frame; `receive(n)` returns exactly n bytes or raises. Raises BrokenStream."""
    kind, request, length, head = _parse_header(receive(_HEADER.size))
    return _parse_body(kind, request, head, receive(length))


def take(buffer: bytearray) -> Frame | None:
    """Remove the next frame from what has arrived; None while it is not all there."""
    if len(buffer) < _HEADER.size:
        return None
    kind, request, length, head = _parse_header(buffer)
    end = _HEADER.size + length
    if len(buffer) < end:
        return None
    body = bytes(memoryview(buffer)[_HEADER.size : end])
    del buffer[:end]
    return _parse_body(kind, request, head, body)


def _parse_header(header: bytes | bytearray) -> tuple[int, bytes, int, int]:
    kind, request, length, head = _HEADER.unpack_from(header)
    if length > MAX_BYTES:
        raise BrokenStream(f"a frame of {length} bytes")
    if head > length:
        raise BrokenStream("a frame shorter than its fields")
    return kind, request, length, head


def _parse_body(kind: int, request: bytes, head: int, body: bytes) -> Frame:
    try:
        fields = json.loads(body[:head])
    except (ValueError, RecursionError) as error:
        raise BrokenStream(f"a frame whose fields are no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise BrokenStream("a frame whose fields are no JSON object")
    return Frame(kind, request, fields, body[head:])
