"""From scored candidates to a `Selection`: choose aggregators, select best-of-N, compare."""

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from pipeline.config import ArmConfig, EvaluationConfig, Targets
from pipeline.evaluation.calibration import calibration
from pipeline.evaluation.labels import LabelQuality, label_quality
from pipeline.evaluation.methods import ORACLE, PASS_AT_1, ordered, planned_comparisons, titles
from pipeline.evaluation.metrics import Estimate, means
from pipeline.evaluation.results import (
    SCHEMA_VERSION,
    Difference,
    Finding,
    MethodResult,
    Selection,
)
from pipeline.evaluation.selection import (
    Aggregator,
    AggregatorChoice,
    Candidate,
    StepScores,
    by_problem,
    choose_aggregator,
    pass_at_n,
    selection_curve,
    stack_curves,
)
from pipeline.records import Example, LabelEstimate

Curves = Mapping[str, Float64[np.ndarray, "problem N"]]


class EvaluationError(ValueError):
    """The evaluation was given something it cannot answer about; the message says what."""


@dataclass(frozen=True, slots=True)
class ScoredSplit:
    """Candidates of one role, and what each method (by `ArmConfig.name`) thinks of their steps.

    Leave out solutions whose verdict is INFRA: nothing is known of them.
    """

    candidates: Sequence[Candidate]
    scores: Mapping[str, StepScores]


@dataclass(frozen=True, slots=True)
class KnownLabels:
    """Training examples with `step_truth`, and the labels that each method trained on."""

    examples: Sequence[Example]
    estimates: Mapping[str, Sequence[LabelEstimate]]


def evaluate(
    arms: Sequence[ArmConfig],
    test: ScoredSplit,
    validation: ScoredSplit | None = None,
    labels: KnownLabels | None = None,
    config: EvaluationConfig | None = None,
) -> Selection:
    """Best-of-N of every arm on the test problems, next to pass@1 and the oracle.

    Aggregators are chosen on `validation` alone; without it the mean is used, and said. `arms` may
    be empty. Raises EvaluationError on no candidates, repeated or contradictory ones, and scores
    that do not fit them.
    """
    config = config or EvaluationConfig()
    _check(arms, test, "test")
    if not test.candidates:
        raise EvaluationError(
            "no test candidates: no problem has the role 'test', or none of its solutions has a "
            "verdict; check `splits` and `problems`"
        )
    if validation is not None and not validation.candidates:
        validation = None
    if validation is not None:
        _check(arms, validation, "validation")
    problems = by_problem(test.candidates)
    choices = {
        arm.name: choose_aggregator(
            validation.candidates if validation else (),
            validation.scores[arm.name] if validation else {},
            outcome_model=arm.targets is Targets.FINAL,
        )
        for arm in arms
    }
    outcomes = [[candidate.passed for candidate in group] for group in problems.values()]
    oracle = stack_curves([pass_at_n(passed) for passed in outcomes])
    # The first column of pass@N is pass@1: the mean over a problem's candidates.
    curves = {PASS_AT_1: np.repeat(oracle[:, :1], oracle.shape[1], axis=1)}
    for arm in ordered(arms):
        aggregator = choices[arm.name].aggregator
        curves[arm.name] = selection_curve(problems, test.scores[arm.name], aggregator)
    curves[ORACLE] = oracle

    sizes = [len(passed) for passed in outcomes]
    difficulty = [group[0].difficulty for group in problems.values()]
    return Selection(
        schema_version=SCHEMA_VERSION,
        problem_ids=tuple(problems),
        problems=len(problems),
        candidates=sum(sizes),
        passing=sum(map(sum, outcomes)),
        most_candidates=max(sizes),
        problems_with_fewer_candidates=sum(size < max(sizes) for size in sizes),
        problems_none_passed=sum(not any(passed) for passed in outcomes),
        problems_all_passed=sum(all(passed) for passed in outcomes),
        problems_by_difficulty={
            level: difficulty.count(level) for level in sorted(set(difficulty), key=difficulty_key)
        },
        bootstrap=config.bootstrap,
        confidence=config.confidence,
        seed=config.seed,
        methods=_methods(
            arms,
            test,
            curves,
            difficulty,
            choices,
            {
                arm.name: _by_aggregator(arm, problems, test.scores[arm.name], config)
                for arm in arms
            },
            config,
        ),
        differences=_differences(arms, curves, config),
        calibration=tuple(
            row
            for arm in ordered(arms)
            for row in calibration(arm, problems, test.scores[arm.name], config)
        ),
        labels=_label_qualities(arms, labels, config) if labels else (),
    )


def _check(arms: Sequence[ArmConfig], split: ScoredSplit, role: str) -> None:
    names = {arm.name for arm in arms}
    if names != set(split.scores):
        raise EvaluationError(
            f"{role} scores are of methods {sorted(split.scores)}, the arms are {sorted(names)}: "
            "score every arm, and no other"
        )
    repeated = [
        solution_id
        for solution_id, count in Counter(c.solution_id for c in split.candidates).items()
        if count > 1
    ]
    if repeated:
        raise EvaluationError(f"{role} candidate {repeated[0]!r} is there twice")
    for problem_id, group in by_problem(split.candidates).items():
        levels = sorted({candidate.difficulty for candidate in group})
        if len(levels) > 1:
            raise EvaluationError(f"{role} problem {problem_id!r} has difficulties {levels}: one?")
    for name, candidate in itertools.product(sorted(names), split.candidates):
        given = split.scores[name].get(candidate.solution_id, ())
        if not all(0.0 <= score <= 1.0 for score in given):  # NaN fails this too
            raise EvaluationError(
                f"{role} scores of {name!r} for {candidate.solution_id!r} are {tuple(given)}: "
                "each must be a number in [0, 1]"
            )
        truth = candidate.step_truth
        if given and truth is not None and len(given) != len(truth):
            raise EvaluationError(
                f"{role} solution {candidate.solution_id!r} has {len(truth)} steps, "
                f"{name!r} gave {len(given)} scores"
            )


def _methods(
    arms: Sequence[ArmConfig],
    test: ScoredSplit,
    curves: Curves,
    difficulty: Sequence[str],
    choices: Mapping[str, AggregatorChoice],
    by_aggregator: Mapping[str, Mapping[Aggregator, Estimate]],
    config: EvaluationConfig,
) -> tuple[MethodResult, ...]:
    overall = means(np.concatenate(list(curves.values()), axis=1), config)
    longest = len(overall) // len(curves)
    final = np.stack([curve[:, -1] for curve in curves.values()], axis=1)
    level_of = np.array(difficulty)
    levels = {
        level: means(final[level_of == level], config)
        for level in sorted(set(difficulty), key=difficulty_key)
    }
    return tuple(
        MethodResult(
            method=name,
            title=titles(arms)[name],
            choice=choices.get(name),
            overall=overall[(index + 1) * longest - 1],
            by_difficulty={level: estimates[index] for level, estimates in levels.items()},
            curve=tuple(overall[index * longest : (index + 1) * longest]),
            by_aggregator=by_aggregator.get(name, {}),
            solved=tuple(float(value) for value in final[:, index]),
            unscored=sum(
                not test.scores[name].get(candidate.solution_id)
                for candidate in (test.candidates if name in test.scores else ())
            ),
        )
        for index, name in enumerate(curves)
    )


def _by_aggregator(
    arm: ArmConfig,
    problems: Mapping[str, Sequence[Candidate]],
    scores: StepScores,
    config: EvaluationConfig,
) -> dict[Aggregator, Estimate]:
    """Accuracy at the largest N of one method, by every way to read the steps it is trained on."""
    ways = [Aggregator.LAST] if arm.targets is Targets.FINAL else list(Aggregator)
    solved = [selection_curve(problems, scores, way)[:, -1] for way in ways]
    return dict(zip(ways, means(np.stack(solved, axis=1), config), strict=True))


def difficulty_key(level: str) -> tuple[int, list[int | str], str]:
    """Sorts easy, medium, hard in that order, and numbers by value ('2' before '10')."""
    known = ("introductory", "easy", "medium", "interview", "hard", "competition")
    rank = known.index(level.lower()) if level.lower() in known else len(known)
    return rank, [int(digits) for digits in re.findall(r"\d+", level)], level


def _differences(
    arms: Sequence[ArmConfig], curves: Curves, config: EvaluationConfig
) -> tuple[Difference, ...]:
    """Planned pairs first, then the rest of the pairs, each method against those above it."""
    planned = planned_comparisons(arms)
    names = [name for name in curves if name != ORACLE]
    rest = [(method, baseline) for baseline, method in itertools.combinations(names, 2)]
    rest = [pair for pair in rest if pair not in planned and pair[::-1] not in planned]
    pairs = planned + rest
    if not pairs:
        return ()
    paired = np.stack([curves[one][:, -1] - curves[other][:, -1] for one, other in pairs], axis=1)
    return tuple(
        Difference(*pair, estimate, finding(estimate), planned=index < len(planned))
        for index, (pair, estimate) in enumerate(zip(pairs, means(paired, config), strict=True))
    )


def finding(difference: Estimate) -> Finding:
    """What the interval of a paired difference allows one to say."""
    if difference.interval is None:
        return Finding.TOO_FEW
    # Two methods that choose alike may differ by rounding, on every problem and every resample.
    if difference.interval.low < 1e-9 and difference.interval.high > -1e-9:
        return Finding.WITHIN_NOISE
    return Finding.HIGHER if difference.value > 0 else Finding.LOWER


def _label_qualities(
    arms: Sequence[ArmConfig], labels: KnownLabels, config: EvaluationConfig
) -> tuple[LabelQuality, ...]:
    qualities = [
        label_quality(arm.name, labels.estimates.get(arm.name, ()), labels.examples, config)
        for arm in ordered(arms)
        if arm.targets is not Targets.TRUE  # those labels are the truth
    ]
    return tuple(quality for quality in qualities if quality is not None)
