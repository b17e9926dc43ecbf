"""Roles by date, and no statement in two of them."""

import datetime

import pytest

from pipeline.config import DateWindow, SplitsConfig
from pipeline.problems.splits import assign_roles, drop_near_duplicates, similar_statements
from pipeline.records import Problem, Role
from tests.scripted import problem

TRAIN_DAY, META_DAY = datetime.date(2023, 5, 1), datetime.date(2024, 5, 1)
VALIDATION_DAY, TEST_DAY = datetime.date(2024, 9, 1), datetime.date(2025, 3, 1)
ARRAY = "You are given an array of n integers. Find the largest sum of any contiguous subarray."
GRID = "There is a grid with h rows and w columns; count the ways from one corner to the other."


def dated(problem_id: str, day: datetime.date, statement: str = "") -> Problem:
    return problem(problem_id, released_on=day, statement=statement)


def roles_without_duplicates(problems: list[Problem], **options: float):
    return drop_near_duplicates(problems, assign_roles(problems, SplitsConfig()), **options)


def test_roles_follow_the_papers_dates():
    problems = [dated("a", TRAIN_DAY), dated("b", META_DAY), dated("c", VALIDATION_DAY)]
    assert assign_roles([*problems, dated("d", TEST_DAY)], SplitsConfig()) == {
        "a": Role.TRAIN,
        "b": Role.META,
        "c": Role.VALIDATION,
        "d": Role.TEST,
    }


def test_a_problem_outside_every_window_has_no_role():
    splits = SplitsConfig(train=DateWindow(before=datetime.date(2020, 1, 1)))
    assert assign_roles([dated("old", TRAIN_DAY)], splits) == {}


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_like_statements_in_two_roles_the_training_one_is_dropped(order):
    problems = [
        dated("new", TEST_DAY, ARRAY),
        dated("old", TRAIN_DAY, ARRAY.upper().replace(". ", "!\n\n")),
        dated("other", TRAIN_DAY, GRID),
    ][::order]
    roles, dropped = roles_without_duplicates(problems)
    assert roles == {"new": Role.TEST, "other": Role.TRAIN}
    assert [str(each) for each in dropped] == [
        "train problem old dropped: its statement is 100% that of test problem new"
    ]


def test_like_statements_in_one_role_both_stay():
    problems = [dated(name, TRAIN_DAY, ARRAY) for name in "ab"]
    assert roles_without_duplicates(problems) == ({"a": Role.TRAIN, "b": Role.TRAIN}, [])


def test_a_problem_without_a_role_drops_no_other():
    problems = [dated("a", TRAIN_DAY, ARRAY), dated("b", TEST_DAY, ARRAY)]
    roles = {"a": Role.TRAIN}
    assert drop_near_duplicates(problems, roles) == (roles, [])


@pytest.mark.parametrize("order", [1, -1])
def test_a_dropped_problem_drops_no_other(order):
    longer = ARRAY + " Print it, then the number of elements that it has, on the next line."
    problems = [
        dated("test", TEST_DAY, ARRAY),
        dated("meta", META_DAY, ARRAY + " Print it."),
        dated("train", TRAIN_DAY, longer),
    ]
    ((_, _, in_test), (_, _, in_meta)) = [
        next(similar_statements([problems[index], problems[2]], 0.1)) for index in (0, 1)
    ]
    assert in_test < in_meta
    roles, _ = roles_without_duplicates(problems[::order], at_least=in_meta)
    assert roles == {"test": Role.TEST, "train": Role.TRAIN}


def test_similarity_is_the_jaccard_index_of_five_word_shingles():
    one, other = "a b c d e f g", "a b c d e f x"  # shingles: 3 each, 2 shared
    problems = [problem("one", statement=one), problem("other", statement=other)]
    assert list(similar_statements(problems, 0.5)) == [("one", "other", 0.5)]
    assert list(similar_statements(problems, 0.51)) == []


def test_short_and_empty_statements_are_compared_whole():
    problems = [problem("a", statement="Add!"), problem("b", statement="add")]
    assert list(similar_statements(problems, 0.5)) == [("a", "b", 1.0)]
    assert list(similar_statements([problem("c", statement="")], 0.5)) == []
