import itertools

import pytest

from pipeline.scale_model.operations import OPERATIONS, PARAMETERS, Call, Kind, compiled

EVERY_CALL = [
    Call(operation, parameter)
    for operations in OPERATIONS.values()
    for operation in operations
    for parameter in (PARAMETERS if operation.takes_parameter else (None,))
]
LISTS = [[], [3], [-4, 0, 7], [5, 5, -1, 2], list(range(-9, 21))]


def test_the_catalogue_has_8_picks_10_changes_9_orders_and_8_folds():
    assert {kind: len(operations) for kind, operations in OPERATIONS.items()} == {
        Kind.PICK: 8,
        Kind.CHANGE: 10,
        Kind.ORDER: 9,
        Kind.FOLD: 8,
    }


def test_no_operation_and_no_bug_raises_on_any_list():
    for call, numbers in itertools.product(EVERY_CALL, LISTS):
        for expression in (call.expression, *call.bugs):
            value = compiled(expression)(list(numbers))
            assert isinstance(value, int if call.operation.kind is Kind.FOLD else list)


@pytest.mark.parametrize("call", EVERY_CALL, ids=lambda c: f"{c.operation.name}-{c.parameter}")
def test_every_bug_differs_from_its_operation_on_some_list(call):
    lists = [*LISTS, [call.parameter or 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, -12, -3, 5, 5, 4]]
    for bug in call.bugs:
        assert any(compiled(bug)(list(a)) != compiled(call.expression)(list(a)) for a in lists)


def test_orders_rearrange_picks_select_and_changes_keep_the_length():
    for call, numbers in itertools.product(EVERY_CALL, LISTS):
        value = compiled(call.expression)(list(numbers))
        match call.operation.kind:
            case Kind.ORDER:
                assert sorted(value) == sorted(numbers)
            case Kind.PICK:
                assert set(value) <= set(numbers)
            case Kind.CHANGE:
                assert len(value) == len(numbers)
