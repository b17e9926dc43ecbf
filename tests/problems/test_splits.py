"""Roles by date, and no statement in two of them."""

import datetime

import pytest

from pipeline.config import DateWindow, SplitsConfig
from pipeline.problems.splits import assign_roles, similar_statements
from pipeline.records import Role
from tests.scripted import problem

TRAIN_DAY, META_DAY = datetime.date(2023, 5, 1), datetime.date(2024, 5, 1)
VALIDATION_DAY, TEST_DAY = datetime.date(2024, 9, 1), datetime.date(2025, 3, 1)
ARRAY = "You are given an array of n integers. Find the largest sum of any contiguous subarray."
GRID = "There is a grid with h rows and w columns; count the ways from one corner to the other."


def test_roles_follow_the_papers_dates():
    days = [TRAIN_DAY, META_DAY, VALIDATION_DAY, TEST_DAY]
    problems = [
        problem(str(day), released_on=day, statement=f"{index} " * 9)
        for index, day in enumerate(days)
    ]
    assert assign_roles(problems, SplitsConfig()).roles == {
        str(TRAIN_DAY): Role.TRAIN,
        str(META_DAY): Role.META,
        str(VALIDATION_DAY): Role.VALIDATION,
        str(TEST_DAY): Role.TEST,
    }


def test_a_problem_outside_every_window_is_dropped_and_said():
    splits = SplitsConfig(train=DateWindow(before=datetime.date(2020, 1, 1)))
    assignment = assign_roles([problem("old", released_on=TRAIN_DAY)], splits)
    assert assignment.roles == {}
    assert [(d.problem_id, d.reason) for d in assignment.dropped] == [
        ("old", "2023-05-01 is in no window")
    ]


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_like_statements_in_two_roles_the_training_one_is_dropped(order):
    problems = [
        problem("new", released_on=TEST_DAY, statement=ARRAY),
        problem("old", released_on=TRAIN_DAY, statement=ARRAY.upper().replace(". ", "!\n\n")),
        problem("other", released_on=TRAIN_DAY, statement=GRID),
    ][::order]
    assignment = assign_roles(problems, SplitsConfig())
    assert assignment.roles == {"new": Role.TEST, "other": Role.TRAIN}
    (dropped,) = assignment.dropped
    assert dropped.problem_id == "old"
    assert dropped.reason == "train problem, 100% like new in test"


def test_like_statements_in_one_role_both_stay():
    problems = [problem(name, released_on=TRAIN_DAY, statement=ARRAY) for name in "ab"]
    assert set(assign_roles(problems, SplitsConfig()).roles) == {"a", "b"}


def test_a_dropped_problem_drops_no_other():
    middle = ARRAY + " Print it, and print the number of elements that it has on the next line."
    problems = [
        problem("test", released_on=TEST_DAY, statement=ARRAY),
        problem("meta", released_on=META_DAY, statement=ARRAY),
        problem("train", released_on=TRAIN_DAY, statement=middle),
    ]
    roles = assign_roles(problems, SplitsConfig(), near_duplicate=0.9).roles
    assert roles == {"test": Role.TEST, "train": Role.TRAIN}


def test_near_duplicates_may_be_kept_where_statements_are_templates():
    problems = [
        problem("a", released_on=TRAIN_DAY, statement=ARRAY),
        problem("b", released_on=TEST_DAY, statement=ARRAY),
    ]
    assignment = assign_roles(problems, SplitsConfig(), near_duplicate=None)
    assert (len(assignment.roles), assignment.dropped) == (2, ())


def test_similarity_is_the_jaccard_index_of_five_word_shingles():
    one, other = "a b c d e f g", "a b c d e f x"  # shingles: 3 each, 2 shared
    problems = [problem("one", statement=one), problem("other", statement=other)]
    assert list(similar_statements(problems, 0.5)) == [("one", "other", 0.5)]
    assert list(similar_statements(problems, 0.51)) == []


def test_short_and_empty_statements_are_compared_whole():
    problems = [problem("a", statement="Add!"), problem("b", statement="add")]
    assert list(similar_statements(problems, 0.5)) == [("a", "b", 1.0)]
    assert list(similar_statements([problem("c", statement="")], 0.5)) == []
