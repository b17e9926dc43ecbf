"""Arguments and results survive the way through the sandbox's wall, and nothing else passes it."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import Comparator, TestCase, nodes, values
from sandbox.checks import _call_check, parse_literal
from sandbox.nodes import Nodes

_scalars = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
_rare = (
    st.binary()
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.complex_numbers(allow_nan=False)
)
_hashable = st.recursive(
    _scalars | _rare,
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner),
    max_leaves=4,
)
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


def test_a_set_of_frozen_sets_comes_back_as_one() -> None:
    value = {frozenset({1}), frozenset()}
    assert values.decode(values.encode(value)) == value


@pytest.mark.parametrize(
    ("kind", "written", "meant"),
    [
        ("ListNode", [1, 2], Nodes("ListNode", [1, 2])),
        ("ListNode", [], None),
        ("TreeNode", [], None),
        ("TreeNode", [None, 1], None),  # no root, no tree
        ("TreeNode", [1, None, 2, 3], Nodes("TreeNode", [1, None, 2, 3])),
        ("TreeNode", [1, None, None], Nodes("TreeNode", [1])),
        ("TreeNode", [1, None, None, 4], Nodes("TreeNode", [1])),  # 4 hangs on nothing
        ("TreeNode", [1, 2, None, None, 3, None], Nodes("TreeNode", [1, 2, None, None, 3])),
    ],
)
def test_nodes_are_their_values_without_those_that_belong_to_no_node(
    kind: str, written: list[object], meant: Nodes | None
) -> None:
    assert nodes.of_values(kind, written) == meant
    assert values.decode(values.encode(meant)) == meant
    assert parse_literal(f"[{kind}({written})]") == [meant]


@given(st.lists(st.none() | st.integers()))
def test_a_tree_that_is_built_and_walked_is_the_tree_that_was_written(written: list) -> None:
    tree = nodes.of_values("TreeNode", written)
    built = nodes.to_objects(tree, lambda kind: getattr(nodes, kind))
    assert (None if built is None else nodes.of_object(built, "TreeNode")) == tree


def test_an_object_that_is_no_data_is_refused() -> None:
    with pytest.raises(TypeError, match="type object is no plain data"):
        values.encode([object()])


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 100_000, '{"pickle": "x"}', '{"set": [[]]}', '{"a": 1, "b": 2}',
     '{"float": []}', '{"dict": [1]}', '{"tuple": 3}', "9" * 5000, '{"decimal": "snan"}',
     '{"decimal": [0, [1], 2]}', '{"fraction": ["1e999999999", 1]}', '{"fraction": [1, 0]}',
     '{"complex": [1]}', '{"bytes": "x"}', '{"TreeNode": 3}', '{"frozenset": [[]]}'],
)  # fmt: skip
def test_a_hostile_result_is_a_value_error_and_nothing_worse(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each word of it is json's own
        values.decode(text)


def test_a_result_with_many_keys_of_one_hash_is_refused_before_they_are_hashed() -> None:
    one_hash = [n * (2**61 - 1) for n in range(200_000)]
    hostile = '{"set": ' + str(one_hash) + "}"
    started = time.process_time()
    with pytest.raises(ValueError, match="more than 1000 dict keys and set members"):
        values.decode(hostile, most_hashed=1000)
    assert time.process_time() - started < 5  # hashing them would take minutes


def test_a_large_set_that_is_expected_is_read() -> None:
    expected = set(range(5000))
    check = _call_check(TestCase(args="[]", expected=str(expected)))
    assert check.difference(Comparator.STRICT, values.encode(expected).encode()) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1, 2.5, null, true]", [1, 2.5, None, True]),
        ("[1, None, True]", [1, None, True]),
        ("(1, 'a')", (1, "a")),
        ("{1, 2}", {1, 2}),
        ('{"a": 1}', {"a": 1}),
        (" 7 ", 7),
        ("{'a': ListNode([1, -2])}", {"a": Nodes("ListNode", [1, -2])}),
        ("(b'x', 1+2j)", (b"x", 1 + 2j)),
    ],
)
def test_json_and_python_literals_are_read(text: str, value: object) -> None:
    assert parse_literal(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "[1", "__import__('os')", "NaN", "f(x)", "TreeNode(1)", "TreeNode([x])",
     "ListNode([1], [2])", "{**{}}"],
)  # fmt: skip
def test_what_is_neither_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="neither strict JSON nor a Python literal"):
        parse_literal(text)
