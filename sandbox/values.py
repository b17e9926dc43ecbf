"""Python values as JSON text, both ways: how call arguments enter the sandbox and how results
leave it. Runs on both sides, so it imports the standard library alone; nothing is ever unpickled.

JSON's own values stand for themselves; every other value is an object with one key, its tag:
`{"tuple": [...]}`, `{"set": [...]}`, `{"frozenset": [...]}`, `{"dict": [[key, value], ...]}` (every
dict, so that no value looks like a tag), `{"float": "nan" | "inf" | "-inf"}`, `{"complex": [real,
imaginary]}`, `{"bytes": "<hexadecimal>"}`, `{"decimal": "<text>"}`, `{"fraction": [numerator,
denominator]}`, and LeetCode's nodes as `{"TreeNode": [...]}` and `{"ListNode": [...]}` (see
`nodes.Nodes`).
"""

import json
import math
from typing import Any

from sandbox import nodes

_PLAIN = frozenset({int, str, bool, type(None)})


def encode(value: Any) -> str:
    """Raises TypeError for a value that is no plain data, ValueError for one that cannot be
    written (an integer beyond Python's digit limit), RecursionError for a cyclic one."""
    return json.dumps(_tagged(value), allow_nan=False, separators=(",", ":"))


def decode(text: str | bytes, most_hashed: int | None = None) -> Any:
    """The value that `encode` wrote. Raises ValueError for anything else.

    `most_hashed` bounds the dict keys and set members, at all depths together. A hostile text can
    choose members with equal hashes, and inserting n of those takes n² steps.
    """
    try:
        tagged = json.loads(text)
        if most_hashed is not None and _count_hashed(tagged) > most_hashed:
            raise ValueError(f"a value with more than {most_hashed} dict keys and set members")
        return _untagged(tagged)
    except (TypeError, ArithmeticError, RecursionError) as error:
        # An unhashable set member, a fraction over zero, a maze of brackets.
        raise ValueError(f"not an encoded value: {error}") from error


def count_hashed(value: Any) -> int:
    """The dict keys and set members in a value, at all depths together."""
    return _count_hashed(_tagged(value))


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
    if isinstance(value, set):
        return {"set": [_tagged(item) for item in value]}
    if isinstance(value, frozenset):
        return {"frozenset": [_tagged(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[_tagged(key), _tagged(item)] for key, item in value.items()]}
    return _tagged_rare(value, kind)


def _tagged_rare(value: Any, kind: type) -> Any:
    if isinstance(value, complex):
        return {"complex": [_tagged(value.real), _tagged(value.imag)]}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, nodes.Nodes):
        return {value.kind: _tagged(value.values)}
    if kind.__name__ in nodes.KINDS:  # whoever defined the class
        return {kind.__name__: _tagged(nodes.of_object(value, kind.__name__).values)}
    # By name: a child that needs neither module need not have them.
    if (kind.__module__, kind.__name__) == ("decimal", "Decimal"):
        return {"decimal": str(value)}
    if (kind.__module__, kind.__name__) == ("fractions", "Fraction"):
        return {"fraction": [int(value.numerator), int(value.denominator)]}
    if kind.__module__ == "numpy" and getattr(value, "shape", None) == ():
        return _tagged(value.item())  # a numpy scalar equals the number it holds
    raise TypeError(f"a result of type {kind.__name__} is no plain data")


def _base(value: int | str) -> int | str:
    return int(value) if isinstance(value, int) else str.__str__(value)


def _count_hashed(tagged: Any) -> int:
    if isinstance(tagged, list):
        return 0 if _PLAIN.issuperset(map(type, tagged)) else sum(map(_count_hashed, tagged))
    if not isinstance(tagged, dict):
        return 0
    counts = 0
    for tag, content in tagged.items():
        if tag in ("set", "frozenset", "dict") and isinstance(content, list):
            counts += len(content)
        counts += _count_hashed(content)
    return counts


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
        case "frozenset":
            return frozenset(_untagged(item) for item in content)
        case "dict":
            return {_untagged(key): _untagged(item) for key, item in content}
        case "float":
            return float(content)
        case _:
            return _untagged_rare(tag, content)


def _untagged_rare(tag: str, content: Any) -> Any:
    match tag:
        case "complex":
            real, imaginary = content
            return complex(_untagged(real), _untagged(imaginary))
        case "bytes":
            return bytes.fromhex(content)
        case "TreeNode" | "ListNode":
            return nodes.of_values(tag, [_untagged(item) for item in content])
        case "decimal":
            from decimal import Decimal

            number = Decimal(_expect(str, content))
            if number.is_snan():
                raise ValueError("a signalling NaN cannot be compared")
            return number
        case "fraction":
            from fractions import Fraction

            numerator, denominator = content
            return Fraction(_expect(int, numerator), _expect(int, denominator))
        case _:
            raise ValueError(f"not an encoded value: unknown tag {tag!r}")


def _expect(kind: type, value: Any) -> Any:
    """Number classes read many forms; some, such as `Fraction("1e999999999")`, take for ever."""
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} is wanted, not {type(value).__name__}")
    return value
