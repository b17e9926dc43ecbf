"""Which form files of problems are in: the one whose fields their first rows have."""

import json
from collections.abc import Mapping, Sequence, Set
from importlib import import_module
from typing import Any, get_args

from pipeline.config import FileProblems
from pipeline.problems.reading import NoProblems
from pipeline.problems.rows import ProblemRow
from pipeline.problems.sources import problem_files
from pipeline.row_files import lines

FORMS: tuple[str, ...] = get_args(FileProblems.model_fields["kind"].annotation)
"""Forms that a run can take."""

STATEMENTS = "eval_all"
"""The form of recorded candidates: problems without tests."""

_ALL = (*FORMS, STATEMENTS)
_NEARLY_ALL = 0.6


class UnknownForm(ValueError):
    """A file is in none of the forms that are known."""


def row_form(name: str) -> type[ProblemRow]:
    return import_module(f"pipeline.problems.{name}").Row


def detect_form(paths: Sequence[str]) -> str:
    """The form whose required fields are nearly all in the first row of the files, so that a row
    that lacks one is still told as a bad row of its form.

    Raises UnknownForm, also where two files are in different forms, NoProblems for files without a
    row, and OSError for one that cannot be read.
    """
    firsts = (first for file in problem_files(paths) if (first := next(lines([file]), None)))
    if (opening := next(firsts, None)) is None:
        raise NoProblems(f"{', '.join(paths)}: empty; give files with at least one problem")
    path, number, line = opening
    if (row := _object(line)) is None:
        raise UnknownForm(f"{path}, row {number}: {_told(line)}")
    if (form := _form(row)) is None:
        raise UnknownForm(
            f"{path}, row {number}: in none of the forms {', '.join(_ALL)}; name one with "
            "--format to see what its rows lack"
        )
    for other, _, line in firsts:
        # A first row of no form at all is a bad row among others, told or skipped as such.
        if (row := _object(line)) is not None and _form(row) not in (form, None):
            raise UnknownForm(
                f"{other} is in the form {_form(row)}, {path} in the form {form}: give files of "
                "one form at a time"
            )
    return form


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _form(row: Mapping[str, Any]) -> str | None:
    shares = {name: _share(row_form(name), row.keys()) for name in _ALL}
    best = max(shares, key=lambda name: shares[name])
    return best if shares[best] >= _NEARLY_ALL else None


def _told(line: bytes) -> str:
    """What is wrong with a first row that is no JSON object."""
    wanted = "problems are JSON lines, one object per line"
    if line.lstrip().startswith(b"["):
        return f"a JSON list begins here; {wanted}: `jq -c '.[]' FILE` makes them of a list"
    if line.lstrip().startswith(b"{"):
        return f"not a whole JSON object; {wanted}: `jq -c . FILE` makes them of indented JSON"
    return f"no JSON object; {wanted}"


def _share(form: type[ProblemRow], there: Set[str]) -> float:
    required = {name for name, field in form.model_fields.items() if field.is_required()}
    return len(required & there) / len(required)
