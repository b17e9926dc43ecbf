"""How good are the step labels, before and after correction, where the truth is known?

Only intermediate steps count: the last step's label is the unit-test outcome, which is clean.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pipeline.config import EvaluationConfig
from pipeline.evaluation.metrics import (
    Estimate,
    Weights,
    auroc_wins,
    bootstrap,
    calibration_error,
)
from pipeline.records import Example, LabelEstimate


@dataclass(frozen=True, slots=True)
class LabelSide:
    """Labels at one point in time, against the truth.

    `ece` is the `calibration_error`. `missed` counts right prefixes labelled below 1/2, `trusted`
    wrong prefixes labelled at or above it. `auroc` is None where all prefixes are right, or all
    wrong.
    """

    auroc: Estimate | None
    brier: Estimate
    ece: float
    missed: int
    trusted: int


@dataclass(frozen=True, slots=True)
class LabelQuality:
    """The labels of one method: `steps` intermediate steps, of which `right` are really right.
    The changes are after - before, on the same resamples of the problems."""

    method: str
    steps: int
    right: int
    before: LabelSide
    after: LabelSide
    auroc_change: Estimate | None
    brier_change: Estimate


def label_quality(
    method: str,
    estimates: Sequence[LabelEstimate],
    examples: Sequence[Example],
    config: EvaluationConfig,
) -> LabelQuality | None:
    """Compare the estimates with `Example.step_truth`; None where no step has both."""
    truth_of = {
        step_id: (example.problem_id, right)
        for example in examples
        for step_id, right in list(
            zip(example.step_ids, example.step_truth or (), strict=example.step_truth is not None)
        )[:-1]
    }
    known = [estimate for estimate in estimates if estimate.step_id in truth_of]
    if not known:
        return None
    problem_ids, truth = zip(*(truth_of[estimate.step_id] for estimate in known), strict=True)
    right = np.array(truth, dtype=bool)
    labels = np.array([[e.initial for e in known], [e.corrected for e in known]])
    names, problem = np.unique(problem_ids, return_inverse=True)
    statistic = _auroc_and_brier(labels, right, problem, len(names))
    values = statistic(np.ones((1, len(names))))[0]
    intervals = bootstrap(statistic, len(names), config)
    estimates_of = [
        None if np.isnan(value) else Estimate(float(value), interval, len(names))
        for value, interval in zip(values, intervals, strict=True)
    ]
    aurocs, briers = estimates_of[:3], [e for e in estimates_of[3:] if e is not None]

    def side(index: int) -> LabelSide:
        high = labels[index] >= 0.5
        missed, trusted = int((right & ~high).sum()), int((~right & high).sum())
        ece = calibration_error(labels[index], right.astype(np.float64))
        return LabelSide(aurocs[index], briers[index], ece, missed, trusted)

    return LabelQuality(
        method, len(known), int(right.sum()), side(0), side(1), aurocs[2], briers[2]
    )


def _auroc_and_brier(
    labels: Float64[np.ndarray, "2 step"],
    right: Bool[np.ndarray, " step"],
    problem: Int64[np.ndarray, " step"],
    problems: int,
) -> Callable[[Weights], Float64[np.ndarray, "resample 6"]]:
    """Before, after and change of the AUROC, then of the Brier score, as a statistic of weights."""
    steps = np.bincount(problem, minlength=problems)
    rights = np.bincount(problem[right], minlength=problems)
    wins = [auroc_wins(side, right, problem, problems) for side in labels]
    errors = [
        np.bincount(problem, weights=(side - right) ** 2, minlength=problems) for side in labels
    ]

    def statistic(weights: Weights) -> np.ndarray:
        pairs = (weights @ rights) * (weights @ (steps - rights))
        with np.errstate(invalid="ignore"):  # one class only: undefined, NaN
            auroc = [((weights @ side) * weights).sum(axis=1) / pairs for side in wins]
        brier = [weights @ side / (weights @ steps) for side in errors]
        rows = [*auroc, auroc[1] - auroc[0], *brier, brier[1] - brier[0]]
        return np.stack(rows, axis=1)

    return statistic
