import datetime
import random
import re

import pytest

from pipeline.config import DateWindow, ScaleModelProblems, SplitsConfig
from pipeline.records import Role
from pipeline.scale_model import generator
from pipeline.scale_model.generator import draw_tests, generate_problems, release_date
from pipeline.scale_model.spec import (
    Spec,
    draw_spec,
    read_statement,
    reference_program,
    run,
    write_statement,
)
from tests.scale_model.programs import passes

SPLITS = SplitsConfig()
COUNTS = ScaleModelProblems(train=60, meta=20, validation=20, test=60)


@pytest.fixture(scope="module")
def problems():
    return generate_problems(COUNTS, SPLITS)


def test_the_same_seed_gives_the_same_problems_and_another_seed_gives_others(problems):
    assert generate_problems(COUNTS, SPLITS) == problems
    others = generate_problems(COUNTS.model_copy(update={"seed": 1}), SPLITS)
    assert not {p.problem_id for p in problems} & {p.problem_id for p in others}


def test_every_role_gets_its_count_and_every_date_lies_in_its_window(problems):
    roles = [SPLITS.role_of(problem.released_on) for problem in problems]
    assert {role: roles.count(role) for role in Role} == {
        Role.TRAIN: 60,
        Role.META: 20,
        Role.VALIDATION: 20,
        Role.TEST: 60,
    }


def test_problems_are_sorted_by_distinct_ids(problems):
    ids = [problem.problem_id for problem in problems]
    assert ids == sorted(set(ids))


def test_more_problems_of_one_role_change_none_of_the_others(problems):
    more = generate_problems(COUNTS.model_copy(update={"train": 90}), SPLITS)
    assert set(problems) <= set(more)


def test_no_operation_sequence_is_in_two_roles_whatever_its_numbers_and_wording(problems):
    role_of = {}
    for problem in problems:
        spec = read_statement(problem.statement)
        role = SPLITS.role_of(problem.released_on)
        assert role_of.setdefault(spec.sequence, role) is role
        assert problem.title == spec.sequence
    masked = {}
    for problem in problems:
        wording = re.sub(r"\d+", "#", problem.statement)
        role = SPLITS.role_of(problem.released_on)
        assert masked.setdefault(wording, role) is role, "a reworded or renumbered near-duplicate"


def test_reference_programs_pass_their_own_tests(problems):
    for problem in problems:
        program = reference_program(read_statement(problem.statement))
        assert len(problem.tests) == COUNTS.tests_per_problem
        assert passes(program, problem.tests)


def test_the_tests_of_a_problem_notice_every_bug_of_the_catalogue_and_every_dropped_call(problems):
    for problem in problems[:50]:
        calls = read_statement(problem.statement).calls
        right = [call.expression for call in calls]
        for index, call in enumerate(calls):
            dropped = [] if index + 1 == len(calls) else [right[:index] + right[index + 1 :]]
            for wrong in [[*right[:index], b, *right[index + 1 :]] for b in call.bugs] + dropped:
                outputs = [run(wrong, _numbers(test.stdin)) for test in problem.tests]
                assert outputs != [int(test.expected) for test in problem.tests]


def _numbers(stdin):
    return [int(word) for word in stdin.split()]


def test_a_spec_in_which_one_operation_undoes_another_makes_no_problem():
    rng = random.Random(0)
    spec = read_statement("Given a line of integers: sort them, then print the total.")
    assert draw_tests(spec, rng, 10) is None


def test_difficulty_is_the_number_of_functions(problems):
    for problem in problems:
        program = reference_program(read_statement(problem.statement))
        assert problem.difficulty == f"{program.count('def ')} functions"
    assert {p.difficulty for p in problems} == {"3 functions", "4 functions", "5 functions"}


def test_the_world_holds_more_than_17_000_distinct_problems():
    rng = random.Random(0)
    specs: set[Spec] = {draw_spec(rng) for _ in range(25_000)}
    statements = {write_statement(spec, rng) for spec in specs}
    assert len(specs) > 17_000
    assert len(statements) == len(specs)


def test_a_window_that_cannot_be_filled_is_one_error_that_names_the_role_and_the_remedy(
    monkeypatch,
):
    monkeypatch.setattr(generator, "MAX_MISSES", 5)
    one_test = ScaleModelProblems(train=3000, tests_per_problem=1)
    with pytest.raises(ValueError, match=r"problems\.train: 3000 .* window splits\.train") as error:
        generate_problems(one_test, SPLITS)
    assert "ask for fewer problems" in str(error.value)


def test_release_dates_follow_windows_of_the_users_own():
    def window(year: int) -> DateWindow:
        return DateWindow(after=datetime.date(year, 1, 1), before=datetime.date(year + 1, 1, 1))

    splits = SplitsConfig(
        train=window(2001), meta=window(2002), validation=window(2003), test=window(2004)
    )
    years = {release_date(f"sequence {i}", 0, splits).year for i in range(200)}
    assert years == {2001, 2002, 2003, 2004}
