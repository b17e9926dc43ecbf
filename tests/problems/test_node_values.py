"""Which lists of a test stand for LeetCode's nodes: those that the starter code annotates so."""

import json

import pytest

from pipeline.config import FileProblems
from pipeline.execution import to_program
from pipeline.problems import load_problems
from pipeline.problems.node_values import signature
from sandbox import Sandbox, Status
from sandbox.nodes import Nodes

LIST, TREE = "ListNode", "TreeNode"


def method(parameters: str, result: str = "int") -> str:
    return f"class Solution:\n    def f(self, {parameters}) -> {result}:\n        "


@pytest.mark.parametrize(
    ("annotation", "value", "meant"),
    [
        ("Optional[TreeNode]", [5, None, 3], Nodes(TREE, [5, None, 3])),
        ("TreeNode | None", [5], Nodes(TREE, [5])),
        ("None | 'TreeNode'", [5], Nodes(TREE, [5])),
        ("'Optional[ListNode]'", [5], Nodes(LIST, [5])),
        ("typing.Optional[ListNode]", [1, 2], Nodes(LIST, [1, 2])),
        ("Union[ListNode, None]", [1], Nodes(LIST, [1])),
        ("Optional[TreeNode]", [], None),
        ("Optional[TreeNode]", None, None),
        ("List[Optional[ListNode]]", [[1], []], [Nodes(LIST, [1]), None]),
        ("List[int]", [1, 2], [1, 2]),
        ("str", "TreeNode", "TreeNode"),
    ],
)
def test_a_value_is_read_as_its_annotation_says(annotation, value, meant):
    found = signature(method(f"a: {annotation}", annotation), "Solution().f")
    assert found.arguments([value]) == [meant]
    assert found.keywords({"a": value}) == {"a": meant}
    assert found.returned(value) == meant


def test_a_function_has_no_self():
    found = signature("def f(root: Optional[TreeNode], k):", "f")
    assert found.arguments([[1], [2]]) == [Nodes(TREE, [1]), [2]]


@pytest.mark.parametrize("starter_code", ["", "def g(a: TreeNode): pass", "def f(a: TreeNode) ->"])
def test_without_a_signature_values_stay_what_they_are(starter_code):
    assert signature(starter_code, "f").arguments([[1]]) == [[1]]


def test_a_tree_problem_in_our_own_form_is_judged(tmp_path, process_sandbox: Sandbox):
    row = {
        "problem_id": "mirror",
        "statement": "Mirror a tree.",
        "difficulty": "easy",
        "released_on": "2024-05-01",
        "entry_point": "Solution().mirror",
        "starter_code": "class Solution:\n    def mirror(self, root: Optional[TreeNode]) -> "
        "Optional[TreeNode]:\n        ",
        "tests": [
            {"args": [[1, 2, 3, None, 4]], "expected": [1, 3, 2, None, None, 4]},
            {"args": [[]], "expected": []},
        ],
    }
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps(row))
    (problem,) = load_problems(FileProblems(kind="jsonl", paths=(str(path),)))
    body = """if root is None: return None
        return TreeNode(root.val, self.mirror(root.right), self.mirror(root.left))"""
    right = process_sandbox.judge(to_program(problem, row["starter_code"] + body, 256))
    assert right.status is Status.AC, right
    wrong = process_sandbox.judge(to_program(problem, row["starter_code"] + "return root", 256))
    assert wrong.status is Status.WA
    assert wrong.detail.endswith("got TreeNode([1, 2, 3, None, 4])")


def test_a_value_that_cannot_be_nodes_is_a_bad_row(tmp_path):
    with pytest.raises(ValueError, match="a TreeNode is written as the list of its values, not 3"):
        signature("def f(a: TreeNode): pass", "f").arguments([3])
