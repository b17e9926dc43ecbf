"""The role of every problem: by release date, and no two roles share a statement.

Similarity of two statements is the Jaccard index of their 5-word shingles, case, punctuation and
white space left out (Broder 1997, "On the resemblance and containment of documents").
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.config import SplitsConfig
from pipeline.records import Problem, Role

NEAR_DUPLICATE = 0.5
"""Statements at least this similar are one problem. Of 880 LiveCodeBench and 228 LeetCodeDataset
statements, the problems that are in both have 0.57 to 1.0; all other pairs from 0.5 on are versions
(I and II, easy and hard) of one problem."""

_SHINGLE_WORDS = 5
_COMMON = 20  # a shingle in more statements than this is a platform's phrase and proposes no pair
_WORD = re.compile(r"\w+")

# Of two near-duplicates the one whose role comes later is dropped: held-out problems are scarce.
_HELD_OUT = (Role.TEST, Role.VALIDATION, Role.META, Role.TRAIN)


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """A problem that lost its role, because `kept`, in a more held-out role, is so like it."""

    problem_id: str
    role: Role
    kept: str
    kept_role: Role
    similarity: float

    def __str__(self) -> str:
        return (
            f"{self.role} problem {self.problem_id} dropped: its statement is "
            f"{self.similarity:.0%} that of {self.kept_role} problem {self.kept}"
        )


def assign_roles(problems: Iterable[Problem], splits: SplitsConfig) -> dict[str, Role]:
    """The role of every problem by its release date; those outside every window are left out."""
    roles = {problem.problem_id: splits.role_of(problem.released_on) for problem in problems}
    return {problem_id: role for problem_id, role in roles.items() if role is not None}


def drop_near_duplicates(
    problems: Sequence[Problem],
    roles: Mapping[str, Role],
    at_least: float = NEAR_DUPLICATE,
) -> tuple[dict[str, Role], list[NearDuplicate]]:
    """`roles` without the less held-out one of any two statements in different roles that are
    `at_least` so similar, and what was dropped.

    Not for problems whose statements are made from templates: those are all alike.
    """

    def rank(problem_id: str) -> int:
        return _HELD_OUT.index(roles[problem_id])

    with_role = [problem for problem in problems if problem.problem_id in roles]
    pairs: list[NearDuplicate] = []
    for one, other, similarity in similar_statements(with_role, at_least):
        first, second = sorted((one, other), key=rank)
        pairs.append(NearDuplicate(second, roles[second], first, roles[first], similarity))
    kept = dict(roles)
    dropped: list[NearDuplicate] = []
    # The most held-out first, so that a problem that goes itself takes no other with it.
    for pair in sorted(pairs, key=lambda pair: rank(pair.kept)):
        if pair.role is not pair.kept_role and {pair.kept, pair.problem_id} <= kept.keys():
            del kept[pair.problem_id]
            dropped.append(pair)
    return kept, dropped


def similar_statements(
    problems: Sequence[Problem], at_least: float
) -> Iterator[tuple[str, str, float]]:
    """Pairs of problem ids with the similarity of their statements, in the order of `problems`.

    Only pairs that share a shingle which at most 20 statements have are compared.
    """
    shingles = [_shingles(problem.statement) for problem in problems]
    holders: defaultdict[str, list[int]] = defaultdict(list)
    for index, found in enumerate(shingles):
        for shingle in found:
            holders[shingle].append(index)
    candidates: set[tuple[int, int]] = set()
    for indices in holders.values():
        if len(indices) <= _COMMON:
            candidates.update(itertools.combinations(indices, 2))
    for first, second in sorted(candidates):
        one, other = shingles[first], shingles[second]
        similarity = len(one & other) / len(one | other)
        if similarity >= at_least:
            yield problems[first].problem_id, problems[second].problem_id, similarity


def _shingles(statement: str) -> set[str]:
    words = _WORD.findall(statement.lower())
    last = max(1, len(words) - _SHINGLE_WORDS + 1)
    return {" ".join(words[start : start + _SHINGLE_WORDS]) for start in range(last)}
