"""The binary frames that judge and runner exchange. Both sides run this very file, so it imports
the standard library alone.

A frame is `kind:u8 request:16 bytes length:u32` followed by `length` bytes: a JSON object (with
its own u32 length) and a payload of raw bytes. A request id is random, and the runner answers a
test with the id it came with: a program, which never sees the id, cannot write a valid answer.
The kind comes first, and alone, so that the runner can fork before it has read anything secret.
"""

import json
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

_HEADER = struct.Struct(">16sI")
_LENGTH = struct.Struct(">I")

READY = 1  # runner -> judge: warm, waiting for a program
PROGRAM = 2  # judge -> runner: code, entry point, limits
TEST = 3  # judge -> runner: one test of the current program
END = 4  # judge -> runner: no more tests of the current program
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
    length = _LENGTH.size + len(head) + len(payload)
    return b"".join(
        (bytes((kind,)), _HEADER.pack(request, length), _LENGTH.pack(len(head)), head, payload)
    )


def read(receive: Callable[[int], bytes]) -> Frame:
    """The next frame; `receive(n)` returns exactly n bytes or raises. Takes not a byte more than
    the frame, so that another process can go on reading where it ends. Raises BrokenStream."""
    return read_rest(read_kind(receive), receive)


def read_kind(receive: Callable[[int], bytes]) -> int:
    return receive(1)[0]


def read_rest(kind: int, receive: Callable[[int], bytes]) -> Frame:
    request, length = _HEADER.unpack(receive(_HEADER.size))
    if not _LENGTH.size <= length <= MAX_BYTES:
        raise BrokenStream(f"a frame of {length} bytes")
    body = receive(length)
    (head,) = _LENGTH.unpack_from(body)
    start = _LENGTH.size + head
    if start > length:
        raise BrokenStream("a frame shorter than its fields")
    try:
        fields = json.loads(body[_LENGTH.size : start])
    except (ValueError, RecursionError) as error:
        raise BrokenStream(f"a frame whose fields are no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise BrokenStream("a frame whose fields are no JSON object")
    return Frame(kind, request, fields, body[start:])
