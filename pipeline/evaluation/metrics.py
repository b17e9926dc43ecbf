"""Numbers about numbers: bootstrap intervals over problems, AUROC, calibration.

Every interval here is a percentile bootstrap that resamples *problems*, because the programs and
steps of one problem are not independent of each other. It covers the choice of problems, and not
the training seed. Where all problems agree it has no width: that is no proof of certainty.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pipeline.config import EvaluationConfig

Weights = Float64[np.ndarray, "resample problem"]
_RESAMPLES_AT_ONCE = 256  # bounds memory: weights are (resample, problem)


@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value over `problems` problems; no interval where there are fewer than two."""

    value: float
    interval: Interval | None
    problems: int


def bootstrap(
    statistic: Callable[[Weights], np.ndarray], problems: int, config: EvaluationConfig
) -> list[Interval | None]:
    """Intervals of a statistic under resampling of the problems.

    `statistic` takes weights (how often each problem was drawn, one row per resample) and returns
    an array of shape (resample, series); NaN where a resample leaves it undefined. The same seed
    and number of problems give the same resamples, so differences taken inside a statistic are
    paired. None for every series where there are fewer than two problems, or no defined resample.
    """
    rng = np.random.default_rng(config.seed)
    draws = [statistic(_draw(rng, size, problems)) for size in _chunks(config.bootstrap)]
    tail = (1 - config.confidence) / 2
    return [
        _interval(series[~np.isnan(series)], tail) if problems > 1 else None
        for series in np.concatenate(draws).T
    ]


def _draw(rng: np.random.Generator, size: int, problems: int) -> Weights:
    drawn = rng.integers(problems, size=(size, problems))
    cell = drawn + np.arange(size)[:, None] * problems
    counts = np.bincount(cell.ravel(), minlength=size * problems)
    return counts.reshape(size, problems).astype(np.float64)


def _chunks(total: int) -> list[int]:
    full, rest = divmod(total, _RESAMPLES_AT_ONCE)
    return [_RESAMPLES_AT_ONCE] * full + [rest] * bool(rest)


def _interval(series: np.ndarray, tail: float) -> Interval | None:
    if series.size == 0:
        return None
    low, high = np.quantile(series, [tail, 1 - tail])
    return Interval(float(low), float(high))


def means(
    values: Float64[np.ndarray, "problem series"], config: EvaluationConfig
) -> list[Estimate]:
    """The mean of each series over problems. All series see the same resamples."""
    problems = len(values)
    intervals = bootstrap(lambda weights: weights @ values / problems, problems, config)
    return [
        Estimate(float(value), interval, problems)
        for value, interval in zip(values.mean(axis=0), intervals, strict=True)
    ]


def two_level_means(
    values: Float64[np.ndarray, "seed problem series"], config: EvaluationConfig
) -> list[Estimate]:
    """The mean of each series over seeds and problems, with an interval over both: every resample
    draws seeds and, independently, problems. All series see the same resamples. With one seed the
    interval covers the problems alone."""
    seeds, problems, series = values.shape
    rng = np.random.default_rng([config.seed, seeds])

    def statistic(weights: Weights) -> np.ndarray:
        of_seeds = _draw(rng, len(weights), seeds)
        per_problem = (of_seeds @ values.reshape(seeds, -1)).reshape(-1, problems, series)
        return np.einsum("rp,rps->rs", weights, per_problem) / (seeds * problems)

    intervals = bootstrap(statistic, problems, config)
    return [
        Estimate(float(value), interval, problems)
        for value, interval in zip(values.mean(axis=(0, 1)), intervals, strict=True)
    ]


def auroc_wins(
    scores: Float64[np.ndarray, " item"],
    positive: Bool[np.ndarray, " item"],
    problem: Int64[np.ndarray, " item"],
    problems: int,
) -> Float64[np.ndarray, "problem problem"]:
    """Entry p, q: how many (positive of p, negative of q) pairs are in the right order, a tie
    counting half.

    With problems weighted by w, the AUROC is w' wins w / ((w' positives) (w' negatives)): every
    resample of the problems costs the same, however many items there are.
    """
    wins = np.zeros((problems, problems))
    for q in range(problems):
        negatives = np.sort(scores[~positive & (problem == q)])
        below = np.searchsorted(negatives, scores[positive], side="left")
        not_above = np.searchsorted(negatives, scores[positive], side="right")
        wins[:, q] = np.bincount(
            problem[positive], weights=(below + not_above) / 2, minlength=problems
        )
    return wins


def auroc(scores: Sequence[float], positive: Sequence[bool]) -> float | None:
    """Area under the ROC curve: the chance that a random positive scores above a random negative,
    a tie counting half. None where one class is missing."""
    if not any(positive) or all(positive):
        return None
    truth, together = np.asarray(positive, dtype=bool), np.zeros(len(scores), dtype=np.int64)
    wins = auroc_wins(np.asarray(scores, dtype=np.float64), truth, together, problems=1)
    return float(wins[0, 0] / (truth.sum() * (~truth).sum()))


@dataclass(frozen=True, slots=True)
class Bin:
    """Scores in [low, high), the last bin closed; `interval` is of positives / count."""

    low: float
    high: float
    count: int
    positives: int
    mean_score: float | None
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Reliability:
    """Does a score of p come true in a share p of the cases?

    `brier` is mean (score - outcome)^2, `ece` the `calibration_error`.
    """

    count: int
    positives: int
    brier: float
    ece: float
    auroc: float | None
    bins: tuple[Bin, ...]


def calibration_error(
    scores: Float64[np.ndarray, " item"], outcomes: Float64[np.ndarray, " item"], bins: int = 10
) -> float:
    """Expected calibration error (Naeini et al. 2015) of scores in [0, 1]: the sum over bins of
    equal width of count / n times the distance between mean score and share of positives."""
    off = np.bincount(_bin_of(scores, bins), weights=scores - outcomes, minlength=bins)
    return float(np.abs(off).sum() / len(scores))


def _bin_of(scores: Float64[np.ndarray, " item"], bins: int) -> Int64[np.ndarray, " item"]:
    return np.minimum((scores * bins).astype(np.int64), bins - 1)


def reliability(
    scores: Sequence[float],
    positive: Sequence[bool],
    problem: Sequence[int],
    config: EvaluationConfig,
    bins: int = 10,
) -> Reliability:
    """Calibration of scores in [0, 1] in bins of equal width; `problem` is an index from 0 per
    score. Raises ValueError on no scores."""
    if not scores:
        raise ValueError("no scores: calibration needs at least one")
    score = np.asarray(scores, dtype=np.float64)
    outcome = np.asarray(positive, dtype=np.float64)
    bin_of = _bin_of(score, bins)
    counts = np.bincount(bin_of, minlength=bins)
    positives = np.bincount(bin_of, weights=outcome, minlength=bins)
    sums = np.bincount(bin_of, weights=score, minlength=bins)
    intervals = _share_intervals(bin_of, outcome, np.asarray(problem), bins, config)
    return Reliability(
        count=len(scores),
        positives=int(outcome.sum()),
        brier=float(np.mean((score - outcome) ** 2)),
        ece=calibration_error(score, outcome, bins),
        auroc=auroc(scores, positive),
        bins=tuple(
            Bin(
                low=index / bins,
                high=(index + 1) / bins,
                count=int(counts[index]),
                positives=int(positives[index]),
                mean_score=float(sums[index] / counts[index]) if counts[index] else None,
                interval=intervals[index],
            )
            for index in range(bins)
        ),
    )


def _share_intervals(
    bin_of: Int64[np.ndarray, " item"],
    outcome: Float64[np.ndarray, " item"],
    problem: Int64[np.ndarray, " item"],
    bins: int,
    config: EvaluationConfig,
) -> list[Interval | None]:
    problems = int(problem.max()) + 1
    cell = problem * bins + bin_of
    shape, size = (problems, bins), problems * bins
    positives = np.bincount(cell, weights=outcome, minlength=size).reshape(shape)
    counts = np.bincount(cell, minlength=size).astype(np.float64).reshape(shape)

    def shares(weights: Weights) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return (weights @ positives) / (weights @ counts)

    return bootstrap(shares, problems, config)
