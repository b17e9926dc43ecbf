"""What the judge keeps and what it sends: a test split into the half that enters the sandbox and
the half that never does."""

import ast
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from sandbox import comparators, values
from sandbox.protocol import Comparator, Program, TestCase

_OUTPUT_BYTES = 1 << 16  # any program may print so much, whatever is expected of it
_OUTPUT_FACTOR = 4  # numbers with more digits, trailing blanks: right answers can be longer


@dataclass(frozen=True, slots=True)
class Check:
    """One test. `payload` and `output_bytes` (the output limit) are sent; `expected` is not."""

    payload: bytes
    output_bytes: int
    expected: Any
    is_call: bool

    def difference(self, comparator: Comparator, output: bytes | None) -> str | None:
        """None where the answer is right, else what is wrong with it, in one line."""
        if output is None:
            return "the call returned nothing: the program ended first"
        if not self.is_call:
            return comparators.output_difference(comparator, output, self.expected)
        try:
            value = values.decode(output)
        except ValueError as error:
            return str(error)
        return comparators.value_difference(comparator, value, self.expected)


def checks_of(program: Program) -> list[Check]:
    """The tests of a program. Raises ValueError where they cannot decide anything."""
    if not program.tests:
        raise ValueError("tests: a program without tests cannot be judged")
    checks = []
    for index, test in enumerate(program.tests):
        if (test.stdin is None) == (program.entry_point is None):
            raise ValueError(
                f"tests[{index}]: a program with an entry point takes call arguments, one without "
                f"takes stdin; entry_point is {program.entry_point!r}"
            )
        try:
            checks.append(_call_check(test) if test.stdin is None else _stdin_check(test))
        except (ValueError, TypeError) as error:
            raise ValueError(f"tests[{index}]: {error}") from error
    return checks


def parse_literal(text: str) -> Any:
    """The value of strict JSON, or else of a Python literal. Raises ValueError."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        shown = text if len(text) <= 60 else text[:57] + "..."
        raise ValueError(f"neither strict JSON nor a Python literal: {shown!r}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no strict JSON")


def _stdin_check(test: TestCase) -> Check:
    assert test.stdin is not None
    payload = test.stdin.encode("utf-8", "surrogateescape")
    return Check(payload, _output_limit(test.expected), test.expected, is_call=False)


@lru_cache(maxsize=1024)  # the rollouts of a problem share its tests
def _call_check(test: TestCase) -> Check:
    args = parse_literal(test.args if test.args is not None else "[]")
    kwargs = parse_literal(test.kwargs if test.kwargs is not None else "{}")
    if not isinstance(args, list | tuple):
        raise ValueError(f"args: a list of positional arguments is wanted, not {test.args!r}")
    if not isinstance(kwargs, dict):
        raise ValueError(f"kwargs: an object of named arguments is wanted, not {test.kwargs!r}")
    payload = values.encode((list(args), kwargs)).encode("utf-8", "surrogatepass")
    expected = parse_literal(test.expected)
    return Check(payload, _output_limit(test.expected), expected, is_call=True)


def _output_limit(expected: str) -> int:
    return _OUTPUT_BYTES + _OUTPUT_FACTOR * len(expected)
