"""How an output is compared with the expected one, on the trusted side only.

`lcb` gives LiveCodeBench's answers (`lcb_runner/evaluation/testing_util.py`):

- standard output: both texts are stripped and split into lines at newlines, the lines stripped; the
  number of lines must agree, and each pair of lines must be equal, or be equal word by word as
  decimal numbers (`1.0` = `1.00`, without binary rounding);
- a returned value must equal the expected one with Python's `==` (so `1 == 1.0 == True`, and floats
  have no tolerance); a tuple counts as a list at the top, and only there, where a list is expected.

  LiveCodeBench asks the returned object itself whether it is equal. Here only data can be: None,
  numbers (Decimal, Fraction and numpy scalars too), text, bytes, lists, tuples, sets, dicts, their
  subclasses, and LeetCode's nodes. An object of any other class is rejected, also where its
  `__eq__` would say yes (a UserList, a SortedList, a numpy array of one element). NaN equals
  nothing.

`strict` asks for more:

- standard output is the same character for character; one newline at the very end may be missing or
  extra;
- a returned value is the same in value and in type, at every depth: `1`, `1.0` and `True` differ,
  and so do lists and tuples. NaN is the same as NaN. An instance of a subclass (an
  IntEnum, a defaultdict) counts as what it extends.

In both, output that is not UTF-8 never matches, and nor does an output that is missing.
"""

import reprlib
from decimal import Decimal, InvalidOperation
from itertools import zip_longest
from typing import Any

from sandbox.nodes import Nodes
from sandbox.protocol import Comparator


def output_difference(comparator: Comparator, output: bytes, expected: str) -> str | None:
    """None where a program's standard output is right, else the first difference, in one line."""
    try:
        text = output.decode("utf-8")
    except UnicodeDecodeError:
        return "the output is not UTF-8"
    if comparator is Comparator.STRICT:
        if text.removesuffix("\n") == expected.removesuffix("\n"):
            return None
        lines, expected_lines = text.split("\n"), expected.split("\n")
        same = str.__eq__
    else:
        lines, expected_lines = _stripped_lines(text), _stripped_lines(expected)
        same = _same_line
    for number, (line, expected_line) in enumerate(zip_longest(lines, expected_lines), start=1):
        if line is None:
            return f"ends before line {number}: {reprlib.repr(expected_line)}"
        if expected_line is None:
            return f"goes on after the expected end: {reprlib.repr(line)}"
        if not same(line, expected_line):
            return (
                f"line {number}: expected {reprlib.repr(expected_line)}, got {reprlib.repr(line)}"
            )
    return None


def value_difference(comparator: Comparator, value: Any, expected: Any) -> str | None:
    """None where a returned value is right, else the difference, in one line."""
    if comparator is Comparator.STRICT:
        is_right = _same_value(value, expected)
    else:
        if isinstance(value, tuple) and isinstance(expected, list):
            value = list(value)
        is_right = bool(value == expected)
    return None if is_right else f"expected {reprlib.repr(expected)}, got {reprlib.repr(value)}"


def _stripped_lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _same_line(line: str, expected: str) -> bool:
    if line == expected:
        return True
    try:
        numbers = [Decimal(word) for word in line.split()]
        return numbers == [Decimal(word) for word in expected.split()]
    except InvalidOperation:  # a word that is no number, or a signalling NaN
        return False


def _same_value(value: Any, expected: Any) -> bool:
    if type(value) is not type(expected):
        return False
    if isinstance(value, list | tuple):
        return len(value) == len(expected) and all(map(_same_value, value, expected))
    if isinstance(value, dict):
        return _same_value(_by_key(value), _by_key(expected))
    if isinstance(value, set | frozenset):
        return _same_value(_by_text(value), _by_text(expected))
    if isinstance(value, Nodes):
        return value.kind == expected.kind and _same_value(value.values, expected.values)
    return value == expected or (value != value and expected != expected)


def _by_key(items: dict[Any, Any]) -> list[tuple[Any, Any]]:
    return sorted(items.items(), key=lambda item: _order(item[0]))


def _by_text(items: set[Any] | frozenset[Any]) -> list[Any]:
    return sorted(items, key=_order)


def _order(item: Any) -> str:
    """A text that is the same for hashable values that are the same, however they were built."""
    if isinstance(item, frozenset):
        return f"frozenset{sorted(map(_order, item))}"
    if isinstance(item, tuple):
        return f"tuple{[_order(member) for member in item]}"
    return f"{type(item).__name__} {item!r}"
