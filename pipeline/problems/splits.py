"""The role of every problem: by release date, and no two roles share a statement.

Similarity of two statements is the Jaccard index of their 5-word shingles, case, punctuation and
white space left out (Broder 1997, "On the resemblance and containment of documents").
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
class Dropped:
    """A problem without a role, and why."""

    problem_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """`roles` by problem id; every other problem is in `dropped`."""

    roles: Mapping[str, Role]
    dropped: tuple[Dropped, ...]


def assign_roles(
    problems: Sequence[Problem],
    splits: SplitsConfig,
    *,
    near_duplicate: float | None = NEAR_DUPLICATE,
) -> Assignment:
    """Roles by release date. Dropped are problems outside every window, and of two statements in
    different roles that are at least `near_duplicate` similar the one in the less held-out role.

    `near_duplicate` None keeps all: for problems whose statements are made from templates.
    """
    roles: dict[str, Role] = {}
    dropped: list[Dropped] = []
    for problem in problems:
        role = splits.role_of(problem.released_on)
        if role is None:
            dropped.append(Dropped(problem.problem_id, f"{problem.released_on} is in no window"))
        else:
            roles[problem.problem_id] = role
    if near_duplicate is None:
        return Assignment(roles, tuple(dropped))
    dated = [problem for problem in problems if problem.problem_id in roles]
    for one, other, similarity in similar_statements(dated, near_duplicate):
        if one in roles and other in roles and roles[one] is not roles[other]:
            kept, leaves = sorted((one, other), key=lambda each: _HELD_OUT.index(roles[each]))
            reason = f"{roles.pop(leaves)} problem, {similarity:.0%} like {kept} in {roles[kept]}"
            dropped.append(Dropped(leaves, reason))
    return Assignment(roles, tuple(dropped))


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
