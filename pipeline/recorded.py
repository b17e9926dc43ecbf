"""Recorded programs: JSON lines with a problem's id, `code` and perhaps a `program_id`.

    {"problem_id": "sum-2", "code": "def add(a, b): return a + b", "program_id": "model-7/0"}

The problem is named by `problem_id`, or as its own benchmark names it: `task_id` (LeetCodeDataset,
HumanEval) or `question_id` (LiveCodeBench). A program without an id (or with null) takes the
next number, from 0, that no program of its problem has. Other fields are ignored.
"""

import itertools
import json
import reprlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from pipeline.bad_rows import BadRow
from pipeline.problems.rows import FieldError
from pipeline.row_files import lines

_LISTED = 20
_ID_FIELDS = {
    "jsonl": ("problem_id",),
    "livecodebench": ("problem_id", "question_id"),
    "leetcode": ("problem_id", "task_id"),  # its question_id is LeetCode's own number
    "humaneval": ("problem_id", "task_id"),
}


@dataclass(frozen=True, slots=True)
class RecordedProgram:
    """`program_id` is unique within its problem. `code` is empty where there is no program."""

    problem_id: str
    program_id: str
    code: str


class BadPrograms(ValueError):
    """Rows that are no programs of the problems at hand; `rows` lists all of them."""

    def __init__(self, rows: Sequence[BadRow]) -> None:
        self.rows = tuple(rows)
        told = [f"{len(rows)} {'row' if len(rows) == 1 else 'rows'} cannot be read as programs"]
        told += [f"  {row}" for row in rows[:_LISTED]]
        if len(rows) > _LISTED:
            told.append(f"  and {len(rows) - _LISTED:,} more")
        super().__init__("\n".join(told))


def read_programs(path: str, form: str, problem_ids: Collection[str]) -> list[RecordedProgram]:
    """The programs of a file, plain or compressed, sorted by problem and in the file's order.

    `form` is that of the problems. Raises BadPrograms, listing every row that cannot be read by
    file, row and field, and OSError for a file that cannot be read or holds none.
    """
    read: list[tuple[str, str | None, str]] = []
    first_row: dict[tuple[str, str], int] = {}  # of the ids that are given
    bad: list[BadRow] = []
    for _, number, line in lines([path]):
        try:
            row = _object(line)
            problem_id = _problem_id(row, form)
            if problem_id not in problem_ids:
                raise FieldError(
                    "id",
                    f"no problem {reprlib.repr(problem_id)} is among the {len(problem_ids):,} at "
                    "hand",
                )
            given = row.get("program_id")
            program_id = None if given is None else _text(row, "program_id")
            read.append((problem_id, program_id, _text(row, "code")))
            if program_id is None:
                continue
            first = first_row.setdefault((problem_id, program_id), number)
            if first != number:
                raise FieldError(
                    "program_id",
                    f"{reprlib.repr(program_id)} of {problem_id!r} was already in row {first}",
                )
        except FieldError as error:
            bad.append(BadRow(path, number, error.field, error.reason))
    if bad:
        raise BadPrograms(bad)
    if not read:
        raise OSError(f"{path}: holds no programs")
    numbers: defaultdict[str, Iterator[str]] = defaultdict(lambda: map(str, itertools.count()))
    programs: list[RecordedProgram] = []
    for problem_id, program_id, code in read:
        if program_id is None:
            free = (n for n in numbers[problem_id] if (problem_id, n) not in first_row)
            program_id = next(free)
        programs.append(RecordedProgram(problem_id, program_id, code))
    return sorted(programs, key=lambda program: program.problem_id)


def _object(line: bytes) -> dict[str, object]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FieldError("row", f"no JSON: {error}") from None
    if not isinstance(row, dict):
        raise FieldError("row", "a JSON object is wanted")
    return row


def _problem_id(row: dict[str, object], form: str) -> str:
    for field in _ID_FIELDS[form]:
        if field in row:
            return _text(row, field)
    raise FieldError(" or ".join(_ID_FIELDS[form]), "missing: it names the program's problem")


def _text(row: dict[str, object], field: str) -> str:
    value = row.get(field)
    if value is None:
        raise FieldError(field, "missing")
    if not isinstance(value, str):
        raise FieldError(field, f"a text is wanted, not {reprlib.repr(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise FieldError(field, f"no Unicode text: {error.reason}") from None
    return value
