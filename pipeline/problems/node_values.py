"""LeetCode writes a binary tree or a linked list as the JSON list of its values; which lists are
meant so is said by the annotations of the starter code alone:

    def mergeKLists(self, lists: List[Optional[ListNode]]) -> Optional[ListNode]:
"""

import ast
from dataclasses import dataclass
from typing import Any

from pipeline.functions import parse
from sandbox.nodes import KINDS, of_values


@dataclass(frozen=True, slots=True)
class Signature:
    """The annotations of an entry point; None where there is none."""

    parameters: dict[str, ast.expr | None]
    result: ast.expr | None

    @property
    def has_nodes(self) -> bool:
        return any(map(_mentions_nodes, (*self.parameters.values(), self.result)))

    def arguments(self, args: list[Any]) -> list[Any]:
        """`args` with every list that stands for nodes made `Nodes`. Raises ValueError."""
        annotations = (*self.parameters.values(), *([None] * len(args)))
        return [
            as_nodes(value, annotation)
            for value, annotation in zip(args, annotations, strict=False)
        ]

    def keywords(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        return {name: as_nodes(value, self.parameters.get(name)) for name, value in kwargs.items()}

    def returned(self, value: Any) -> Any:
        return as_nodes(value, self.result)


def signature(starter_code: str, entry_point: str) -> Signature:
    """Of the function or method in the starter code, whose body may be missing."""
    name = entry_point.rpartition(".")[2]
    tree = parse(starter_code) or parse(starter_code.rstrip() + " pass\n")
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.FunctionDef) and node.name == name:
            parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            if "." in entry_point:
                parameters = parameters[1:]  # self
            return Signature({each.arg: each.annotation for each in parameters}, node.returns)
    return Signature({}, None)


def as_nodes(value: Any, annotation: ast.expr | None) -> Any:
    """`value` as nodes where its annotation says so. Raises ValueError for one that is no list."""
    match annotation:
        case ast.Constant(value=str(text)) if (quoted := parse(text)) and quoted.body:
            return as_nodes(value, getattr(quoted.body[0], "value", None))
        case ast.Name(id=kind) | ast.Attribute(attr=kind) if kind in KINDS:
            if value is None:
                return None
            if not isinstance(value, list):
                raise ValueError(f"a {kind} is written as the list of its values, not {value!r}")
            return of_values(kind, value)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return as_nodes(value, next(filter(_mentions_nodes, (left, right)), None))
        case ast.Subscript(value=outer, slice=inner) if _mentions_nodes(inner):
            if _name(outer) in ("Optional", "Union"):
                arms = inner.elts if isinstance(inner, ast.Tuple) else [inner]
                return as_nodes(value, next(filter(_mentions_nodes, arms)))
            if _name(outer) in ("List", "list", "Sequence") and isinstance(value, list):
                return [as_nodes(item, inner) for item in value]
    return value


def _mentions_nodes(annotation: ast.expr | None) -> bool:
    return annotation is not None and any(kind in ast.unparse(annotation) for kind in KINDS)


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
