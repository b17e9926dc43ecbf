"""Rows of JSON-lines files to problems, and every bad row said: file, row, field, reason."""

import datetime
import logging
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import fsspec
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from pipeline.config import FileProblems
from pipeline.records import Problem
from sandbox.protocol import Comparator

_LISTED = 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BadRow:
    file: str
    row: int  # from 1
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}, {self.field}: {self.reason}"


class BadRows(ValueError):
    """Rows that are no problems; `rows` lists all of them."""

    def __init__(self, rows: Sequence[BadRow]) -> None:
        self.rows = tuple(rows)
        super().__init__(
            f"{_listing(self.rows)}\nmend them, or leave them out with problems.skip_bad_rows: true"
        )


def _listing(rows: Sequence[BadRow]) -> str:
    count = len({(row.file, row.row) for row in rows})
    lines = [f"{count} {'row' if count == 1 else 'rows'} cannot be read as problems"]
    lines += [f"  {row}" for row in rows[:_LISTED]]
    if len(rows) > _LISTED:
        lines.append(f"  and {len(rows) - _LISTED} more")
    return "\n".join(lines)


class NoProblems(ValueError):
    """There is nothing to work on."""


class FieldError(Exception):
    """A field of a row that makes no sense; becomes a BadRow."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a problem takes where its row says nothing."""

    time_limit_s: float
    comparator: Comparator


class ProblemRow(BaseModel):
    """One row of a benchmark's file; the subclass says which fields it has."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    @abstractmethod
    def problem(self, defaults: Defaults) -> Problem:
        """Raises FieldError."""

    def canonical_program(self) -> str | None:
        """A program that is known to be right, where the benchmark has one."""
        return None


@dataclass(frozen=True, slots=True)
class Read:
    """A problem, its canonical program, and where both were read."""

    problem: Problem
    canonical: str | None
    place: str


def read_problems(config: FileProblems, form: type[ProblemRow]) -> list[Read]:
    """The problems of all files, by id.

    Raises BadRows (with `skip_bad_rows` they are left out and logged), NoProblems, and OSError for
    a file that cannot be read.
    """
    defaults = Defaults(config.time_limit_s, config.comparator)
    read: dict[str, Read] = {}
    bad: list[BadRow] = []
    for path, number, line in _lines(config.paths):
        try:
            row = form.model_validate_json(line)
            problem = row.problem(defaults)
            if not problem.tests:
                raise FieldError("tests", "a problem needs at least one test")
            if first := read.get(problem.problem_id):
                raise FieldError("id", f"{problem.problem_id!r} was already in {first.place}")
        except ValidationError as error:
            bad.extend(BadRow(path, number, *_place(each)) for each in error.errors())
        except FieldError as error:
            bad.append(BadRow(path, number, error.field, error.reason))
        else:
            place = f"{path}, row {number}"
            read[problem.problem_id] = Read(problem, row.canonical_program(), place)
    if bad and not config.skip_bad_rows:
        raise BadRows(bad)
    if bad:
        _log.warning("left out: %s", _listing(bad))
    if not read:
        raise NoProblems(f"no problem in {', '.join(config.paths)}: give files with at least one")
    return [read[problem_id] for problem_id in sorted(read)][: config.limit]


def read_date(field: str, text: str) -> datetime.date:
    """The day of an ISO 8601 date or time. Raises FieldError."""
    try:
        return datetime.datetime.fromisoformat(text).date()
    except ValueError:
        raise FieldError(field, f"{text!r} is no date such as 2024-08-01") from None


def _lines(paths: Sequence[str]) -> Iterator[tuple[str, int, bytes]]:
    for path in paths:
        try:
            with fsspec.open(path, "rb", compression="infer") as file:
                for number, line in enumerate(file, start=1):  # pyright: ignore[reportArgumentType]
                    if line.strip():
                        yield path, number, line
        except (EOFError, zlib.error) as error:
            raise OSError(f"{path}: the compressed file is cut off or damaged: {error}") from error


def _place(error: ErrorDetails) -> tuple[str, str]:
    """Field and reason of one of pydantic's errors."""
    location = ""
    for part in error["loc"]:
        location += f"[{part}]" if isinstance(part, int) else f".{part}" if location else part
    return location or "row", error["msg"]
