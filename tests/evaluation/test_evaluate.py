import json

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.config import ArmConfig, Correction, EvaluationConfig, Targets
from pipeline.evaluation.evaluate import EvaluationError, ScoredSplit, difficulty_key, evaluate
from pipeline.evaluation.methods import planned_comparisons, titles
from pipeline.evaluation.results import CalibrationTarget, Finding, to_json
from pipeline.evaluation.selection import Aggregator, Candidate, ChoiceReason

CONFIG = EvaluationConfig(bootstrap=500)
ORM = ArmConfig(name="orm", targets=Targets.FINAL)
SOFT = ArmConfig(name="prm_soft", targets=Targets.SOFT)
HARD = ArmConfig(name="prm_hard", targets=Targets.HARD)
CORRECTED = ArmConfig(name="prm_corrected", correction=Correction.LABELS)
SHUFFLED = ArmConfig(name="prm_shuffled", correction=Correction.SHUFFLED)
TRUE = ArmConfig(name="prm_true", targets=Targets.TRUE)


def world(problems=30, candidates=4, difficulty=lambda index: f"{2 + index % 2} functions", seed=0):
    """Candidates whose first step is right in half of the cases, and which pass if it is."""
    rng = np.random.default_rng(seed)
    rows = []
    for problem in range(problems):
        for sample in range(candidates):
            right = bool(rng.random() < 0.5)
            rows.append(
                Candidate(
                    f"p{problem:03}", f"s{problem:03}-{sample}", difficulty(problem), right,
                    step_truth=(right, right),
                )
            )  # fmt: skip
    return rows


def knows(candidates):
    return {c.solution_id: (0.9, 0.8) if c.passed else (0.2, 0.1) for c in candidates}


def guesses(candidates, seed=1):
    rng = np.random.default_rng(seed)
    return {c.solution_id: tuple(rng.random(2)) for c in candidates}


def test_a_scorer_that_knows_the_truth_equals_the_oracle_and_one_that_guesses_pass_at_1():
    test = world(problems=200)
    result = evaluate(
        [ORM, SOFT],
        ScoredSplit(test, {"orm": guesses(test), "prm_soft": knows(test)}),
        config=CONFIG,
    )
    values = {row.method: row.overall.value for row in result.methods}
    assert values["prm_soft"] == pytest.approx(values["oracle"])
    assert values["orm"] == pytest.approx(values["pass_at_1"], abs=0.08)
    assert [row.method for row in result.methods] == ["pass_at_1", "orm", "prm_soft", "oracle"]
    (planned,) = [d for d in result.differences if d.planned]
    assert (planned.method, planned.baseline, planned.finding) == (
        "prm_soft", "orm", Finding.HIGHER,
    )  # fmt: skip
    noise = next(d for d in result.differences if (d.method, d.baseline) == ("orm", "pass_at_1"))
    assert noise.finding is Finding.WITHIN_NOISE


def test_at_n_1_every_method_is_pass_at_1_because_there_is_no_choice():
    test = world()
    result = evaluate(
        [ORM, SOFT], ScoredSplit(test, {"orm": guesses(test), "prm_soft": knows(test)}),
        config=CONFIG,
    )  # fmt: skip
    assert {round(row.curve[0].value, 12) for row in result.methods} == {
        round(sum(c.passed for c in test) / len(test), 12)
    }
    assert all(len(row.curve) == result.most_candidates == 4 for row in result.methods)
    assert all(row.curve[-1] == row.overall for row in result.methods)


def test_the_accuracy_overall_is_the_mean_of_the_difficulties_weighted_by_their_problems():
    test = world(problems=31)
    result = evaluate([SOFT], ScoredSplit(test, {"prm_soft": guesses(test)}), config=CONFIG)
    assert dict(result.problems_by_difficulty) == {"2 functions": 16, "3 functions": 15}
    for row in result.methods:
        levels = row.by_difficulty.values()
        assert sum(e.value * e.problems for e in levels) / 31 == pytest.approx(row.overall.value)


def test_a_difficulty_with_one_problem_has_a_value_and_no_interval():
    test = world(problems=5, difficulty=lambda index: "hard" if index == 0 else "easy")
    result = evaluate([SOFT], ScoredSplit(test, {"prm_soft": knows(test)}), config=CONFIG)
    hard = result.method("prm_soft").by_difficulty["hard"]
    assert (hard.problems, hard.interval) == (1, None)
    assert list(result.problems_by_difficulty) == ["easy", "hard"]


def test_one_problem_in_all_says_that_it_is_too_few():
    test = world(problems=1)
    result = evaluate([SOFT], ScoredSplit(test, {"prm_soft": knows(test)}), config=CONFIG)
    assert {d.finding for d in result.differences} == {Finding.TOO_FEW}


def test_problems_that_none_or_all_solve_are_counted_and_cost_nothing():
    test = [
        *(Candidate("none", f"n{i}", "2 functions", False) for i in range(3)),
        *(Candidate("all", f"a{i}", "2 functions", True) for i in range(3)),
    ]
    result = evaluate([SOFT], ScoredSplit(test, {"prm_soft": guesses(test)}), config=CONFIG)
    assert (result.problems_none_passed, result.problems_all_passed) == (1, 1)
    assert {row.overall.value for row in result.methods} == {0.5}


def test_missing_scores_are_counted_and_rank_last():
    test = [Candidate("p", "scored", "2", True), Candidate("p", "unscored", "2", False)]
    result = evaluate([SOFT], ScoredSplit(test, {"prm_soft": {"scored": (0.01,)}}), config=CONFIG)
    row = result.method("prm_soft")
    assert (row.unscored, row.overall.value) == (1, 1.0)


def test_a_method_without_any_score_falls_back_to_chance():
    test = world(candidates=3)  # a third has no exact binary form: rounding must not be a finding
    result = evaluate([SOFT], ScoredSplit(test, {"prm_soft": {}}), config=CONFIG)
    row = result.method("prm_soft")
    assert [d.finding for d in result.differences] == [Finding.WITHIN_NOISE]
    assert row.unscored == len(test)
    assert row.overall.value == pytest.approx(result.method("pass_at_1").overall.value)
    assert result.calibration == ()


def test_aggregators_come_from_validation_and_never_from_test():
    validation, test = world(seed=5), world(seed=6)
    # On validation only the last step tells right from wrong; on test only the first.
    steps = {True: (0.1, 0.9), False: (0.9, 0.1)}
    chosen_on = {c.solution_id: steps[c.passed] for c in validation}
    tested_on = {c.solution_id: steps[c.passed][::-1] for c in test}
    result = evaluate(
        [SOFT],
        ScoredSplit(test, {"prm_soft": tested_on}),
        ScoredSplit(validation, {"prm_soft": chosen_on}),
        config=CONFIG,
    )
    choice = result.method("prm_soft").choice
    assert choice is not None
    assert (choice.aggregator, choice.reason) == (Aggregator.LAST, ChoiceReason.VALIDATION)


@pytest.mark.parametrize("validation", [None, ScoredSplit([], {})])
def test_without_validation_problems_the_result_says_so(validation):
    test = world()
    scored = ScoredSplit(test, {"prm_soft": knows(test)})
    result = evaluate([SOFT], scored, validation, config=CONFIG)
    choice = result.method("prm_soft").choice
    assert choice is not None
    assert choice.reason is ChoiceReason.NO_VALIDATION


def test_scores_are_held_against_outcomes_and_where_known_against_the_truth():
    test = world()
    arms = [ORM, SOFT]
    scores = {arm.name: knows(test) for arm in arms}
    result = evaluate(arms, ScoredSplit(test, scores), config=CONFIG)
    assert [(row.method, row.target) for row in result.calibration] == [
        ("orm", CalibrationTarget.OUTCOME),  # the earlier steps of an ORM are not trained
        ("prm_soft", CalibrationTarget.OUTCOME),
        ("prm_soft", CalibrationTarget.TRUTH),
    ]
    assert {row.reliability.auroc for row in result.calibration} == {1.0}


def test_recorded_candidates_alone_give_pass_at_1_and_the_oracle():
    result = evaluate([], ScoredSplit(world(), {}), config=CONFIG)
    assert [row.method for row in result.methods] == ["pass_at_1", "oracle"]
    assert result.differences == ()


def test_the_result_is_the_same_for_any_order_of_the_candidates():
    test = world()
    scores = {"prm_soft": guesses(test)}
    forward = evaluate([SOFT], ScoredSplit(test, scores), config=CONFIG)
    backward = evaluate([SOFT], ScoredSplit(test[::-1], scores), config=CONFIG)
    assert to_json(forward) == to_json(backward)


def test_the_json_holds_counts_values_and_plain_words():
    test = world()
    result = evaluate([SOFT], ScoredSplit(test, {"prm_soft": knows(test)}), config=CONFIG)
    stored = json.loads(to_json(result))
    assert stored["schema_version"] == 1
    assert (stored["problems"], stored["candidates"]) == (30, 120)
    row = next(m for m in stored["methods"] if m["method"] == "prm_soft")
    assert row["overall"]["problems"] == 30
    assert row["overall"]["interval"]["low"] <= row["overall"]["value"]
    assert row["choice"]["aggregator"] == "mean"
    assert set(stored["differences"][0]) == {
        "method", "baseline", "difference", "finding", "planned",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("candidates", "scores", "message"),
    [
        ([], {"prm_soft": {}}, "no test candidates"),
        ([Candidate("p", "a", "2", True)] * 2, {"prm_soft": {}}, "'a' is there twice"),
        (
            [Candidate("p", "a", "2", True), Candidate("p", "b", "3", True)],
            {"prm_soft": {}},
            "'p' has difficulties",
        ),
        ([Candidate("p", "a", "2", True)], {"other": {}}, "score every arm"),
        ([Candidate("p", "a", "2", True)], {"prm_soft": {"a": (1.5,)}}, r"number in \[0, 1\]"),
        (
            [Candidate("p", "a", "2", True)],
            {"prm_soft": {"a": (float("nan"),)}},
            r"number in \[0, 1\]",
        ),
        (
            [Candidate("p", "a", "2", True, step_truth=(True, True))],
            {"prm_soft": {"a": (0.5,)}},
            "has 2 steps",
        ),
    ],
)
def test_bad_input_is_one_clear_error(candidates, scores, message):
    with pytest.raises(EvaluationError, match=message):
        evaluate([SOFT], ScoredSplit(candidates, scores), config=CONFIG)


def test_the_rows_of_the_table_have_the_names_people_read_in_the_order_of_the_story():
    arms = [TRUE, CORRECTED, SHUFFLED, HARD, SOFT, ORM]
    assert list(titles(arms).values()) == [
        "pass@1",
        "ORM",
        "PRM soft",
        "PRM hard",
        "PRM + corrected labels",
        "PRM + shuffled control",
        "PRM on true labels",
        "oracle",
    ]


def test_arms_that_would_read_alike_are_told_apart_by_name():
    named = titles([SOFT, ArmConfig(name="again")])
    assert named["prm_soft"] == "PRM soft (prm_soft)"
    assert named["again"] == "PRM soft (again)"


@pytest.mark.parametrize("name", ["pass_at_1", "oracle"])
def test_an_arm_must_not_take_the_name_of_a_reference_row(name):
    with pytest.raises(ValidationError, match="row of its own"):
        ArmConfig(name=name)


def test_corrected_labels_answer_to_the_orm_to_raw_labels_and_to_the_shuffled_control():
    assert planned_comparisons([ORM, SOFT, CORRECTED, SHUFFLED]) == [
        ("prm_soft", "orm"),
        ("prm_corrected", "orm"),
        ("prm_corrected", "prm_soft"),
        ("prm_corrected", "prm_shuffled"),
        ("prm_shuffled", "orm"),
        ("prm_shuffled", "prm_soft"),
    ]


def test_difficulties_sort_as_people_order_them():
    assert sorted(["hard", "10", "easy", "2", "medium"], key=difficulty_key) == [
        "easy", "medium", "hard", "2", "10",
    ]  # fmt: skip
