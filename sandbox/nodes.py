"""LeetCode's linked lists and binary trees: as data on the trusted side, as objects of the
program's own classes inside the sandbox. Runs on both sides; standard library alone."""

from collections.abc import Callable
from typing import Any

KINDS = ("TreeNode", "ListNode")


class Nodes:
    """A linked list or a binary tree by its values, as LeetCode writes them.

    A `ListNode` lists the values in order. A `TreeNode` lists them level by level, None for a child
    that is not there; children of an absent node are not listed, nor is what follows the last node.
    The empty structure is None, not a `Nodes`. `repr` is the form that tests are written in:
    `TreeNode([1, None, 2])`.
    """

    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("kind", "values")

    def __init__(self, kind: str, values: list[Any]) -> None:
        self.kind = kind
        self.values = values

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Nodes):
            return NotImplemented
        return self.kind == other.kind and self.values == other.values

    def __repr__(self) -> str:
        return f"{self.kind}({self.values!r})"


class ListNode:
    """LeetCode's own definition, for programs that are handed nodes and define no class."""

    def __init__(self, val: Any = 0, next: Any = None) -> None:
        self.val = val
        self.next = next


class TreeNode:
    """As `ListNode`."""

    def __init__(self, val: Any = 0, left: Any = None, right: Any = None) -> None:
        self.val = val
        self.left = left
        self.right = right


def of_values(kind: str, values: list[Any]) -> Nodes | None:
    """The structure that a list of values means; values that belong to no node are dropped."""
    if kind == "ListNode":
        return Nodes(kind, list(values)) if values else None
    return Nodes(kind, _reachable(values)) if values and values[0] is not None else None


def of_object(root: Any, kind: str) -> Nodes:
    """The structure that hangs on a program's own node.

    Raises TypeError where a node is met twice, AttributeError for a node that is none.
    """
    values: list[Any] = []
    waiting = [root]
    met: set[int] = set()
    for node in waiting:  # grows as it is walked
        if node is None:
            values.append(None)
            continue
        if id(node) in met:
            raise TypeError(f"a {kind} that is met twice is no plain data")
        met.add(id(node))
        values.append(node.val)
        if kind == "TreeNode":
            waiting += (node.left, node.right)
        elif node.next is not None:
            waiting.append(node.next)
    return Nodes(kind, _reachable(values) if kind == "TreeNode" else values)


def to_objects(value: Any, class_of: Callable[[str], type]) -> Any:
    """`value` with every `Nodes` in it built from the class that `class_of` gives for its kind."""
    if isinstance(value, Nodes):
        return _build(value, class_of(value.kind))
    if isinstance(value, list):
        return [to_objects(item, class_of) for item in value]
    if isinstance(value, tuple):
        return tuple(to_objects(item, class_of) for item in value)
    if isinstance(value, dict):
        return {key: to_objects(item, class_of) for key, item in value.items()}
    return value


def _build(nodes: Nodes, node_class: type) -> Any:
    if nodes.kind == "ListNode":
        head = None
        for value in reversed(nodes.values):
            node = node_class(value)
            node.next, head = head, node
        return head
    made = [None if value is None else node_class(value) for value in nodes.values]
    parents = [node for node in made if node is not None]
    for node in parents:
        node.left = node.right = None
    for position, node in enumerate(made[1:]):
        setattr(parents[position // 2], "right" if position % 2 else "left", node)
    return made[0]


def _reachable(values: list[Any]) -> list[Any]:
    """The level order up to its last node: child number i is that of node number i // 2."""
    nodes = end = 1
    for position, value in enumerate(values[1:]):
        if position // 2 >= nodes:
            break
        if value is not None:
            nodes += 1
            end = position + 2
    return values[:end]
