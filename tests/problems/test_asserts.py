"""Assert scripts to tests, where they mean the same."""

import pytest

from pipeline.problems.asserts import NoCheck, assert_tests
from sandbox.protocol import TestCase


def check(*statements: str) -> str:
    return "META = {}\n\ndef check(candidate):\n    " + "\n    ".join(statements) + "\n"


def case(expected: str, args: str | None = None, kwargs: str | None = None) -> TestCase:
    return TestCase(expected=expected, args=args, kwargs=kwargs)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("assert candidate([1, 2], 'a') == (1, None)", case("(1, None)", "[[1, 2], 'a']")),
        ("assert candidate(n = 3,k = -1) == 2.5", case("2.5", kwargs="{'n': 3, 'k': -1}")),
        ("assert candidate(1, k={2}) == True", case("True", "[1]", "{'k': {2}}")),
        ("assert candidate() == {'a': []}", case("{'a': []}", "[]")),
        ("assert candidate(1) is None, 'message'", case("None", "[1]")),
        ("assert candidate(1)", case("True", "[1]")),
        ("assert not candidate(1)", case("False", "[1]")),
        ("assert candidate(1) == -inf", case("-1e999", "[1]")),
        ("assert candidate([1e999], 'infinite') == 1", case("1", "[[1e999], 'infinite']")),
        ("assert candidate([inf, (1, inf)]) == 1", case("1", "[[1e999, (1, 1e999, )]]")),
        ("assert candidate(3 * 19) == [0 ** 0, 2 - 3 * 4]", case("[1, -10]", "[57]")),
        ("assert candidate('ab' + 'c') == 7.0 / 2", case("3.5", "['abc']")),
        ("assert candidate(root = tree_node([1, None, inf]),k = 2) == 3",
         case("3", kwargs="{'root': TreeNode([1, None, 1e999]), 'k': 2}")),
        ("assert candidate([list_node([1]), list_node([])]) == 1",
         case("1", "[[ListNode([1]), None]]")),
        ("assert is_same_list(candidate(1), list_node([1, 2]))", case("ListNode([1, 2])", "[1]")),
        ("assert is_same_tree(candidate(1), None)", case("None", "[1]")),
    ],
)  # fmt: skip
def test_a_literal_assert_becomes_a_test(statement, expected):
    assert assert_tests(check(statement), "f") == (expected,)


def test_tests_keep_their_order_and_statements_that_cannot_fail_are_none():
    script = check(
        '"""Tests."""', "assert True, 'debugging'", "assert candidate(1) == 1", "pass",
        "assert candidate(2) == 2", "print",
    )  # fmt: skip
    assert [test.args for test in assert_tests(script, "f")] == ["[1]", "[2]"]


MORE_THAN_A_LITERAL = [
    "assert abs(candidate(1) - 0.3) < 1e-6",
    "assert candidate(1) == tree_node([1])",
    "assert candidate(tree_node(1)) == 1",
    "assert candidate(1) == helper(1)",
    "assert candidate(1) != 2",
    "assert 1 == candidate(1)",
    "assert other(1) == 1",
    "assert candidate(*[1]) == 1",
    "assert candidate(**{}) == 1",
    "assert candidate(1) == 1 / 0",
    "assert candidate(...) == 1",
    "assert candidate({1: 1e999}) == 1",
    "assert candidate(1) == 1e999 - 1e999",
    "assert candidate('a' * 10 ** 9) == 1",
    "assert candidate(2 ** 10 ** 9) == 1",
    "assert candidate('%999999999d' % 1) == 1",
    "assert candidate(1) is []",
    "for x in range(3): assert candidate(x) == x",
    "import random",
    "candidate(1)",
]


@pytest.mark.parametrize("statement", MORE_THAN_A_LITERAL)
def test_a_statement_that_means_more_keeps_the_whole_script_as_a_test(statement):
    script = check("assert candidate(1) == 1", statement)
    literal, whole = assert_tests(script, "Solution().f")
    assert literal == case("1", "[1]")
    assert whole.expected == ""
    assert whole.script == script.rstrip("\n") + "\n\ncheck(Solution().f)\n"


def test_an_assert_after_an_assignment_is_no_test_of_its_own_since_names_may_have_changed():
    script = check("assert candidate(1) == 1", "candidate = wrapped", "assert candidate(2) == 2")
    assert [test.args for test in assert_tests(script, "f")] == ["[1]", None]


def test_an_assert_after_one_that_means_more_still_is_a_test_of_its_own():
    script = check("assert abs(candidate(1)) < 1", "assert candidate(2) == 2")
    assert [test.args for test in assert_tests(script, "f")] == ["[2]", None]


def test_a_script_that_can_fail_outside_its_check_function_is_kept_whole():
    script = check("assert candidate(1) == 1") + "assert 1 == 1\n"
    assert [test.args for test in assert_tests(script, "f")] == ["[1]", None]


@pytest.mark.parametrize("script", ["", "def check(candidate:", "def other(): pass"])
def test_a_script_without_a_check_function_is_refused(script):
    with pytest.raises(NoCheck):
        assert_tests(script, "f")
