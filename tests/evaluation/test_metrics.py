import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import EvaluationConfig
from pipeline.evaluation.labels import label_quality
from pipeline.evaluation.metrics import auroc, auroc_wins, bootstrap, means, reliability
from pipeline.records import Example, LabelEstimate, Role

CONFIG = EvaluationConfig(bootstrap=1000, seed=3)


def pairwise_auroc(scores, positive):
    pairs = [
        (1.0 if p > n else 0.5 if p == n else 0.0)
        for p, n in itertools.product(
            [s for s, y in zip(scores, positive, strict=True) if y],
            [s for s, y in zip(scores, positive, strict=True) if not y],
        )
    ]
    return sum(pairs) / len(pairs) if pairs else None


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()), min_size=1))
def test_auroc_counts_pairs_with_ties_as_half(rows):
    scores, positive = zip(*rows, strict=True)
    assert auroc(scores, positive) == pytest.approx(pairwise_auroc(scores, positive))


def test_a_problem_drawn_twice_counts_its_items_twice_in_the_auroc():
    scores = np.array([0.1, 0.4, 0.4, 0.8, 0.3])
    positive = np.array([False, True, False, True, True])
    problem = np.array([0, 0, 1, 1, 1])
    weights = np.array([2, 1])
    wins = auroc_wins(scores, positive, problem, problems=2)
    often = np.repeat(np.arange(5), weights[problem])
    pairs = (1 * 2 + 2 * 1) * (1 * 2 + 1 * 1)
    assert weights @ wins @ weights / pairs == pytest.approx(
        pairwise_auroc(scores[often], positive[often])
    )


def test_the_bootstrap_interval_of_a_mean_agrees_with_the_normal_one():
    values = np.random.default_rng(0).normal(0.4, 1.0, size=(400, 1))
    (estimate,) = means(values, EvaluationConfig(bootstrap=4000))
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.interval is not None
    assert estimate.interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert estimate.interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = np.random.default_rng(0).random((50, 1))
    again = EvaluationConfig(bootstrap=1000, seed=3)
    other = EvaluationConfig(bootstrap=1000, seed=4)
    assert means(values, CONFIG) == means(values, again)
    assert means(values, CONFIG) != means(values, other)


def test_series_are_resampled_together_so_that_their_difference_is_paired():
    noise = np.random.default_rng(0).random(100)
    values = np.stack([noise, noise + 0.01, np.full(100, 0.01)], axis=1)
    first, second, constant = bootstrap(
        lambda weights: np.stack(
            [
                weights @ values[:, 0] / 100,
                weights @ values[:, 1] / 100,
                weights @ (values[:, 1] - values[:, 0]) / 100,
            ],
            axis=1,
        ),
        100,
        CONFIG,
    )
    assert first is not None
    assert second is not None
    assert constant is not None
    assert second.low - first.low == pytest.approx(0.01)
    assert constant.low == pytest.approx(0.01)
    assert constant.high == pytest.approx(0.01)


def test_one_problem_has_no_interval():
    (estimate,) = means(np.array([[0.25]]), CONFIG)
    assert (estimate.value, estimate.interval, estimate.problems) == (0.25, None, 1)


def test_calibration_of_a_hand_made_table():
    # Bin [0.2, 0.3) holds 0.2 and 0.2 (one right), the last bin 1.0 and 0.9 (both right).
    report = reliability([0.2, 0.2, 0.9, 1.0], [True, False, True, True], [0, 0, 1, 1], CONFIG)
    assert report.brier == pytest.approx((0.64 + 0.04 + 0.01 + 0.0) / 4)
    assert report.ece == pytest.approx((2 * abs(0.2 - 0.5) + 2 * abs(0.95 - 1.0)) / 4)
    assert report.auroc == pytest.approx((0.5 + 1 + 1) / 3)
    filled = {round(b.low, 1): (b.count, b.positives) for b in report.bins if b.count}
    assert filled == {0.2: (2, 1), 0.9: (2, 2)}
    assert sum(b.count for b in report.bins) == report.count == 4


def test_calibration_without_scores_is_refused():
    with pytest.raises(ValueError, match="no scores"):
        reliability([], [], [], CONFIG)


def example(number, truth):
    steps = tuple(f"{number}-{index}" for index in range(len(truth)))
    return Example(
        solution_id=f"s{number}",
        problem_id=f"p{number}",
        role=Role.TRAIN,
        difficulty="2",
        problem="",
        code="",
        step_ends=tuple(range(len(truth))),
        step_ids=steps,
        passed=(0,) * len(truth),
        trials=(4,) * len(truth),
        step_truth=truth,
        final_label=truth[-1],
    )


EXAMPLES = [example(0, (True, True, False)), example(1, (True, False, False))]


def test_label_quality_is_measured_on_intermediate_steps_before_and_after():
    estimates = [
        LabelEstimate("0-0", initial=0.2, corrected=0.9, updates=3),
        LabelEstimate("0-1", initial=0.6, corrected=0.6, updates=3),
        LabelEstimate("1-0", initial=0.6, corrected=0.8, updates=3),
        LabelEstimate("1-1", initial=0.6, corrected=0.1, updates=3),
        LabelEstimate("1-2", initial=1.0, corrected=1.0, updates=0),  # the last step: left out
    ]
    quality = label_quality("prm", estimates, EXAMPLES, CONFIG)
    assert quality is not None
    assert (quality.steps, quality.right) == (4, 3)
    assert quality.before.auroc is not None
    assert quality.after.auroc is not None
    assert quality.before.auroc.value == pytest.approx((0 + 0.5 + 0.5) / 3)
    assert quality.after.auroc.value == 1.0
    assert quality.auroc_change is not None
    assert quality.auroc_change.value == pytest.approx(1 - 1 / 3)
    assert quality.before.brier.value == pytest.approx((0.64 + 0.16 + 0.16 + 0.36) / 4)
    assert (quality.before.missed, quality.before.trusted) == (1, 1)
    assert (quality.after.missed, quality.after.trusted) == (0, 0)


def test_label_quality_without_known_truth_is_none():
    unknown = [
        Example(**{f: getattr(e, f) for f in Example.__slots__} | {"step_truth": None})
        for e in EXAMPLES
    ]
    estimates = [LabelEstimate("0-0", 0.5, 0.5, 0)]
    assert label_quality("prm", estimates, unknown, CONFIG) is None
    assert label_quality("prm", [], EXAMPLES, CONFIG) is None


def test_labels_that_are_all_right_have_a_brier_score_and_no_auroc():
    quality = label_quality("prm", [LabelEstimate("0-0", 0.5, 0.75, 1)], EXAMPLES, CONFIG)
    assert quality is not None
    assert quality.before.auroc is None
    assert quality.auroc_change is None
    assert quality.after.brier.value == pytest.approx(0.0625)
