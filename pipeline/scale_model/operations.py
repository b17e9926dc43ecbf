"""The catalogue of the small world: what its programs can do to a list of integers, how a statement
asks for it, and how programmers get it wrong.

Every operation is one Python expression in `a` (a list of ints, possibly empty) and is total: it
raises on no such list. So is each of its bugs. A `{k}` stands for the operation's integer
parameter, `{up}` and `{down}` for that parameter off by one.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What an operation is for. Programs name the helper that does it after its kind."""

    PICK = "pick"  # keeps some of the numbers
    CHANGE = "change"  # maps every number
    ORDER = "order"  # rearranges the numbers
    FOLD = "fold"  # makes one number of them; always the last


@dataclass(frozen=True, slots=True)
class Operation:
    """One entry of the catalogue.

    `bug_rate` is the probability that a program of the training corpus gets it wrong, with one of
    `bugs`, each as likely as the others.
    """

    kind: Kind
    name: str
    phrasings: tuple[str, ...]
    expression: str
    bugs: tuple[str, ...]
    bug_rate: float

    @property
    def takes_parameter(self) -> bool:
        return "{k}" in self.expression


PARAMETERS = range(2, 10)
"""Values of an operation's integer parameter."""


@dataclass(frozen=True, slots=True)
class Call:
    """An operation with its parameter (None where it takes none)."""

    operation: Operation
    parameter: int | None

    @property
    def expression(self) -> str:
        return self._fill(self.operation.expression)

    @property
    def bugs(self) -> tuple[str, ...]:
        return tuple(self._fill(bug) for bug in self.operation.bugs)

    def phrase(self, phrasing: int) -> str:
        """The words for it; `phrasing` wraps around."""
        return self._fill(self.operation.phrasings[phrasing % len(self.operation.phrasings)])

    def _fill(self, template: str) -> str:
        k = self.parameter
        return template if k is None else template.format(k=k, up=k + 1, down=k - 1)


Numbers = list[int]


@functools.lru_cache(maxsize=4096)
def compiled(expression: str) -> Callable[[Numbers], Numbers | int]:
    """The reference implementation of a helper. Takes expressions of this catalogue only: it
    evaluates them in this process, which no program of a policy ever is."""
    return eval(f"lambda a: {expression}")


def _kind(
    kind: Kind, *rows: tuple[str, float, str, tuple[str, ...], tuple[str, ...]]
) -> tuple[Operation, ...]:
    """A kind's operations, from rows of name, bug rate, expression, bugs and phrasings."""
    return tuple(
        Operation(kind, name, phrasings, expression, bugs, rate)
        for name, rate, expression, bugs, phrasings in rows
    )


PICKS = _kind(
    Kind.PICK,
    (
        "above",
        0.36,
        "[x for x in a if x > {k}]",
        ("[x for x in a if x >= {k}]", "[x for x in a if x > {up}]"),
        ("keep those above {k}", "drop all up to {k}"),
    ),
    (
        "below",
        0.36,
        "[x for x in a if x < {k}]",
        ("[x for x in a if x <= {k}]", "[x for x in a if x < {down}]"),
        ("keep those below {k}", "drop all from {k} on up"),
    ),
    (
        "at_least",
        0.20,
        "[x for x in a if x >= {k}]",
        ("[x for x in a if x > {k}]",),
        ("keep those of at least {k}", "drop all below {k}"),
    ),
    (
        "at_most",
        0.20,
        "[x for x in a if x <= {k}]",
        ("[x for x in a if x < {k}]",),
        ("keep those of at most {k}", "drop all above {k}"),
    ),
    (
        "multiples",
        0.08,
        "[x for x in a if x % {k} == 0]",
        ("[x for x in a if x // {k} == 0]",),
        ("keep the multiples of {k}", "keep those divisible by {k}"),
    ),
    (
        "non_multiples",
        0.15,
        "[x for x in a if x % {k} != 0]",
        ("[x for x in a if x % {k} == 0]", "[x for x in a if x // {k} != 0]"),
        ("drop the multiples of {k}", "drop those divisible by {k}"),
    ),
    (
        "head",
        0.15,
        "a[:{k}]",
        ("a[:{down}]", "a[{k}:]"),
        ("keep the first {k}", "drop all after the first {k}"),
    ),
    (
        "skip",
        0.25,
        "a[{k}:]",
        ("a[{down}:]", "a[{up}:]"),
        ("drop the first {k}", "skip the first {k}"),
    ),
)

CHANGES = _kind(
    Kind.CHANGE,
    ("add", 0.08, "[x + {k} for x in a]", ("[x + {up} for x in a]",), ("add {k} to each",)),
    (
        "subtract",
        0.15,
        "[x - {k} for x in a]",
        ("[{k} - x for x in a]",),
        ("subtract {k} from each", "lower each by {k}"),
    ),
    (
        "multiply",
        0.08,
        "[x * {k} for x in a]",
        ("[x + {k} for x in a]",),
        ("multiply each by {k}", "scale each by {k}"),
    ),
    (
        "square",
        0.15,
        "[x * x for x in a]",
        ("[x + x for x in a]",),
        ("square each", "multiply each by itself"),
    ),
    (
        "magnitude",
        0.18,
        "[abs(x) for x in a]",
        ("[-x for x in a]",),
        ("take absolute values", "drop the signs"),
    ),
    (
        "negate",
        0.18,
        "[-x for x in a]",
        ("[abs(x) for x in a]",),
        ("negate each", "flip the signs"),
    ),
    (
        "remainder",
        0.25,
        "[x % {k} for x in a]",
        ("[x // {k} for x in a]", "[x % {up} for x in a]"),
        ("reduce each modulo {k}", "take remainders by {k}"),
    ),
    (
        "divide",
        0.50,
        "[x // {k} for x in a]",
        ("[int(x / {k}) for x in a]",),
        ("divide each by {k} rounding down", "floor divide each by {k}"),
    ),
    (
        "cap",
        0.30,
        "[min(x, {k}) for x in a]",
        ("[max(x, {k}) for x in a]", "[min(x, {down}) for x in a]"),
        ("cap each at {k}", "lower larger ones to {k}"),
    ),
    (
        "raise",
        0.30,
        "[max(x, {k}) for x in a]",
        ("[min(x, {k}) for x in a]", "[max(x, {up}) for x in a]"),
        ("raise smaller ones to {k}", "make each at least {k}"),
    ),
)

ORDERS = _kind(
    Kind.ORDER,
    (
        "ascending",
        0.08,
        "sorted(a)",
        ("sorted(a, reverse=True)",),
        ("sort them", "put the smallest first"),
    ),
    (
        "descending",
        0.15,
        "sorted(a, reverse=True)",
        ("sorted(a)",),
        ("sort from high to low", "put the largest first"),
    ),
    (
        "backwards",
        0.18,
        "a[::-1]",
        ("sorted(a, reverse=True)",),
        ("reverse them", "put the last first"),
    ),
    (
        "by_magnitude",
        0.20,
        "sorted(a, key=abs)",
        ("sorted(a)",),
        ("sort by absolute value", "sort by size without sign"),
    ),
    (
        "rotate_left",
        0.36,
        "a[{k}:] + a[:{k}]",
        ("a[-{k}:] + a[:-{k}]", "a[{down}:] + a[:{down}]"),
        ("move the first {k} to the end", "rotate left by {k}"),
    ),
    (
        "rotate_right",
        0.36,
        "a[-{k}:] + a[:-{k}]",
        ("a[{k}:] + a[:{k}]", "a[-{down}:] + a[:-{down}]"),
        ("move the last {k} to the front", "rotate right by {k}"),
    ),
    (
        "by_remainder",
        0.20,
        "sorted(a, key=lambda x: x % {k})",
        ("sorted(a, key=lambda x: x // {k})",),
        ("sort by remainder modulo {k}", "group by remainder modulo {k}"),
    ),
    (
        "evens_first",
        0.25,
        "sorted(a, key=lambda x: x % 2)",
        ("sorted(a, key=lambda x: -(x % 2))",),
        ("put even numbers first", "move odd numbers to the end"),
    ),
    (
        "split_places",
        0.25,
        "a[::2] + a[1::2]",
        ("a[1::2] + a[::2]",),
        ("put every other one first", "deal into two piles and join them"),
    ),
)

FOLDS = _kind(
    Kind.FOLD,
    ("total", 0.08, "sum(a)", ("len(a)",), ("their sum", "the total")),
    ("largest", 0.08, "max(a, default=0)", ("min(a, default=0)",), ("the largest", "the maximum")),
    (
        "last",
        0.15,
        "sum(a[-1:])",
        ("sum(a[:1])",),
        ("the last one", "the final one"),
    ),
    (
        "head_total",
        0.25,
        "sum(a[:{k}])",
        ("sum(a[:{up}])", "sum(a[:{down}])"),
        ("the sum of the first {k}", "the total of the first {k}"),
    ),
    (
        "weighted",
        0.36,
        "sum(i * x for i, x in enumerate(a, 1))",
        ("sum(i * x for i, x in enumerate(a))",),
        ("the sum of each times its place", "the place weighted sum"),
    ),
    (
        "alternating",
        0.20,
        "sum(a[::2]) - sum(a[1::2])",
        ("sum(a[1::2]) - sum(a[::2])",),
        ("the alternating sum", "odd places minus even places"),
    ),
    (
        "rises",
        0.30,
        "sum(x < y for x, y in zip(a, a[1:]))",
        ("sum(x <= y for x, y in zip(a, a[1:]))", "sum(x > y for x, y in zip(a, a[1:]))"),
        ("the number of rises", "how often the next is larger"),
    ),
    (
        "count_above",
        0.36,
        "sum(x > {k} for x in a)",
        ("sum(x >= {k} for x in a)", "sum(x < {k} for x in a)"),
        ("how many are above {k}", "the count of those above {k}"),
    ),
)

OPERATIONS: dict[Kind, tuple[Operation, ...]] = {
    Kind.PICK: PICKS,
    Kind.CHANGE: CHANGES,
    Kind.ORDER: ORDERS,
    Kind.FOLD: FOLDS,
}
