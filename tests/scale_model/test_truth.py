import dataclasses
import random

import pytest

from pipeline.config import ScaleModelProblems, SplitsConfig
from pipeline.functions import split_steps
from pipeline.scale_model.generator import draw_tests, generate_problems
from pipeline.scale_model.spec import MAIN_CALL, read_statement, reference_program, write_program
from pipeline.scale_model.truth import complete_with_reference
from tests.scale_model.programs import passes

PROBLEMS = generate_problems(
    ScaleModelProblems(train=40, meta=1, validation=1, test=1), SplitsConfig()
)


def truths(problem, code):
    """Whether each prefix of the program is right."""
    steps = split_steps(code, "solution")
    return [
        passes(complete_with_reference(problem, code, steps, step.step_index), problem.tests)
        for step in steps
    ]


def parts(problem):
    calls = read_statement(problem.statement).calls
    order = [call.operation.kind for call in calls]
    return calls, order, {call.operation.kind: call.expression for call in calls}


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.title)
def test_every_prefix_of_a_right_program_is_right(problem):
    assert all(truths(problem, reference_program(read_statement(problem.statement))))


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.title)
def test_a_wrong_helper_makes_its_own_prefix_wrong_and_all_later_ones_but_no_earlier_one(problem):
    calls, order, right = parts(problem)
    for index, call in enumerate(calls):
        for bug in call.bugs:
            code = write_program(order, right | {call.operation.kind: bug})
            assert truths(problem, code) == [True] * (1 + index) + [False] * (len(calls) - index)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.title)
def test_a_dropped_call_makes_every_prefix_wrong(problem):
    _, order, right = parts(problem)
    kept = order[1:]
    code = write_program(kept, {kind: right[kind] for kind in kept})
    assert not any(truths(problem, code))


def test_swapped_calls_make_main_wrong_where_the_order_matters():
    statement = "Given a line of integers: add 5 to each, keep those above 7, then print the total."
    tests = draw_tests(read_statement(statement), random.Random(0), 10)
    assert tests is not None
    problem = dataclasses.replace(PROBLEMS[0], statement=statement, tests=tests)
    _, order, right = parts(problem)
    swapped = [order[1], order[0], *order[2:]]
    assert not truths(problem, write_program(swapped, right))[0]


def test_a_main_that_calls_an_unknown_name_is_wrong():
    problem = PROBLEMS[0]
    code = reference_program(read_statement(problem.statement)).replace("fold(a)", "total(a)", 1)
    assert not truths(problem, code)[0]


def test_a_finished_program_is_judged_as_it_is_so_a_missing_helper_is_not_forgiven():
    problem = PROBLEMS[0]
    code = reference_program(read_statement(problem.statement))
    steps = split_steps(code, "solution")
    without_last = code[: steps[-2].end] + MAIN_CALL
    assert truths(problem, without_last)[-1] is False


def test_a_prefix_that_does_not_parse_comes_back_with_nothing_spliced_in():
    problem = PROBLEMS[0]
    code = "def main(:\n    pass\ndef fold(a):\n    return 0\n"
    steps = split_steps("def main():\n    pass\ndef fold(a):\n    return 0\n", "solution")
    assert "sum" not in complete_with_reference(problem, code, steps, 0)


def test_the_prefix_is_kept_verbatim():
    rng = random.Random(0)
    for problem in rng.sample(PROBLEMS, 5):
        code = reference_program(read_statement(problem.statement)).replace("a)", "a) ", 1)
        steps = split_steps(code, "solution")
        for step in steps:
            whole = complete_with_reference(problem, code, steps, step.step_index)
            assert whole.startswith(code[: step.end])
