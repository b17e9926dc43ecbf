"""What several seeds say together: the same arms, sampled and trained anew for every seed.

All seeds answer the same test problems, so the figures of a method are a table A[seed, problem].
Its mean is the estimate. Its interval is a percentile bootstrap that draws seeds and problems, each
with replacement and independently, and takes the mean over the drawn rows and columns: Owen, "The
pigeonhole bootstrap", Annals of Applied Statistics 2007, for crossed factors. A paired difference
is the same of A - B: methods share seed, candidates and batches.

With S seeds the spread between seeds is drawn too small by about (S - 1) / S, which is much when
there are two or three; with one seed the interval covers the problems alone.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from pipeline.config import ArmConfig, Correction, EvaluationConfig, Targets
from pipeline.evaluation.evaluate import EvaluationError, finding
from pipeline.evaluation.labels import LabelQuality, LabelSide
from pipeline.evaluation.methods import ORACLE, ordered, titles
from pipeline.evaluation.metrics import Estimate, two_level_means
from pipeline.evaluation.results import Finding, MethodResult
from pipeline.evaluation.selection import Aggregator

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class SeedResult:
    """One seed's methods on the test problems `problem_ids`, and the labels they trained on."""

    seed: int
    problem_ids: tuple[str, ...]
    methods: Mapping[str, MethodResult]
    labels: Mapping[str, LabelQuality]


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure of several seeds; `deviation` is the sample standard deviation between them, None
    for one seed."""

    mean: float
    deviation: float | None
    by_seed: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class StudyMethod:
    """One method over all seeds. `estimate` has the two-level interval; `learning_rate` and the
    `aggregators` (of each seed) were chosen on validation, None and empty for pass@1 and oracle."""

    method: str
    title: str
    estimate: Estimate
    solved: Spread
    learning_rate: float | None
    aggregators: tuple[Aggregator, ...]


@dataclass(frozen=True, slots=True)
class StudyDifference:
    """Accuracy of `method` minus that of `baseline`, paired by seed and problem."""

    method: str
    baseline: str
    difference: Estimate
    by_seed: tuple[float, ...]
    finding: Finding


@dataclass(frozen=True, slots=True)
class LabelSpread:
    """Labels against the known truth; `auroc` is None where a seed has one class only."""

    auroc: Spread | None
    brier: Spread
    ece: Spread


@dataclass(frozen=True, slots=True)
class StudyLabels:
    """The step labels of a method before and after correction."""

    method: str
    before: LabelSpread
    after: LabelSpread


@dataclass(frozen=True, slots=True)
class Study:
    """`seeds` so far, of `planned`; accuracies are those of best-of-`most_candidates`."""

    schema_version: int
    seeds: tuple[int, ...]
    planned: int
    problems: int
    most_candidates: int
    confidence: float
    methods: tuple[StudyMethod, ...]
    differences: tuple[StudyDifference, ...]
    labels: tuple[StudyLabels, ...]

    def method(self, name: str) -> StudyMethod:
        return next(method for method in self.methods if method.method == name)

    def against(self, method: str, baseline: str) -> StudyDifference | None:
        pairs = ((d, (d.method, d.baseline)) for d in self.differences)
        return next((d for d, pair in pairs if pair == (method, baseline)), None)


def summarise(
    arms: Sequence[ArmConfig],
    learning_rates: Mapping[str, float],
    results: Sequence[SeedResult],
    planned: int,
    config: EvaluationConfig,
) -> Study:
    """Everything that the seeds so far say together. Raises EvaluationError where there is none, or
    where they did not answer the same problems."""
    if not results:
        raise EvaluationError("a study needs at least one seed")
    if len({result.problem_ids for result in results}) > 1:
        raise EvaluationError(
            "the seeds have different test problems, or lost some to quarantine: a study pairs "
            "them problem by problem (`jobs.status` names what was given up)"
        )
    solved = {name: _table(results, name) for name in titles(arms)}
    pairs = [
        (arm.name, baseline.name)
        for baseline in baselines(arms)
        for arm in ordered(arms)
        if arm is not baseline
    ]
    differences = [solved[method] - solved[baseline] for method, baseline in pairs]
    estimates = two_level_means(np.stack([*solved.values(), *differences], axis=2), config)
    return Study(
        schema_version=SCHEMA_VERSION,
        seeds=tuple(result.seed for result in results),
        planned=planned,
        problems=len(results[0].problem_ids),
        most_candidates=len(results[0].methods[ORACLE].curve),
        confidence=config.confidence,
        methods=tuple(
            StudyMethod(
                method=name,
                title=titles(arms)[name],
                estimate=estimate,
                solved=spread(solved[name].mean(axis=1)),
                learning_rate=learning_rates.get(name),
                aggregators=tuple(
                    choice.aggregator
                    for result in results
                    if (choice := result.methods[name].choice) is not None
                ),
            )
            for name, estimate in zip(solved, estimates, strict=False)
        ),
        differences=tuple(
            StudyDifference(
                *pair,
                difference=estimate,
                by_seed=tuple(float(value) for value in table.mean(axis=1)),
                finding=finding(estimate),
            )
            for pair, table, estimate in zip(
                pairs, differences, estimates[len(solved) :], strict=True
            )
        ),
        labels=tuple(
            _labels(arm.name, [result.labels[arm.name] for result in results])
            for arm in ordered(arms)
            if all(arm.name in result.labels for result in results)
        ),
    )


def baselines(arms: Sequence[ArmConfig]) -> list[ArmConfig]:
    """What every other arm is held against: raw soft labels, and labels corrected against a
    shuffled meta set, which must not help."""
    kinds = [(Targets.SOFT, Correction.NONE), (Targets.SOFT, Correction.SHUFFLED)]
    by_kind = {(arm.targets, arm.correction): arm for arm in arms}
    return [by_kind[kind] for kind in kinds if kind in by_kind]


def _table(results: Sequence[SeedResult], method: str) -> Float64[np.ndarray, "seed problem"]:
    return np.array([result.methods[method].solved for result in results], dtype=np.float64)


def spread(values: Sequence[float] | Float64[np.ndarray, " seed"]) -> Spread:
    """Raises ValueError (statistics') for no value."""
    by_seed = tuple(float(value) for value in values)
    deviation = statistics.stdev(by_seed) if len(by_seed) > 1 else None
    return Spread(statistics.fmean(by_seed), deviation, by_seed)


def _labels(method: str, qualities: Sequence[LabelQuality]) -> StudyLabels:
    return StudyLabels(
        method,
        _side([quality.before for quality in qualities]),
        _side([quality.after for quality in qualities]),
    )


def _side(sides: Sequence[LabelSide]) -> LabelSpread:
    aurocs = [side.auroc.value for side in sides if side.auroc is not None]
    return LabelSpread(
        auroc=spread(aurocs) if len(aurocs) == len(sides) else None,
        brier=spread([side.brier.value for side in sides]),
        ece=spread([side.ece for side in sides]),
    )
