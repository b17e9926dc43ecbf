"""Runs programs of the catalogue, which this project wrote itself, in the test's own process."""

import contextlib
import io

from sandbox.protocol import TestCase


def passes(code: str, tests: tuple[TestCase, ...]) -> bool:
    """Whether the program prints what each test expects; a program that raises does not."""
    compiled = compile(code, "<catalogue>", "exec")
    return all(_output(compiled, test.stdin or "") == test.expected for test in tests)


def _output(compiled, stdin: str) -> str | None:
    lines = iter(stdin.splitlines())
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            exec(compiled, {"input": lambda: next(lines)})
    except (NameError, TypeError):
        return None
    return out.getvalue()
