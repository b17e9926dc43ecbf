"""Arguments and results survive the way through the sandbox's wall, and nothing else passes it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import values
from sandbox.checks import parse_literal

_scalars = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
_hashable = st.recursive(_scalars, lambda inner: st.tuples(inner, inner), max_leaves=4)
_data = st.recursive(
    _hashable,
    lambda inner: (
        st.lists(inner) | st.tuples(inner) | st.dictionaries(_hashable, inner) | st.sets(_hashable)
    ),
    max_leaves=8,
)


@given(_data)
def test_plain_data_comes_back_as_it_was(value: object) -> None:
    back = values.decode(values.encode(value))
    assert back == value
    assert type(back) is type(value)


def test_a_dict_that_looks_like_a_tag_stays_a_dict() -> None:
    assert values.decode(values.encode({"tuple": [1]})) == {"tuple": [1]}


def test_floats_that_json_lacks_come_back() -> None:
    assert values.decode(values.encode([float("inf")])) == [math.inf]
    assert math.isnan(values.decode(values.encode(float("nan"))))


def test_an_object_that_is_no_data_is_refused() -> None:
    with pytest.raises(TypeError, match="type object is no plain data"):
        values.encode([object()])


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 100_000, '{"pickle": "x"}', '{"set": [[]]}', '{"a": 1, "b": 2}',
     '{"float": []}', '{"dict": [1]}', '{"tuple": 3}', "9" * 5000],
)  # fmt: skip
def test_a_hostile_result_is_a_value_error_and_nothing_worse(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each word of it is json's own
        values.decode(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1, 2.5, null, true]", [1, 2.5, None, True]),
        ("[1, None, True]", [1, None, True]),
        ("(1, 'a')", (1, "a")),
        ("{1, 2}", {1, 2}),
        ('{"a": 1}', {"a": 1}),
        (" 7 ", 7),
    ],
)
def test_json_and_python_literals_are_read(text: str, value: object) -> None:
    assert parse_literal(text) == value


@pytest.mark.parametrize("text", ["", "[1", "__import__('os')", "NaN", "f(x)"])
def test_what_is_neither_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="neither strict JSON nor a Python literal"):
        parse_literal(text)
