"""A spec is what a problem of the small world is about: two to four operations in a row, the last
a fold. This file holds the two ways to write it down, as a statement and as a program, and the
way back from a statement.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.scale_model.operations import (
    OPERATIONS,
    PARAMETERS,
    Call,
    Kind,
    Numbers,
    compiled,
)

OPENINGS = (
    "Given a line of integers: ",
    "Read integers from one line: ",
    "For integers on a line: ",
)
CLOSINGS = (", then print ", ", and print ")
MAIN_CALL = "\n\nmain()\n"
HELPER_COUNTS = {2: 0.25, 3: 0.40, 4: 0.35}
"""How many helpers a spec needs, with the probability of each number."""


class StatementError(ValueError):
    """A statement that the generator did not write."""


@dataclass(frozen=True, slots=True)
class Spec:
    """The calls that a right program makes, in order."""

    calls: tuple[Call, ...]

    @property
    def sequence(self) -> str:
        """The names of the operations, in order. Problems are held out by it."""
        return " > ".join(call.operation.name for call in self.calls)

    def run(self, numbers: Numbers) -> int:
        """What a right program prints for these numbers."""
        return run([call.expression for call in self.calls], numbers)


def run(expressions: Sequence[str], numbers: Numbers) -> int:
    """Apply expressions of the catalogue one after the other; the last is a fold."""
    value: Numbers | int = numbers
    for expression in expressions:
        value = compiled(expression)(value)  # pyright: ignore[reportArgumentType]
    assert isinstance(value, int)
    return value


def draw_spec(rng: random.Random) -> Spec:
    """A random spec: kinds in any order, none twice, a fold at the end."""
    (helpers,) = rng.choices(tuple(HELPER_COUNTS), tuple(HELPER_COUNTS.values()))
    kinds = rng.sample((Kind.PICK, Kind.CHANGE, Kind.ORDER), helpers - 1)
    calls: list[Call] = []
    for kind in (*kinds, Kind.FOLD):
        operation = rng.choice(OPERATIONS[kind])
        parameter = rng.choice(PARAMETERS) if operation.takes_parameter else None
        calls.append(Call(operation, parameter))
    return Spec(tuple(calls))


def write_statement(spec: Spec, rng: random.Random) -> str:
    """One sentence that asks for the spec, in one of its many phrasings."""
    *steps, fold = (call.phrase(rng.randrange(60)) for call in spec.calls)
    return rng.choice(OPENINGS) + ", ".join(steps) + rng.choice(CLOSINGS) + fold + "."


def read_statement(statement: str) -> Spec:
    """The spec that a statement of this world asks for. Raises StatementError on any other text."""
    sentence = _SENTENCE.fullmatch(statement)
    if sentence is None:
        raise StatementError(f"not a statement of the scale model: {statement!r}")
    phrases = (*sentence["steps"].split(", "), sentence["fold"])
    return Spec(tuple(_read_phrase(phrase) for phrase in phrases))


def _read_phrase(phrase: str) -> Call:
    number = re.search(r"\d+", phrase)
    wording = re.sub(r"\d+", "{k}", phrase)
    if wording not in _OPERATION_OF:
        raise StatementError(f"no operation of the scale model is worded {phrase!r}")
    return Call(_OPERATION_OF[wording], int(number[0]) if number else None)


_OPERATION_OF = {
    phrasing: operation
    for operations in OPERATIONS.values()
    for operation in operations
    for phrasing in operation.phrasings
}
_SENTENCE = re.compile(
    f"(?:{'|'.join(map(re.escape, OPENINGS))})(?P<steps>.+)"
    f"(?:{'|'.join(map(re.escape, CLOSINGS))})(?P<fold>.+)\\."
)


def write_main(order: Sequence[Kind]) -> str:
    """`main()` with one call per kind, the last of them printed."""
    *steps, last = order
    lines = ["def main():", "    a = [int(x) for x in input().split()]"]
    lines += [f"    a = {kind}(a)" for kind in steps]
    lines.append(f"    print({last}(a))")
    return "\n".join(lines) + "\n"


def write_helper(kind: Kind, expression: str) -> str:
    """One helper function, with the blank lines before it."""
    return f"\n\ndef {kind}(a):\n    return {expression}\n"


def write_program(order: Sequence[Kind], helpers: Mapping[Kind, str]) -> str:
    """A Chain-of-Functions program: `main()` first, then `helpers` (expression by kind), and the
    call of `main()` as trailing code."""
    body = "".join(write_helper(kind, expression) for kind, expression in helpers.items())
    return write_main(order) + body + MAIN_CALL


def reference_program(spec: Spec) -> str:
    """The program that does what the spec says, without a bug."""
    return write_program(
        [call.operation.kind for call in spec.calls],
        {call.operation.kind: call.expression for call in spec.calls},
    )
