"""Assert scripts to tests.

LeetCodeDataset and HumanEval keep their tests as a function `check(candidate)`. A statement of it
that asserts that a call of `candidate` with literal arguments equals a literal is the same as a
call-based test, whose outcome is decided outside the process of the judged program (and by the
chosen comparator: `lcb` takes a tuple for a list, where `==` in the script would not). What is left
(loops, tolerances, helper functions) stays the script that it is: a test of the weaker kind, see
`TestCase.script`.
"""

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.functions import parse
from sandbox.checks import parse_literal
from sandbox.nodes import Nodes, of_values
from sandbox.protocol import TestCase

_CANDIDATE = "candidate"
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_NODE_KINDS = {"tree_node": "TreeNode", "list_node": "ListNode"}  # LeetCodeDataset's constructors
# What `repr` writes for values that no literal has: nan, infinity in a set or dict, `...`. The rest
# need not be parsed again; the words may be part of a text.
_UNREADABLE = re.compile("nan|inf|Ellipsis")
_SAME_NODES = ("is_same_tree", "is_same_list")  # and its comparisons


class NoCheck(ValueError):
    """The text is no assert script."""


class _NotLiteral(ValueError):
    """A statement that means more than a call-based test can say."""


def assert_tests(script: str, entry_point: str) -> tuple[TestCase, ...]:
    """The tests of `check(candidate)` in `script`, in order.

    `assert candidate(x)` and `assert not candidate(x)` expect True and False, as the statements of
    these benchmarks ask for (the assert alone would take any true value). Statements that cannot
    fail, such as `assert True`, are no tests. If anything else is in the script, the whole of it,
    called with the entry point, is the last test; the literal asserts before the first statement
    that is no assert (it may give their names another meaning) still are tests of their own.

    Raises NoCheck for a text without such a function.
    """
    tree = parse(script)
    if tree is None:
        raise NoCheck("the script does not parse")
    checks = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "check"]
    if len(checks) != 1:
        raise NoCheck("the script has no function check(candidate)")
    tests: list[TestCase] = []
    is_literal = not any(map(_may_fail, tree.body))
    for statement in checks[0].body:
        try:
            if (test := _test(statement)) is not None:
                tests.append(test)
        except _NotLiteral:
            is_literal = False
            if not isinstance(statement, ast.Assert):
                break
    if not is_literal:
        call = f"\n\ncheck({entry_point})\n"
        tests.append(TestCase(expected="", script=script.strip("\n") + call))
    return tuple(tests)


def _may_fail(statement: ast.stmt) -> bool:
    """Whether a statement beside `check` is more than a name for it to use."""
    return not isinstance(
        statement, ast.FunctionDef | ast.Import | ast.ImportFrom | ast.Assign
    ) and not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))


def _test(statement: ast.stmt) -> TestCase | None:
    match statement:
        case (
            ast.Pass()
            | ast.Expr(value=ast.Constant() | ast.Name())
            | ast.Assert(test=ast.Constant(value=True))
        ):
            return None
        case ast.Assert(
            test=ast.Compare(left=ast.Call() as call, ops=[ast.Eq()], comparators=[expected])
        ):
            return _case(call, expected)
        case ast.Assert(
            test=ast.Compare(
                left=ast.Call() as call,
                ops=[ast.Is()],
                comparators=[ast.Constant(value=True | False | None) as expected],
            )
        ):
            return _case(call, expected)
        case ast.Assert(
            test=ast.Call(func=ast.Name(id=same), args=[ast.Call() as call, expected])
        ) if same in _SAME_NODES:
            return _case(call, expected, nodes_expected=True)
        case ast.Assert(test=ast.Call() as call):
            return _case(call, ast.Constant(True))
        case ast.Assert(test=ast.UnaryOp(op=ast.Not(), operand=ast.Call() as call)):
            return _case(call, ast.Constant(False))
        case _:
            raise _NotLiteral


def _case(call: ast.Call, expected: ast.expr, *, nodes_expected: bool = False) -> TestCase:
    if not isinstance(call.func, ast.Name) or call.func.id != _CANDIDATE:
        raise _NotLiteral
    if isinstance(expected, ast.Call) and not nodes_expected:
        raise _NotLiteral  # compared by `==`, two nodes are never the same
    try:
        args = [_literal(argument) for argument in call.args]
        kwargs = [(keyword.arg, _literal(keyword.value)) for keyword in call.keywords]
        result = _literal(expected)
    except (ValueError, TypeError, ArithmeticError, RecursionError):
        raise _NotLiteral from None
    if any(name is None for name, _ in kwargs):
        raise _NotLiteral
    return TestCase(
        expected=result,
        args=f"[{', '.join(args)}]" if args or not kwargs else None,
        kwargs=f"{{{', '.join(f'{name!r}: {value}' for name, value in kwargs)}}}"
        if kwargs
        else None,
    )


def _literal(node: ast.expr) -> str:
    """A literal with the value of `node`, as the judge reads them. Raises ValueError where it has
    none."""
    try:
        value = ast.literal_eval(node)
        text = repr(value)
    except ValueError:
        value = _value(node)
        text = _text(value)
    if _UNREADABLE.search(text):
        text = _text(value)
        parse_literal(text)
    return text


def _value(node: ast.expr) -> Any:
    """Literals, arithmetic on them, `inf`, and nodes: all that test scripts write."""
    match node:
        case ast.Name(id="inf"):
            return math.inf
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            one, other = _value(left), _value(right)
            if _is_small(op, one, other):
                return _ARITHMETIC[type(op)](one, other)
        case ast.Call(func=ast.Name(id=name), args=[ast.List(elts=items)], keywords=[]) if (
            name in _NODE_KINDS
        ):
            return of_values(_NODE_KINDS[name], [_value(item) for item in items])
        case ast.Tuple(elts=items):
            return tuple(_value(item) for item in items)
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case _:
            return ast.literal_eval(node)
    raise ValueError


def _is_small(op: ast.operator, left: Any, right: Any) -> bool:
    """Whether the result cannot be much larger than its operands: a file must not be able to fill
    the memory with `10 ** 10 ** 10`, `'a' * 10 ** 10` or `'%10000000000d' % 1`."""
    if isinstance(op, ast.Add):
        return True
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    return numbers and (not isinstance(op, ast.Pow) or (abs(left) < 2**64 and abs(right) <= 64))


def _text(value: Any) -> str:
    """`repr`, with infinity as a literal that overflows to it."""
    if isinstance(value, float) and math.isinf(value):
        return "1e999" if value > 0 else "-1e999"
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, tuple):
        return f"({''.join(f'{_text(item)}, ' for item in value)})"
    if isinstance(value, Nodes):
        return f"{value.kind}({_text(value.values)})"
    return repr(value)
