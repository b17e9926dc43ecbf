import random

import pytest

from pipeline.functions import split_steps
from pipeline.scale_model.operations import OPERATIONS
from pipeline.scale_model.spec import (
    StatementError,
    draw_spec,
    read_statement,
    reference_program,
    write_statement,
)


def test_every_statement_reads_back_as_its_spec():
    rng = random.Random(0)
    for _ in range(3000):
        spec = draw_spec(rng)
        assert read_statement(write_statement(spec, rng)) == spec


def test_no_two_operations_share_a_phrasing():
    phrasings = [
        phrasing
        for operations in OPERATIONS.values()
        for operation in operations
        for phrasing in operation.phrasings
    ]
    assert len(phrasings) == len(set(phrasings))
    assert not any("," in phrasing for phrasing in phrasings), "a comma ends a phrase"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Reverse a string.",
        "Given a line of integers: juggle them, then print the total.",
        "Given a line of integers: sort them, then print the total. And more.",
    ],
)
def test_a_statement_of_another_world_is_refused(text):
    with pytest.raises(StatementError):
        read_statement(text)


def test_a_reference_program_is_main_and_then_its_helpers_in_the_order_of_their_calls():
    rng = random.Random(1)
    for _ in range(50):
        spec = draw_spec(rng)
        steps = split_steps(reference_program(spec), "solution")
        names = [str(call.operation.kind) for call in spec.calls]
        assert [step.name for step in steps] == ["main", *names]
