"""Assert scripts to call-based tests.

LeetCodeDataset and HumanEval keep their tests as a function `check(candidate)`. Where each of its
statements asserts that a call of `candidate` with literal arguments equals a literal, the script is
the same as a list of tests, and their outcome is decided outside the process of the judged program.
"""

import ast
import math
import operator
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.functions import parse
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


class NotLiteral(ValueError):
    """A statement that is no literal test; the message shows it."""


def literal_tests(script: str) -> tuple[TestCase, ...]:
    """The tests of `check(candidate)` in `script`, in order.

    `assert candidate(x)` and `assert not candidate(x)` expect True and False. Statements that
    cannot fail, such as `assert True`, are no tests. Raises NotLiteral for anything else: with a
    test left out, wrong programs would pass.
    """
    tree = parse(script)
    if tree is None:
        raise NotLiteral("the script does not parse")
    checks = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "check"]
    if len(checks) != 1:
        raise NotLiteral("the script has no function check(candidate)")
    tests = (_test(statement) for statement in checks[0].body)
    return tuple(test for test in tests if test is not None)


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
            return _case(statement, call, expected)
        case ast.Assert(
            test=ast.Compare(
                left=ast.Call() as call,
                ops=[ast.Is()],
                comparators=[ast.Constant(value=True | False | None) as expected],
            )
        ):
            return _case(statement, call, expected)
        case ast.Assert(test=ast.Call() as call):
            return _case(statement, call, ast.Constant(True))
        case ast.Assert(test=ast.UnaryOp(op=ast.Not(), operand=ast.Call() as call)):
            return _case(statement, call, ast.Constant(False))
    raise _not_literal(statement)


def _case(statement: ast.stmt, call: ast.Call, expected: ast.expr) -> TestCase:
    if not isinstance(call.func, ast.Name) or call.func.id != _CANDIDATE:
        raise _not_literal(statement)
    try:
        args = [_literal(argument) for argument in call.args]
        kwargs = [(keyword.arg, _literal(keyword.value)) for keyword in call.keywords]
        if any(name is None for name, _ in kwargs):
            raise _not_literal(statement)
        return TestCase(
            expected=_literal(expected),
            args=f"[{', '.join(args)}]" if args or not kwargs else None,
            kwargs=f"{{{', '.join(f'{name!r}: {value}' for name, value in kwargs)}}}"
            if kwargs
            else None,
        )
    except (ValueError, TypeError, ArithmeticError, RecursionError):
        raise _not_literal(statement) from None


def _literal(node: ast.expr) -> str:
    """A Python literal with the value of `node`. Raises ValueError where it has none."""
    try:
        return repr(ast.literal_eval(node))
    except ValueError:
        return _text(_value(node))


def _value(node: ast.expr) -> Any:
    """Literals, arithmetic on them and `inf`, which test scripts write as well."""
    match node:
        case ast.Name(id="inf"):
            return math.inf
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            one, other = _value(left), _value(right)
            if _is_small(op, one, other):
                return _ARITHMETIC[type(op)](one, other)
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
    return repr(value)


def _not_literal(statement: ast.stmt) -> NotLiteral:
    shown = textwrap.shorten(ast.unparse(statement), 160, placeholder=" ...")
    return NotLiteral(f"cannot be judged outside the program's own process: {shown}")
