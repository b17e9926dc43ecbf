import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from pipeline.config import ArmConfig, Correction, EvaluationConfig, Targets
from pipeline.evaluation.evaluate import EvaluationError, KnownLabels, ScoredSplit, evaluate
from pipeline.evaluation.metrics import means, two_level_means
from pipeline.evaluation.results import Finding, to_json
from pipeline.evaluation.selection import Candidate
from pipeline.evaluation.study import SeedResult, baselines, summarise
from pipeline.evaluation.study_plot import study_plot
from pipeline.evaluation.study_table import study_tables
from pipeline.records import Example, LabelEstimate, Role

CONFIG = EvaluationConfig(bootstrap=2000)
ORM = ArmConfig(name="orm", targets=Targets.FINAL)
SOFT = ArmConfig(name="prm_soft")
CORRECTED = ArmConfig(name="prm_corrected", correction=Correction.LABELS)
SHUFFLED = ArmConfig(name="prm_shuffled", correction=Correction.SHUFFLED)
ARMS = [ORM, SOFT, CORRECTED, SHUFFLED]
RATES = {arm.name: 0.001 for arm in ARMS}


# --- intervals over seeds and problems ------------------------------------------------------------


def interval_of(values):
    (estimate,) = two_level_means(np.asarray(values, dtype=float)[:, :, None], CONFIG)
    assert estimate.interval is not None
    return estimate.value, estimate.interval.low, estimate.interval.high


def test_seeds_that_differ_alike_on_every_problem_give_an_interval_from_seed_to_seed():
    # Two seeds are drawn from {0.2, 0.6}: both the first with probability 1/4, both the second 1/4.
    value, low, high = interval_of([[0.2] * 50, [0.6] * 50])
    assert (value, low, high) == pytest.approx((0.4, 0.2, 0.6))


def test_seeds_that_agree_leave_the_interval_of_the_problems():
    solved = np.random.default_rng(0).random(200)
    (alone,) = means(solved[:, None], CONFIG)
    assert alone.interval is not None
    expected = (alone.value, alone.interval.low, alone.interval.high)
    assert interval_of([solved] * 3) == pytest.approx(expected, abs=0.006)
    assert interval_of([solved]) == pytest.approx(expected, abs=0.006)


def test_the_interval_has_the_variance_of_both_levels():
    # A[s, p] = a_s + b_p: the variance of the mean is var(a)/S + var(b)/P.
    rng = np.random.default_rng(1)
    seeds, problems = rng.normal(0, 0.03, size=12), rng.normal(0.5, 0.5, size=300)
    _, low, high = interval_of(seeds[:, None] + problems[None, :])
    half = 1.96 * np.sqrt(seeds.var() / 12 + problems.var() / 300)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


# --- what seeds say together ----------------------------------------------------------------------


def seed_result(seed, solves):
    """Two candidates on each of four problems, one right. A method in `solves` finds it on so many
    of the problems, and chooses the wrong one on the rest."""
    candidates = [
        Candidate(f"p{problem}", f"p{problem}-{right}", "easy", right)
        for problem in range(4)
        for right in (True, False)
    ]
    scores = {
        name: {
            c.solution_id: ((0.9,) if c.passed == (int(c.problem_id[1]) < wins) else (0.1,))
            for c in candidates
        }
        for name, wins in solves.items()
    }
    arms = [arm for arm in ARMS if arm.name in solves]
    selection = evaluate(arms, ScoredSplit(candidates, scores), None, known_labels(seed), CONFIG)
    return SeedResult(
        seed,
        selection.problem_ids,
        {row.method: row for row in selection.methods},
        {quality.method: quality for quality in selection.labels},
    )


def known_labels(seed):
    """One right and one wrong prefix, labelled 0.4 and 0.2; correction by seed 0 moves them to 1
    and 0, by seed 1 to 0 and 1."""
    examples = [
        Example("t", "q", Role.TRAIN, "easy", "", "", (1, 2), ("right", "last"), (1, 1), (4, 4),
                (True, True), True),
        Example("u", "r", Role.TRAIN, "easy", "", "", (1, 2), ("wrong", "end"), (1, 1), (4, 4),
                (False, False), False),
    ]  # fmt: skip
    raw = [LabelEstimate("right", 0.4, 0.4, 0), LabelEstimate("wrong", 0.2, 0.2, 0)]
    moved = [
        LabelEstimate("right", 0.4, float(seed == 0), 9),
        LabelEstimate("wrong", 0.2, float(seed == 1), 9),
    ]
    return KnownLabels(examples, {"prm_soft": raw, "prm_corrected": moved})


RESULTS = [
    seed_result(0, {"orm": 1, "prm_soft": 2, "prm_corrected": 4, "prm_shuffled": 2}),
    seed_result(1, {"orm": 0, "prm_soft": 1, "prm_corrected": 3, "prm_shuffled": 2}),
]


@pytest.fixture(scope="module")
def study():
    return summarise(ARMS, RATES, RESULTS, 5, CONFIG)


def test_a_hand_computed_table_of_two_seeds(study):
    solved = {row.method: row.solved.by_seed for row in study.methods}
    assert solved == {
        "pass_at_1": (0.5, 0.5),
        "orm": (0.25, 0.0),
        "prm_soft": (0.5, 0.25),
        "prm_corrected": (1.0, 0.75),
        "prm_shuffled": (0.5, 0.5),
        "oracle": (1.0, 1.0),
    }
    corrected = study.method("prm_corrected")
    assert corrected.estimate.value == corrected.solved.mean == pytest.approx(0.875)
    assert corrected.solved.deviation == pytest.approx(0.25 / np.sqrt(2))


def test_every_arm_is_paired_with_raw_soft_labels_and_with_the_shuffled_control(study):
    assert [arm.name for arm in baselines(ARMS)] == ["prm_soft", "prm_shuffled"]
    difference = study.against("prm_corrected", "prm_soft")
    assert difference.by_seed == (0.5, 0.5)
    assert difference.difference.value == pytest.approx(0.5)
    # Problems 2 and 3 differ in the first seed, 1 and 2 in the second, the others in neither.
    assert (difference.difference.interval.low, difference.difference.interval.high) == (0.0, 1.0)
    assert difference.finding is Finding.WITHIN_NOISE
    assert study.against("prm_soft", "prm_soft") is None


def test_label_quality_is_the_mean_of_the_seeds_before_and_after(study):
    labels = {row.method: row for row in study.labels}
    assert set(labels) == {"prm_soft", "prm_corrected"}
    raw, moved = labels["prm_soft"], labels["prm_corrected"]
    assert raw.before == raw.after == moved.before
    assert raw.before.brier.mean == pytest.approx((0.36 + 0.04) / 2)
    assert raw.before.ece.mean == pytest.approx((0.6 + 0.2) / 2)
    assert moved.after.auroc.by_seed == (1.0, 0.0)
    assert moved.after.ece.by_seed == (0.0, 1.0)


def test_one_seed_has_no_spread_and_says_how_many_are_to_come():
    study = summarise(ARMS, RATES, RESULTS[:1], 5, CONFIG)
    assert study.method("orm").solved.deviation is None
    assert (study.seeds, study.planned) == ((0,), 5)


def test_the_tables_fit_80_columns_and_name_every_method(study):
    console = Console(width=80, file=io.StringIO(), record=True)
    for table in study_tables(study):
        console.print(table)
    text = console.export_text()
    assert "…" not in text
    assert "2 of 5 seeds" in text
    for row in study.methods:
        assert row.title in text
    assert "0.500 → 0.500" not in text
    assert "1.000 → 0.500" in text  # AUROC of the corrected labels


def test_a_study_is_json_and_one_picture(study):
    stored = json.loads(to_json(study))
    assert [row["method"] for row in stored["methods"]][:2] == ["pass_at_1", "orm"]
    assert stored["differences"][0]["by_seed"]
    picture = io.BytesIO()
    study_plot(study).savefig(picture)
    assert picture.getvalue().startswith(b"\x89PNG")


def test_seeds_on_other_problems_are_refused():
    other = dataclasses.replace(RESULTS[1], problem_ids=("p0", "p1", "p2", "p9"))
    with pytest.raises(EvaluationError, match="different test problems"):
        summarise(ARMS, RATES, [RESULTS[0], other], 2, CONFIG)
    with pytest.raises(EvaluationError, match="at least one seed"):
        summarise(ARMS, RATES, [], 2, CONFIG)
