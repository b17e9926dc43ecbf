import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.selection import (
    Aggregator,
    Candidate,
    ChoiceReason,
    aggregate,
    best_of_n,
    by_problem,
    choose_aggregator,
    pass_at_n,
    selection_curve,
)

candidates = st.lists(
    st.tuples(st.booleans(), st.sampled_from([-math.inf, 0.1, 0.5, 0.5000001, 0.9])),
    min_size=1,
    max_size=7,
)


def brute_force(passed, ranking, n):
    """Mean over all subsets of N of the mean outcome of the subset's best-ranked members."""
    successes = []
    for subset in itertools.combinations(range(len(passed)), n):
        best = max(ranking[i] for i in subset)
        chosen = [passed[i] for i in subset if ranking[i] == best]
        successes.append(sum(chosen) / len(chosen))
    return sum(successes) / len(successes)


@settings(deadline=None)
@given(candidates)
def test_the_closed_form_equals_the_mean_over_all_subsets_with_ties_sharing_credit(rows):
    passed, ranking = zip(*rows, strict=True)
    expected = [brute_force(passed, ranking, n) for n in range(1, len(rows) + 1)]
    assert best_of_n(passed, ranking) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(candidates)
def test_the_oracle_equals_the_share_of_subsets_with_a_passing_program(rows):
    passed = [p for p, _ in rows]
    expected = [
        np.mean([any(subset) for subset in itertools.combinations(passed, n)])
        for n in range(1, len(passed) + 1)
    ]
    assert pass_at_n(passed) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(candidates, st.randoms(use_true_random=False))
def test_the_order_in_which_candidates_come_changes_nothing(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert best_of_n(*zip(*rows, strict=True)) == pytest.approx(
        best_of_n(*zip(*shuffled, strict=True)), abs=1e-12
    )


def test_a_hand_computed_table():
    # Ranks 1..4 are wrong, right, right, wrong. Of the 6 pairs, rank 1 wins 3, rank 2 wins 2 and
    # rank 3 wins 1: (2 + 1) / 6. Of the 4 triples, rank 1 wins 3 and rank 2 wins 1: 1 / 4.
    passed = [False, True, True, False]
    assert best_of_n(passed, [0.9, 0.8, 0.7, 0.1]) == pytest.approx([1 / 2, 1 / 2, 1 / 4, 0])
    # The two best tie, one of them right: of 6 pairs, 5 hold one or both of them. {1,2} is worth
    # 1/2; {1,3} {1,4} 0; {2,3} {2,4} 1; {3,4} goes to rank 3, right: (1/2 + 2 + 1) / 6.
    assert best_of_n(passed, [0.9, 0.9, 0.7, 0.1]) == pytest.approx([1 / 2, 7 / 12, 1 / 2, 1 / 2])
    assert pass_at_n(passed) == pytest.approx([1 / 2, 5 / 6, 1, 1])


@pytest.mark.parametrize("outcome", [True, False])
def test_a_problem_on_which_all_candidates_agree_leaves_nothing_to_select(outcome):
    assert best_of_n([outcome] * 5, [0.1, 0.9, 0.9, 0.2, 0.3]) == pytest.approx(
        [float(outcome)] * 5
    )
    assert pass_at_n([outcome] * 5) == pytest.approx([float(outcome)] * 5)


def test_a_score_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        best_of_n([True, False], [0.5, math.nan])


@pytest.mark.parametrize(
    ("aggregator", "expected"),
    [
        (Aggregator.LAST, 0.5),
        (Aggregator.MEAN, (0.8 + 0.2 + 0.5) / 3),
        (Aggregator.MIN, 0.2),
        (Aggregator.PRODUCT, 0.08),
        (Aggregator.LOG_ODDS, 0.0),
    ],
)
def test_each_aggregator_on_three_steps(aggregator, expected):
    assert aggregate((0.8, 0.2, 0.5), aggregator) == pytest.approx(expected)
    assert aggregate((), aggregator) == -math.inf


def test_a_saturated_step_does_not_outweigh_all_others_in_log_odds():
    assert math.isfinite(aggregate((1.0, 0.0), Aggregator.LOG_ODDS))
    assert aggregate((0.0, 0.9, 0.9), Aggregator.LOG_ODDS) > aggregate(
        (0.0, 0.1, 0.1), Aggregator.LOG_ODDS
    )


def candidate(problem, solution, passed):
    return Candidate(problem, solution, "easy", passed)


def test_a_candidate_without_scores_ranks_below_any_with():
    problems = by_problem([candidate("p", "a", True), candidate("p", "b", False)])
    scores = {"b": (0.0001,)}
    assert selection_curve(problems, scores, Aggregator.LOG_ODDS)[0].tolist() == [0.5, 0.0]
    scores = {"a": (0.0001,), "b": ()}
    assert selection_curve(problems, scores, Aggregator.LOG_ODDS)[0].tolist() == [0.5, 1.0]


def test_a_problem_with_fewer_candidates_keeps_the_value_of_all_its_own():
    problems = by_problem([candidate("p", "a", True), *(candidate("q", s, False) for s in "bcd")])
    curve = selection_curve(problems, {}, Aggregator.MEAN)
    assert curve.tolist() == [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]


def test_the_aggregator_that_selects_best_on_validation_is_chosen():
    validation = [candidate("p", "a", True), candidate("p", "b", False)]
    # Only the minimum prefers the right program.
    choice = choose_aggregator(validation, {"a": (0.5, 0.25, 0.5), "b": (0.99, 0.2, 0.9)})
    assert choice.aggregator is Aggregator.MIN
    assert choice.reason is ChoiceReason.VALIDATION
    assert choice.validation_accuracy[Aggregator.MIN] == 1.0
    assert choice.validation_accuracy[Aggregator.MEAN] == 0.0
    assert choice.problems == 1


def test_aggregators_that_select_alike_leave_the_choice_to_the_mean():
    validation = [candidate("p", "a", True), candidate("p", "b", False)]
    choice = choose_aggregator(validation, {"a": (0.9, 0.9), "b": (0.1, 0.1)})
    assert choice.aggregator is Aggregator.MEAN


def test_without_validation_problems_the_mean_is_taken_and_said():
    choice = choose_aggregator([], {})
    assert (choice.aggregator, choice.reason) == (Aggregator.MEAN, ChoiceReason.NO_VALIDATION)


def test_an_outcome_model_is_read_at_its_last_step_whatever_validation_says():
    validation = [candidate("p", "a", True), candidate("p", "b", False)]
    choice = choose_aggregator(validation, {"a": (0.9, 0.1), "b": (0.1, 0.2)}, outcome_model=True)
    assert (choice.aggregator, choice.reason) == (Aggregator.LAST, ChoiceReason.OUTCOME_MODEL)
