"""Scripts and LeetCode's nodes as tests; plain calls and standard input are in `test_judge`."""

import pytest

from sandbox import Limits, Program, Sandbox, Status, TestCase

NODE_CLASSES = """
class ListNode:
    def __init__(self, val=0, next=None): self.val, self.next = val, next
class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val, self.left, self.right = val, left, right
"""
REVERSE = """
def f(head):
    before = None
    while head:
        head.next, before, head = before, head, head.next
    return before
"""
SCRIPT = "def check(g):\n    assert abs(g(2) - 4.0) < 1e-6, 'near'\n\ncheck(f)\n"


def script(code: str, source: str = SCRIPT) -> Program:
    tests = (TestCase(expected="", script=source),)
    return Program(code, tests, entry_point="f", limits=Limits(cpu_s=0.5))


def call(code: str, args: str, expected: str) -> Program:
    return Program(code, (TestCase(args=args, expected=expected),), entry_point="f")


@pytest.mark.parametrize(
    ("code", "status", "detail"),
    [
        ("def f(x): return x * 2.0000001", Status.AC, ""),
        ("def f(x): return x", Status.WA, "script line 2: assert abs(g(2) - 4.0) < 1e-6, 'near'"),
        ("def f(x): return None", Status.RE, "TypeError: unsupported operand"),
        ("def f(x): assert x > 2", Status.RE, "line 1: AssertionError"),
        ("def f(x): raise SystemExit", Status.WA, "the program ended first"),
        ("def f(x):\n    import os\n    os._exit(0)", Status.WA, "the program ended first"),
        ("def f(x):\n    while True: pass", Status.TLE, ""),
        ("def g(x): return 4", Status.CE, "no entry point"),
        ("print('noise' * 10**5)\ndef f(x): return 4", Status.AC, ""),
    ],
)
def test_a_script_decides_by_its_own_assertions_and_the_verdict_says_that_it_is_weak(
    process_sandbox: Sandbox, code: str, status: Status, detail: str
) -> None:
    verdict = process_sandbox.judge(script(code))
    assert verdict.status is status, verdict
    assert detail in verdict.detail
    assert verdict.tests_forgeable == verdict.tests_run


def test_a_script_sees_the_programs_names_and_not_those_of_the_judge(
    process_sandbox: Sandbox,
) -> None:
    assert (
        process_sandbox.judge(script("K = 3\ndef f(): return K", "assert f() == K")).status
        is Status.AC
    )
    assert process_sandbox.judge(script("def f(): 0", "values")).status is Status.RE


def test_only_scripts_that_ran_count_as_forgeable(process_sandbox: Sandbox) -> None:
    tests = (
        TestCase(args="[1]", expected="1"),
        TestCase(expected="", script="assert f(2) == 2"),
        TestCase(args="[3]", expected="3"),
        TestCase(expected="", script="assert f(4) == 4"),
    )
    verdict = process_sandbox.judge(Program("def f(x): return x % 3", tests, entry_point="f"))
    assert (verdict.tests_run, verdict.tests_total, verdict.tests_forgeable) == (3, 4, 1)


def test_a_program_that_sets_out_to_can_forge_a_script_and_not_a_call(
    process_sandbox: Sandbox,
) -> None:
    """What the docstring of `TestCase` warns of is so."""
    cheat = (
        "class Yes(float):\n    __sub__ = lambda s, o: 0.0\n    __eq__ = lambda s, o: True\n"
        "def f(x): return Yes(1)"
    )
    assert process_sandbox.judge(script(cheat)).status is Status.AC
    assert process_sandbox.judge(call(cheat, "[2]", "4.0")).status is Status.WA


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"script": "assert f(", "expected": ""}, r"tests\[0\]: script: does not compile"),
        ({"script": "pass", "expected": "1"}, "`expected` must be empty"),
        ({"script": "pass", "expected": "", "args": "[1]"}, "either `stdin` or call arguments"),
    ],
)
def test_a_script_that_cannot_judge_is_refused(
    process_sandbox: Sandbox, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        process_sandbox.judge(Program("def f(): 0", (TestCase(**changes),), entry_point="f"))


def test_a_script_needs_an_entry_point(process_sandbox: Sandbox) -> None:
    program = Program("x = 1", (TestCase(expected="", script="assert x"),))
    with pytest.raises(ValueError, match=r"tests\[0\]: .* one without takes stdin"):
        process_sandbox.judge(program)


@pytest.mark.parametrize("classes", ["", NODE_CLASSES], ids=["LeetCode's", "its own"])
@pytest.mark.parametrize(
    ("code", "args", "expected", "status"),
    [
        (REVERSE, "[ListNode([1, 2, 3])]", "ListNode([3, 2, 1])", Status.AC),
        (REVERSE, "[ListNode([1, 2, 3])]", "ListNode([1, 2, 3])", Status.WA),
        (REVERSE, "[ListNode([])]", "None", Status.AC),
        ("def f(t): return [t.left, t.right.val, t.right.left.val, t.right.right]",
         "[TreeNode([1, None, 2, 3])]", "[None, 2, 3, None]", Status.AC),
        ("def f(t): return t.right", "[TreeNode([1, 7, 2, None, None, 3, None])]",
         "TreeNode([2, 3])", Status.AC),
        ("def f(t): return t.right", "[TreeNode([1, 7, 2, 3])]", "TreeNode([2, 3])", Status.WA),
        ("def f(t): return t", "[TreeNode([1, 2])]", "[1, 2]", Status.WA),
        ("def f(ts): return sum(t.val for t in ts if t)", "[[TreeNode([1]), None]]", "1",
         Status.AC),
        ("def f(n):\n    n.next = n\n    return n", "[ListNode([1])]", "None", Status.RE),
        ("def f(n):\n    n.val = n\n    return n", "[ListNode([1])]", "None", Status.RE),
        ("def f(s): return s", "['Node\":[']", "'Node\":['", Status.AC),
    ],
)  # fmt: skip
def test_nodes_are_objects_to_the_program_and_data_to_the_judge(
    process_sandbox: Sandbox, classes: str, code: str, args: str, expected: str, status: Status
) -> None:
    verdict = process_sandbox.judge(call(classes + code, args, expected))
    assert verdict.status is status, verdict


def test_nothing_is_imported_for_a_program(process_sandbox: Sandbox) -> None:
    verdict = process_sandbox.judge(call("def f(a: List[int]): return a", "[[1]]", "[1]"))
    assert verdict.detail == "line 1: NameError: name 'List' is not defined"
