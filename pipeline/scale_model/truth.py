"""The truth about a prefix: can the program still become right?

A prefix is right if the program passes its tests once every function that the prefix calls but does
not define is the reference one. The problem's statement says which that is; a call of a function
that no reference program of the problem has is left dangling, and so makes the prefix wrong.
"""

import ast
from collections.abc import Sequence

from pipeline.functions import parse, prefix
from pipeline.records import Problem, Step
from pipeline.scale_model.spec import MAIN_CALL, read_statement, write_helper


def complete_with_reference(
    problem: Problem, code: str, steps: Sequence[Step], step_index: int
) -> str:
    """The program to judge: the prefix `code[: steps[step_index].end]` (bytes), the reference
    helpers that it calls but does not define, and the call of `main()`.

    The last step's prefix is the finished program and comes back as it is. Raises StatementError
    where the problem is not one of the scale model's.
    """
    if step_index + 1 == len(steps):
        return code
    text = prefix(code, steps[step_index])
    helpers = {
        str(call.operation.kind): write_helper(call.operation.kind, call.expression)
        for call in read_statement(problem.statement).calls
    }
    missing = [helpers[name] for name in _called_but_undefined(text) if name in helpers]
    return text + "".join(missing) + MAIN_CALL


def _called_but_undefined(code: str) -> list[str]:
    """Names that the code calls but does not define, sorted; none where it does not parse."""
    tree = parse(code)
    if tree is None:
        return []  # it will not run either
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    return sorted(called - defined)
