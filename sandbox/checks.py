"""What the judge keeps and what it sends: a test split into the half that enters the sandbox and
the half that never does."""

import ast
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from sandbox import comparators, nodes, values
from sandbox.protocol import Comparator, Program, TestCase

_OUTPUT_BYTES = 1 << 16  # any program may print so much, whatever is expected of it
_HASHED = 1000  # any result may hold so many dict keys and set members
_OUTPUT_FACTOR = 4  # numbers with more digits, trailing blanks: right answers can be longer

CALL, SCRIPT = b"C", b"S"  # the first byte of what a program with an entry point is sent


@dataclass(frozen=True, slots=True)
class Check:
    """One test. `payload` and `output_bytes` (the output limit) are sent; what `compare` expects
    is not."""

    payload: bytes
    output_bytes: int
    compare: Callable[[Comparator, bytes], str | None]

    def difference(self, comparator: Comparator, output: bytes | None) -> str | None:
        """None where the answer is right, else what is wrong with it, in one line."""
        if output is None:
            return "the call returned nothing: the program ended first"
        return self.compare(comparator, output)


def checks_of(program: Program) -> list[Check]:
    """The tests of a program. Raises ValueError where they cannot decide anything."""
    if not program.tests:
        raise ValueError("tests: a program without tests cannot be judged")
    checks = []
    for index, test in enumerate(program.tests):
        if (test.stdin is None) == (program.entry_point is None):
            raise ValueError(
                f"tests[{index}]: a program with an entry point takes call arguments or a script, "
                f"one without takes stdin; entry_point is {program.entry_point!r}"
            )
        try:
            checks.append(_check(test))
        except RecursionError:
            raise ValueError(f"tests[{index}]: nested too deeply") from None
        except (ValueError, TypeError) as error:
            raise ValueError(f"tests[{index}]: {error}") from error
    return checks


def check_all(programs: Iterable[Program]) -> None:
    """Raises ValueError, naming the program, where one of them cannot be judged: asked before the
    first one runs, since an error later would cost the verdicts made until then."""
    for index, program in enumerate(programs):
        try:
            checks_of(program)
        except ValueError as error:
            raise ValueError(f"programs[{index}]: {error}") from error


def parse_literal(text: str) -> Any:
    """The value of strict JSON, or else of a Python literal, in which `TreeNode([1, None, 2])` and
    `ListNode([1, 2])` stand for LeetCode's nodes (`nodes.Nodes`). Raises ValueError."""
    try:
        return _STRICT_JSON.decode(text)
    except (ValueError, RecursionError):
        pass
    try:
        expression = ast.parse(text.strip(), mode="eval").body
        return _literal(expression) if "Node(" in text else ast.literal_eval(expression)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        shown = text if len(text) <= 60 else text[:57] + "..."
        raise ValueError(f"neither strict JSON nor a Python literal: {shown!r}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no strict JSON")


_STRICT_JSON = json.JSONDecoder(parse_constant=_refuse_constant)


def _literal(node: ast.expr) -> Any:
    """A Python literal in which nodes may be written."""
    match node:
        case ast.Call(func=ast.Name(id=kind), args=[ast.List(elts=items)], keywords=[]) if (
            kind in nodes.KINDS
        ):
            return nodes.of_values(kind, [_literal(item) for item in items])
        case ast.List(elts=items):
            return [_literal(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_literal(item) for item in items)
        case ast.Dict(keys=keys, values=items):
            named = [key for key in keys if key is not None]  # None stands for `**`
            pairs = zip(named, items, strict=True)
            return {ast.literal_eval(key): _literal(item) for key, item in pairs}
        case _:
            return ast.literal_eval(node)


def _check(test: TestCase) -> Check:
    if test.stdin is not None:
        return _stdin_check(test.stdin, test.expected)
    if test.script is not None:
        return _script_check(test.script)
    return _call_check(test)


def _stdin_check(stdin: str, expected: str) -> Check:
    return Check(
        stdin.encode("utf-8", "surrogateescape"),
        _output_limit(expected),
        lambda comparator, output: comparators.output_difference(comparator, output, expected),
    )


@lru_cache(maxsize=1024)  # the rollouts of a problem share its tests
def _call_check(test: TestCase) -> Check:
    args = parse_literal(test.args if test.args is not None else "[]")
    kwargs = parse_literal(test.kwargs if test.kwargs is not None else "{}")
    if not isinstance(args, list | tuple):
        raise ValueError(f"args: a list of positional arguments is wanted, not {test.args!r}")
    if not isinstance(kwargs, dict) or not all(isinstance(name, str) for name in kwargs):
        raise ValueError(f"kwargs: an object of named arguments is wanted, not {test.kwargs!r}")
    payload = values.encode((list(args), kwargs)).encode("utf-8", "surrogatepass")
    expected = parse_literal(test.expected)
    most_hashed = _HASHED + 2 * values.count_hashed(expected)

    def compare(comparator: Comparator, output: bytes) -> str | None:
        try:
            value = values.decode(output, most_hashed)
        except ValueError as error:
            return str(error)
        return comparators.value_difference(comparator, value, expected)

    return Check(CALL + payload, _output_limit(values.encode(expected)), compare)


def _script_check(script: str) -> Check:
    try:
        compile(script, "script", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"script: does not compile: {error}") from error
    payload = SCRIPT + script.encode("utf-8", "surrogatepass")
    return Check(payload, _output_limit(""), _script_difference)


def _script_difference(_: Comparator, output: bytes) -> str | None:
    """The script's own word, which is all that there is: True, or the assertion that failed."""
    try:
        said = values.decode(output, most_hashed=0)
    except ValueError as error:
        return str(error)
    return None if said is True else str(said)[:400]


def _output_limit(expected: str) -> int:
    return _OUTPUT_BYTES + _OUTPUT_FACTOR * len(expected)
