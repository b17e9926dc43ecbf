"""Recorded programs: JSON lines with a problem's id, `code` and perhaps a `program_id`.

    {"problem_id": "sum-2", "code": "def add(a, b): return a + b", "program_id": "model-7/0"}

The problem is named by `problem_id`, or as its own benchmark names it: `task_id` (LeetCodeDataset,
HumanEval) or `question_id` (LiveCodeBench). A program without an id takes its number among those
of its problem, from 0. Other fields are ignored.
"""

import json
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import fsspec

from pipeline.problems.rows import BadRow, FieldError

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
        lines = [f"{len(rows)} {'row' if len(rows) == 1 else 'rows'} cannot be read as programs"]
        lines += [f"  {row}" for row in rows[:_LISTED]]
        if len(rows) > _LISTED:
            lines.append(f"  and {len(rows) - _LISTED} more")
        super().__init__("\n".join(lines))


def read_programs(path: str, form: str, problem_ids: Collection[str]) -> list[RecordedProgram]:
    """The programs of a file, plain or compressed, sorted by problem and in the file's order.

    `form` is that of the problems. Raises BadPrograms, listing every row that cannot be read by
    file, row and field, and OSError for a file that cannot be read or holds none.
    """
    read: dict[tuple[str, str], tuple[int, RecordedProgram]] = {}
    bad: list[BadRow] = []
    of_problem: Counter[str] = Counter()
    for number, line in _lines(path):
        try:
            row = _object(line)
            problem_id = _problem_id(row, form)
            if problem_id not in problem_ids:
                raise FieldError(
                    "id", f"no problem {problem_id!r} is among the {len(problem_ids):,} at hand"
                )
            program_id = _text(row, "program_id", str(of_problem[problem_id]))
            of_problem[problem_id] += 1
            program = RecordedProgram(problem_id, program_id, _text(row, "code"))
            first, _ = read.setdefault((problem_id, program_id), (number, program))
            if first != number:
                raise FieldError(
                    "program_id", f"{program_id!r} of {problem_id!r} was already in row {first}"
                )
        except FieldError as error:
            bad.append(BadRow(path, number, error.field, error.reason))
    if bad:
        raise BadPrograms(bad)
    if not read:
        raise OSError(f"{path}: holds no programs")
    programs = [program for _, program in read.values()]
    return sorted(programs, key=lambda program: program.problem_id)


def _lines(path: str) -> Iterator[tuple[int, bytes]]:
    try:
        with fsspec.open(path, "rb", compression="infer") as file:
            for number, line in enumerate(file, start=1):  # pyright: ignore[reportArgumentType]
                if line.strip():
                    yield number, line
    except (EOFError, zlib.error) as error:
        raise OSError(f"{path}: the compressed file is cut off or damaged: {error}") from error


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


def _text(row: dict[str, object], field: str, default: str | None = None) -> str:
    value = row.get(field, default)
    if value is None:
        raise FieldError(field, "missing")
    if not isinstance(value, str):
        raise FieldError(field, f"a text is wanted, not {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise FieldError(field, f"no Unicode text: {error.reason}") from None
    return value
