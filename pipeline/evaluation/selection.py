"""Best-of-N selection: which of N sampled programs would a scorer have chosen?

A problem has M candidates in an order by score (rank 1 is best). Of a random subset of N of them
the best-ranked is chosen, and that is rank r with probability

    P(chosen = r) = C(M - r, N - 1) / C(M, N)

because r is in the subset and the other N - 1 come from the M - r ranks below it. So the expected
success for every N is an exact sum over ranks, with no sampling of subsets. Candidates with equal
scores share their credit: by symmetry each of a tie group is as likely to be the chosen one, so the
group counts with its mean success at each rank that it takes up.

The oracle, which finds a passing program wherever the subset has one, is the unbiased pass@N of
Chen et al. 2021 (arXiv 2107.03374, eq. 1): 1 - C(M - c, N) / C(M, N) with c of M passing.
"""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import numpy as np
from jaxtyping import Float64

from pipeline.records import Example

StepScores = Mapping[str, Sequence[float]]
"""Solution id -> one score in [0, 1] per step. A missing or empty entry ranks last."""


class Aggregator(StrEnum):
    """How the scores of a program's steps become one number to rank by.

    In order of preference: where validation cannot tell two apart, the first is taken.
    """

    MEAN = "mean"
    LAST = "last"
    MIN = "min"
    PRODUCT = "product"
    LOG_ODDS = "log_odds"  # sum of log(p / (1 - p)), as in DreamPRM (arXiv 2505.20241)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sampled program whose outcome is known. `step_truth` (one entry per step) says which of its
    prefixes are really right, where that is known."""

    problem_id: str
    solution_id: str
    difficulty: str
    passed: bool
    step_truth: tuple[bool, ...] | None = None

    @classmethod
    def from_example(cls, example: Example) -> Self:
        return cls(
            problem_id=example.problem_id,
            solution_id=example.solution_id,
            difficulty=example.difficulty,
            passed=example.final_label,
            step_truth=example.step_truth,
        )


def aggregate(step_scores: Sequence[float], aggregator: Aggregator) -> float:
    """One number to rank by; -inf where there is no score."""
    if not step_scores:
        return -math.inf
    match aggregator:
        case Aggregator.MEAN:
            # fsum: the order of the steps must not decide a tie.
            return math.fsum(step_scores) / len(step_scores)
        case Aggregator.LAST:
            return step_scores[-1]
        case Aggregator.MIN:
            return min(step_scores)
        case Aggregator.PRODUCT:
            return math.prod(step_scores)
        case Aggregator.LOG_ODDS:
            return math.fsum(_log_odds(score) for score in step_scores)


def _log_odds(score: float) -> float:
    # A float32 sigmoid saturates at exactly 0 and 1; one such step must not outweigh all others.
    clipped = min(max(score, 1e-6), 1 - 1e-6)
    return math.log(clipped / (1 - clipped))


@functools.lru_cache(maxsize=64)
def _chosen_rank(total: int) -> Float64[np.ndarray, "N rank"]:
    """Row N - 1, column r - 1: the probability that the best of N random candidates has rank r."""
    return np.array(
        [
            [math.comb(total - rank, n - 1) / math.comb(total, n) for rank in range(1, total + 1)]
            for n in range(1, total + 1)
        ]
    )


def best_of_n(passed: Sequence[bool], ranking: Sequence[float]) -> Float64[np.ndarray, " N"]:
    """Expected success of choosing the best-ranked of N random candidates, for N = 1..M.

    `ranking` has one number per candidate, higher is better, -inf for candidates without a score.
    Raises ValueError on a NaN, on no candidates, and on lengths that differ.
    """
    if not passed or len(passed) != len(ranking):
        raise ValueError(f"{len(passed)} outcomes and {len(ranking)} scores: need as many, not 0")
    if any(math.isnan(value) for value in ranking):
        raise ValueError("a score is NaN: the model diverged, or its outputs were damaged")
    _, group = np.unique(-np.asarray(ranking, dtype=np.float64), return_inverse=True)
    sizes = np.bincount(group)
    success = np.bincount(group, weights=np.asarray(passed, dtype=np.float64)) / sizes
    return _chosen_rank(len(passed)) @ np.repeat(success, sizes)


def pass_at_n(passed: Sequence[bool]) -> Float64[np.ndarray, " N"]:
    """Unbiased chance that at least one of N random candidates passes, for N = 1..M."""
    total, failing = len(passed), len(passed) - sum(passed)
    return np.array(
        [1 - math.comb(failing, n) / math.comb(total, n) for n in range(1, total + 1)],
        dtype=np.float64,
    )


def by_problem(candidates: Sequence[Candidate]) -> dict[str, tuple[Candidate, ...]]:
    """Candidates grouped by problem, problems and candidates in order of their ids."""
    ordered = sorted(candidates, key=lambda c: (c.problem_id, c.solution_id))
    groups = itertools.groupby(ordered, key=lambda c: c.problem_id)
    return {problem_id: tuple(group) for problem_id, group in groups}


def selection_curve(
    problems: Mapping[str, Sequence[Candidate]], scores: StepScores, aggregator: Aggregator
) -> Float64[np.ndarray, "problem N"]:
    """`best_of_n` of every problem. A problem with fewer candidates than the largest N keeps, from
    there on, the value of all of its own."""
    return stack_curves(
        [
            best_of_n(
                [c.passed for c in group],
                [aggregate(scores.get(c.solution_id, ()), aggregator) for c in group],
            )
            for group in problems.values()
        ]
    )


def stack_curves(
    curves: Sequence[Float64[np.ndarray, " N"]],
) -> Float64[np.ndarray, "problem N"]:
    longest = max(len(curve) for curve in curves)
    return np.stack([np.pad(curve, (0, longest - len(curve)), mode="edge") for curve in curves])


class ChoiceReason(StrEnum):
    """Why an aggregator was taken."""

    VALIDATION = "best on validation"
    OUTCOME_MODEL = "the one step it is trained on"
    NO_VALIDATION = "default: no validation problems"


@dataclass(frozen=True, slots=True)
class AggregatorChoice:
    """The aggregator of one method, with the best-of-N accuracy of each on the `problems`
    validation problems (empty where there were none)."""

    aggregator: Aggregator
    reason: ChoiceReason
    validation_accuracy: Mapping[Aggregator, float]
    problems: int


def choose_aggregator(
    validation: Sequence[Candidate], scores: StepScores, *, outcome_model: bool = False
) -> AggregatorChoice:
    """The aggregator with the best accuracy on validation problems, at the largest N.

    Never call this with test candidates. Equal accuracies go to the earlier member of `Aggregator`.
    """
    problems = by_problem(validation)
    accuracy = {
        aggregator: float(selection_curve(problems, scores, aggregator)[:, -1].mean())
        for aggregator in (Aggregator if problems else ())
    }
    if outcome_model:
        chosen, reason = Aggregator.LAST, ChoiceReason.OUTCOME_MODEL
    elif not problems:
        chosen, reason = Aggregator.MEAN, ChoiceReason.NO_VALIDATION
    else:
        # Rounded, so that the order of summation cannot decide between equals.
        chosen = max(accuracy, key=lambda aggregator: round(accuracy[aggregator], 12))
        reason = ChoiceReason.VALIDATION
    return AggregatorChoice(chosen, reason, accuracy, len(problems))
