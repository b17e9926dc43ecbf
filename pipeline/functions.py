"""A program as a chain of function steps (DreamPRM-Code: a function is a reasoning step).

Steps are the top-level functions and the methods of top-level classes, in source order. A step
begins where the one before it ends: decorators, comments, imports and module code belong to the
function below them, and what follows the last function (`main()`) belongs to the last step. So the
steps concatenate to the program, byte for byte, and every prefix ends right after a whole function.
"""

import ast
import bisect
import re
import warnings
from contextlib import suppress
from dataclasses import dataclass

from pipeline.records import Step, content_hash

MODULE = "<module>"  # a program without functions
UNPARSED = "<unparsed>"  # the rest of a program after the last function that parses

# Where a head of an unparsable program may end: before an unindented statement, or before what may
# be a method. Comments are left out, they belong to what follows.
_CUT = re.compile(rb"^(?:[^\s#)\]}]|[ \t]+(?:def\b|async\b|@))", re.MULTILINE)
# CPython 3.11 counts depth for all threads together. Where two parse at once, it may raise
# SystemError ("recursion depth mismatch"), which has nothing to do with the text.
_TRIES = 5
_MAX_CUTS = 32  # bounds the time spent on hostile text; real programs take one to three


def split_steps(code: str, solution_id: str = "") -> list[Step]:
    """The function steps of `code`, with byte offsets in its UTF-8 form.

    Total: text that does not parse is split at the functions that do, what is left is one more step
    named `<unparsed>`; empty text has no steps. Never raises, lone surrogates (encoded as by
    `surrogatepass`) and NUL bytes included. Methods are named `Class.method`.
    """
    source = encode(code)
    if not source:
        return []
    functions, complete = _functions(source)
    if complete:
        # Trailing code belongs to the last function.
        functions[-1:] = [_Function(functions[-1].name if functions else MODULE, len(source))]
    elif not functions or functions[-1].end < len(source):
        functions.append(_Function(UNPARSED, len(source)))
    starts = [0, *(function.end for function in functions)]
    return [
        Step(
            step_id=content_hash(solution_id, index, function.end),
            solution_id=solution_id,
            step_index=index,
            name=function.name,
            start=start,
            end=function.end,
        )
        for index, (function, start) in enumerate(zip(functions, starts, strict=False))
    ]


def prefix(code: str, step: Step) -> str:
    """`code` up to the end of `step`, verbatim."""
    return encode(code)[: step.end].decode("utf-8", "surrogatepass")


def parse(source: str | bytes) -> ast.Module | None:
    """The syntax tree of a program; None where the text is none, or too deep for the parser."""
    tree = _parse(encode(source) if isinstance(source, str) else source)
    return tree if isinstance(tree, ast.Module) else None


def encode(code: str) -> bytes:
    """The bytes that offsets of steps count."""
    return code.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class _Function:
    name: str
    end: int  # byte offset just after the function's last line


def _functions(source: bytes) -> tuple[list[_Function], bool]:
    """The functions of the longest head of `source` that parses, and whether that is all of it."""
    tree = _parse(source)
    if isinstance(tree, ast.Module):
        return _ends(tree, source), True
    cuts = [match.start() for match in _CUT.finditer(source)]
    for _ in range(_MAX_CUTS):
        # What the parser has refused, it refuses in every longer head.
        last = bisect.bisect_right(cuts, tree) - 1 if isinstance(tree, int) else len(cuts) - 1
        if last < 0:
            break
        head = source[: cuts[last]]
        tree = _parse(head)
        if isinstance(tree, ast.Module) and _continues_at(tree, _indent(source, cuts[last])):
            return _ends(tree, head), False
        del cuts[last:]
    return [], False


def _parse(source: bytes) -> ast.Module | int | None:
    """The syntax tree; or where the line of the first error starts, in bytes; or None where the
    parser does not say, because the text is too deep for it."""
    try:
        # Parsed as text: in bytes a coding cookie would change what the offsets count.
        text = source.decode("utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a program's own invalid escapes
            for _ in range(_TRIES):
                with suppress(SystemError):
                    return ast.parse(text)
            return None
    except UnicodeDecodeError as error:
        return error.start
    except (SyntaxError, ValueError) as error:
        if b"\0" in source:  # by which the parser means different errors in different versions
            return source.index(b"\0")
        if not isinstance(error, SyntaxError) or error.lineno is None:
            return None
        return sum(map(len, source.splitlines(keepends=True)[: error.lineno - 1]))
    except (RecursionError, MemoryError):
        return None


def _continues_at(tree: ast.Module, indent: int) -> bool:
    """Whether a statement at this indentation leaves the last function of `tree` finished: it is at
    module level, or on a level with the members of the last class."""
    if indent == 0:
        return True
    last = tree.body[-1] if tree.body else None
    return isinstance(last, ast.ClassDef) and last.body[0].col_offset == indent


def _indent(source: bytes, line_start: int) -> int:
    line = source[line_start:].split(b"\n", 1)[0]
    return len(line) - len(line.lstrip())


def _ends(tree: ast.Module, source: bytes) -> list[_Function]:
    lines = source.splitlines(keepends=True)
    line_ends = [0]
    for line in lines:
        line_ends.append(line_ends[-1] + len(line))
    functions: list[_Function] = []
    for name, node in _named(tree):
        number, column = node.end_lineno or 0, node.end_col_offset or 0
        rest = lines[number - 1][column:]
        # A backslash after the last expression joins the next line to the function.
        while number < len(lines) and b"#" not in rest and rest.rstrip().endswith(b"\\"):
            rest = lines[number]
            number += 1
        functions.append(_Function(name, line_ends[number]))
    return functions


def _named(tree: ast.Module) -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    named = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            named.append((node.name, node))
        elif isinstance(node, ast.ClassDef):
            named.extend(
                (f"{node.name}.{member.name}", member)
                for member in node.body
                if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef)
            )
    return named
