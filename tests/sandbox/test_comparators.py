"""`lcb` and `strict`: which outputs and values are right."""

import copy
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import Comparator, values
from sandbox.comparators import output_difference, value_difference
from sandbox.nodes import Nodes

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
        ((1, 2), (1, 2), True, True),
        ([1, 2], (1, 2), False, False),
        (Decimal("0.5"), 0.5, True, False),
        (Fraction(1, 2), 0.5, True, False),
        ({frozenset({1, 8}), 2}, {2, frozenset({8, 1})}, True, True),
        ({frozenset({1})}, {frozenset({True})}, True, False),
        (Nodes("ListNode", [1]), Nodes("ListNode", [1]), True, True),
        (Nodes("ListNode", [1]), Nodes("ListNode", [True]), True, False),
        (Nodes("ListNode", [1]), Nodes("TreeNode", [1]), False, False),
        (Nodes("ListNode", [1]), [1], False, False),
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


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
)
_line = st.text(alphabet="019.-+eE \t\r\x0b\u00a0naif_x", max_size=8)
_output = st.lists(_line, max_size=3).map("\n".join)


def livecodebench_accepts_output(output: str, expected: str) -> bool:
    """Its rules, written down once more, from the description of its `grade_stdio`."""
    got, wanted = ([line.strip() for line in t.strip().split("\n")] for t in (output, expected))
    if len(got) != len(wanted):
        return False
    for one, other in zip(got, wanted, strict=True):
        try:
            same = [*map(Decimal, one.split())] == [*map(Decimal, other.split())]
        except ArithmeticError:
            same = False
        if one != other and not same:
            return False
    return True


@given(_output, _output)
def test_lcb_agrees_with_livecodebench_on_outputs(output: str, expected: str) -> None:
    assert (output_difference(LCB, output.encode(), expected) is None) == (
        livecodebench_accepts_output(output, expected)
    )


@given(_output, st.sampled_from(["", " ", "\n", "\r\n", "\n\n"]))
def test_blanks_around_an_output_never_matter_to_lcb(output: str, blanks: str) -> None:
    assert output_difference(LCB, (blanks + output + blanks).encode(), output) is None


@given(_output, _output)
def test_strict_accepts_nothing_that_lcb_rejects(output: str, expected: str) -> None:
    if output_difference(STRICT, output.encode(), expected) is None:
        assert output_difference(LCB, output.encode(), expected) is None


@given(_json, _json)
def test_lcb_agrees_with_livecodebench_on_values(value: object, expected: object) -> None:
    value = copy.deepcopy(value)  # a NaN that is the very same object would be equal to itself
    assert (value_difference(LCB, value, expected) is None) == (value == expected)
    if isinstance(value, list):
        accepted = value_difference(LCB, tuple(value), expected) is None
        assert accepted == (value == expected)


@given(_json)
def test_strict_accepts_a_value_that_came_through_the_wall(value: object) -> None:
    assert value_difference(STRICT, values.decode(values.encode(value)), value) is None


def test_a_difference_names_the_first_line_that_is_wrong() -> None:
    assert output_difference(LCB, b"1\n5\n", "1\n2\n") == "line 2: expected '2', got '5'"
    assert output_difference(LCB, b"1\n", "1\n2\n") == "ends before line 2: '2'"
    assert output_difference(LCB, b"1\n2\n", "1\n") == "goes on after the expected end: '2'"
