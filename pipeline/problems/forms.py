"""Which form a file of problems is in: the one whose fields its first row has."""

import json
from collections.abc import Sequence
from importlib import import_module
from typing import get_args

from pipeline.config import FileProblems
from pipeline.problems.reading import NoProblems
from pipeline.problems.rows import ProblemRow
from pipeline.problems.sources import problem_files
from pipeline.row_files import lines

FORMS: tuple[str, ...] = get_args(FileProblems.model_fields["kind"].annotation)
"""Forms that a run can take."""

STATEMENTS = "eval_all"
"""The form of recorded candidates: problems without tests."""


class UnknownForm(ValueError):
    """A file is in none of the forms that are known."""


def row_form(name: str) -> type[ProblemRow]:
    return import_module(f"pipeline.problems.{name}").Row


def detect_form(paths: Sequence[str]) -> str:
    """The form whose required fields are nearly all in the first row of the files, so that a row
    that lacks one is still told as a bad row of its form.

    Raises UnknownForm, NoProblems for files without a row, and OSError for one that cannot be read.
    """
    first = next(lines(problem_files(paths)), None)
    if first is None:
        raise NoProblems(f"{', '.join(paths)}: empty; give files with at least one problem")
    path, number, line = first
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise UnknownForm(f"{path}, row {number}: {_told(line)}")
    shares = {name: _share(row_form(name), set(row)) for name in (*FORMS, STATEMENTS)}
    best = max(shares, key=lambda name: shares[name])
    if shares[best] < 0.6:
        raise UnknownForm(
            f"{path}, row {number}: in none of the forms {', '.join(shares)}; name one with "
            "--format to see what its rows lack"
        )
    return best


def _told(line: bytes) -> str:
    """What is wrong with a first row that is no JSON object."""
    wanted = "problems are JSON lines, one object per line"
    if line.lstrip().startswith(b"["):
        return f"a JSON list begins here; {wanted}: `jq -c '.[]' FILE` makes them of a list"
    if line.lstrip().startswith(b"{"):
        return f"not a whole JSON object; {wanted}: `jq -c . FILE` makes them of indented JSON"
    return f"no JSON object; {wanted}"


def _share(form: type[ProblemRow], there: set[str]) -> float:
    required = {name for name, field in form.model_fields.items() if field.is_required()}
    return len(required & there) / len(required)
