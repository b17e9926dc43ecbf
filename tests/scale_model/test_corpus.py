from collections import Counter

import pytest

from pipeline.config import SplitsConfig
from pipeline.functions import split_steps
from pipeline.records import Role
from pipeline.scale_model.corpus import MAIN_BUG_RATE, draw_corpus
from pipeline.scale_model.generator import release_date
from pipeline.scale_model.operations import OPERATIONS
from pipeline.scale_model.spec import read_statement, reference_program, write_helper, write_main

SPLITS = SplitsConfig()


@pytest.fixture(scope="module")
def corpus():
    return list(draw_corpus(6000, seed=0, problems_seed=0, splits=SPLITS))


def test_the_same_seed_gives_the_same_corpus_and_a_longer_one_begins_with_it(corpus):
    assert list(draw_corpus(100, 0, 0, SPLITS)) == corpus[:100]
    assert list(draw_corpus(100, 1, 0, SPLITS)) != corpus[:100]


def test_no_operation_sequence_of_a_validation_or_test_problem_is_in_the_corpus(corpus):
    roles = {
        SPLITS.role_of(release_date(read_statement(program.statement).sequence, 0, SPLITS))
        for program in corpus
    }
    assert roles == {Role.TRAIN, Role.META}


def test_a_program_is_the_reference_exactly_where_no_function_is_wrong(corpus):
    for program in corpus:
        is_reference = program.code == reference_program(read_statement(program.statement))
        assert is_reference == (not program.wrong)


def test_every_operation_is_wrong_as_often_as_the_catalogue_says(corpus):
    seen, wrong = Counter(), Counter()
    for program in corpus:
        for call in read_statement(program.statement).calls:
            kind, name = call.operation.kind, call.operation.name
            if f"def {kind}(" not in program.code:
                continue  # a call that main() dropped
            seen[name] += 1
            wrong[name] += write_helper(kind, call.expression) not in program.code
    for operations in OPERATIONS.values():
        for operation in operations:
            rate, count = operation.bug_rate, seen[operation.name]
            spread = 4 * (rate * (1 - rate) / count) ** 0.5
            assert wrong[operation.name] / count == pytest.approx(rate, abs=spread)


def test_main_is_wrong_in_12_percent_by_a_swapped_or_a_dropped_call(corpus):
    dropped = swapped = 0
    for program in corpus:
        order = [call.operation.kind for call in read_statement(program.statement).calls]
        if not program.code.startswith(write_main(order)):
            steps = split_steps(program.code)
            dropped += len(steps) == len(order)
            swapped += len(steps) == len(order) + 1
    assert dropped + swapped == sum("main" in program.wrong for program in corpus)
    assert (dropped + swapped) / len(corpus) == pytest.approx(MAIN_BUG_RATE, abs=0.02)
    assert dropped > swapped > 0
