"""Python values as JSON text, both ways: how call arguments enter the sandbox and how results
leave it. Runs on both sides, so it imports the standard library alone; nothing is ever unpickled.

JSON's own values stand for themselves; the rest is tagged: `{"tuple": [...]}`, `{"set": [...]}`,
`{"dict": [[key, value], ...]}` (every dict, so that no value looks like a tag) and
`{"float": "nan" | "inf" | "-inf"}`.
"""

import json
import math
from typing import Any

_PLAIN = frozenset({int, str, bool, type(None)})


def encode(value: Any) -> str:
    """Raises TypeError for a value that is no plain data, ValueError for one that cannot be
    written (an integer beyond Python's digit limit), RecursionError for a cyclic one."""
    return json.dumps(_tagged(value), allow_nan=False, separators=(",", ":"))


def decode(text: str | bytes) -> Any:
    """The value that `encode` wrote. Raises ValueError for anything else."""
    try:
        return _untagged(json.loads(text))
    except (TypeError, RecursionError) as error:  # an unhashable set member; a maze of brackets
        raise ValueError(f"not an encoded value: {error}") from error


def _tagged(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is list:
        return value if _PLAIN.issuperset(map(type, value)) else [_tagged(item) for item in value]
    if isinstance(value, bool | int | str):  # subclasses, such as IntEnum
        return _base(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, list):
        return [_tagged(item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_tagged(item) for item in value]}
    if isinstance(value, set | frozenset):
        return {"set": [_tagged(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[_tagged(key), _tagged(item)] for key, item in value.items()]}
    if kind.__module__ == "numpy" and getattr(value, "shape", None) == ():
        return _tagged(value.item())  # a numpy scalar equals the number it holds
    raise TypeError(f"a result of type {kind.__name__} is no plain data")


def _base(value: int | str) -> int | str:
    return int(value) if isinstance(value, int) else str.__str__(value)


def _untagged(value: Any) -> Any:
    if isinstance(value, list):
        if _PLAIN.issuperset(map(type, value)):
            return value
        return [_untagged(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError("not an encoded value: an object with other than one key")
    ((tag, content),) = value.items()
    match tag:
        case "tuple":
            return tuple(_untagged(item) for item in content)
        case "set":
            return {_untagged(item) for item in content}
        case "dict":
            return {_untagged(key): _untagged(item) for key, item in content}
        case "float":
            return float(content)
        case _:
            raise ValueError(f"not an encoded value: unknown tag {tag!r}")
