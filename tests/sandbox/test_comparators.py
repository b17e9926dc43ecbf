"""`lcb` and `strict`: which outputs and values are right."""

import pytest

from sandbox import Comparator
from sandbox.comparators import output_difference, value_difference

LCB, STRICT = Comparator.LCB, Comparator.STRICT


@pytest.mark.parametrize(
    ("output", "expected", "lcb", "strict"),
    [
        (b"1\n2\n", "1\n2\n", True, True),
        (b"1\n2", "1\n2\n", True, True),
        (b"1\n2\n\n", "1\n2\n", True, False),
        (b" 1 \n\t2\r\n", "1\n2\n", True, False),
        (b"1.0 2.50\n", "1 2.5\n", True, False),
        (b"1  2\n", "1 2\n", True, False),  # equal as numbers
        (b"a  b\n", "a b\n", False, False),  # and words are not numbers
        (b"1e2\n", "100\n", True, False),
        (b"0.30000000000000004\n", "0.3\n", False, False),
        (b"50000000000000001\n", "50000000000000000\n", False, False),
        (b"nan\n", "nan\n", True, True),  # equal as text
        (b"nan 1.0\n", "nan 1\n", False, False),  # and NaN equals no number
        (b"snan\n", "1\n", False, False),
        (b"1 2\n", "1\n2\n", False, False),
        (b"1\n", "1\n2\n", False, False),
        (b"1\n2\n3\n", "1\n2\n", False, False),
        (b"Yes\n", "YES\n", False, False),
        (b"", "\n", True, True),
        (b"", "1\n", False, False),
        (b"1\n\n2\n", "1\n2\n", False, False),
        (b"1\xff\n", "1\n", False, False),
        ("é\n".encode(), "é\n", True, True),
    ],
)
def test_a_printed_output_is_compared_as_specified(
    output: bytes, expected: str, lcb: bool, strict: bool
) -> None:
    assert (output_difference(LCB, output, expected) is None) == lcb
    assert (output_difference(STRICT, output, expected) is None) == strict


@pytest.mark.parametrize(
    ("value", "expected", "lcb", "strict"),
    [
        (3, 3, True, True),
        (1, True, True, False),
        (1.0, 1, True, False),
        ([1, 2], [1, 2], True, True),
        ((1, 2), [1, 2], True, False),  # a tuple counts as a list at the top
        ([(1, 2)], [[1, 2]], False, False),  # and only there
        ([1, 2], [2, 1], False, False),
        ({"a": [1.0]}, {"a": [1]}, True, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True, True),
        ({1, 2}, {2, 1}, True, True),
        (None, None, True, True),
        (None, 0, False, False),
        (float("nan"), float("nan"), False, True),
        (0.1 + 0.2, 0.3, False, False),
        ("10", 10, False, False),
    ],
)
def test_a_returned_value_is_compared_as_specified(
    value: object, expected: object, lcb: bool, strict: bool
) -> None:
    assert (value_difference(LCB, value, expected) is None) == lcb
    assert (value_difference(STRICT, value, expected) is None) == strict


def test_a_difference_names_the_first_line_that_is_wrong() -> None:
    assert output_difference(LCB, b"1\n5\n", "1\n2\n") == "line 2: expected '2', got '5'"
    assert output_difference(LCB, b"1\n", "1\n2\n") == "ends before line 2: '2'"
    assert output_difference(LCB, b"1\n2\n", "1\n") == "goes on after the expected end: '2'"
