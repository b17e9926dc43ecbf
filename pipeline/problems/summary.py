"""What is in a set of problems, counted."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.config import SplitsConfig
from pipeline.problems.splits import NearDuplicate, assign_roles, drop_near_duplicates
from pipeline.records import Problem, Role
from sandbox.protocol import TestCase


@dataclass(frozen=True, slots=True)
class Spread:
    """Of one number per problem."""

    least: int
    median: float
    most: int
    total: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of problems; `by_month` of release is in order of time, the others of size.

    A problem counts under every kind of test that it has ("none" without any). `by_role` and
    `near_duplicates` are of a split by dates.
    """

    problems: int
    by_platform: Mapping[str, int]
    by_difficulty: Mapping[str, int]
    by_month: Mapping[str, int]
    by_kind_of_test: Mapping[str, int]
    tests: Spread
    public_tests: int
    statement_characters: Spread
    by_role: Mapping[str, int]
    near_duplicates: tuple[NearDuplicate, ...]


def kind_of(test: TestCase) -> str:
    """`stdin`, `call` or, for the weaker kind whose judge is in the program's process, `script`."""
    if test.stdin is not None:
        return "stdin"
    return "script" if test.script is not None else "call"


def summarise(problems: Sequence[Problem], splits: SplitsConfig) -> Summary:
    """Raises ValueError on no problems."""
    if not problems:
        raise ValueError("no problems to summarise")
    months = Counter(f"{problem.released_on:%Y-%m}" for problem in problems)
    kinds = Counter(
        kind for p in problems for kind in ({kind_of(test) for test in p.tests} or {"none"})
    )
    roles, dropped = drop_near_duplicates(problems, assign_roles(problems, splits))
    return Summary(
        problems=len(problems),
        by_platform=_by_size(problem.platform for problem in problems),
        by_difficulty=_by_size(problem.difficulty for problem in problems),
        by_month=dict(sorted(months.items())),
        by_kind_of_test=dict(kinds.most_common()),
        tests=_spread([len(problem.tests) for problem in problems]),
        public_tests=sum(test.public for problem in problems for test in problem.tests),
        statement_characters=_spread([len(problem.statement) for problem in problems]),
        by_role={
            **{role.value: sum(of is role for of in roles.values()) for role in Role},
            "no role": len(problems) - len(roles) - len(dropped),
        },
        near_duplicates=tuple(dropped),
    )


def _by_size(words: Iterable[str]) -> dict[str, int]:
    counts = Counter(words)
    return {word: counts[word] for word in sorted(counts, key=lambda word: (-counts[word], word))}


def _spread(numbers: Sequence[int]) -> Spread:
    return Spread(min(numbers), statistics.median(numbers), max(numbers), sum(numbers))
