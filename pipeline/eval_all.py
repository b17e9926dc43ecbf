"""LiveCodeBench's `eval_all` form: a model's recorded answers to its problems, with their grades.

A file is JSON lines, or one JSON list, plain or compressed (.gz, .xz, ...), local or at a URI. A
row needs `question_id` and `output_list`, the answers in the order in which they were sampled;
`code_list`, the program that LiveCodeBench took from each, `graded_list`, whether it passed, and
`metadata`, how it failed, have one entry per answer. There are no unit tests in it.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pipeline.bad_rows import BadRow, field_and_reason, listing
from pipeline.row_files import read_bytes


class EvalAllError(Exception):
    """A file that is not there or of another form, or rows that cannot be read; the message names
    file, row and field."""


def _storable(value: object) -> object:
    """Half a surrogate pair, which no UTF-8 file can hold, becomes U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


Text = Annotated[str, BeforeValidator(_storable)]


class EvalAllRow(BaseModel):
    """The candidates of one problem. What a file does not hold is empty."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    question_id: Annotated[Text, Field(min_length=1)]
    output_list: list[Text]
    code_list: list[Text] | None = None
    graded_list: list[bool] | None = None
    metadata: list[str | dict[str, Any]] | None = None
    question_title: Text = ""
    question_content: Text = ""
    platform: Text = ""
    difficulty: Text = ""
    contest_date: str = ""
    starter_code: Text = ""

    @model_validator(mode="after")
    def _one_entry_per_answer(self) -> Self:
        for name in ("code_list", "graded_list", "metadata"):
            entries = getattr(self, name)
            if entries is not None and len(entries) != len(self.output_list):
                raise ValueError(
                    f"{name} has {len(entries)} entries for {len(self.output_list)} answers"
                )
        return self


@dataclass(frozen=True, slots=True)
class EvalAllReading:
    """The rows of a file in its order, and what is wrong with those that cannot be read."""

    rows: tuple[EvalAllRow, ...]
    bad: tuple[BadRow, ...]

    def told(self) -> str:
        """How many rows cannot be read, and the first of them."""
        return listing(self.bad, "recorded candidates")


def read_eval_all(path: str | Path) -> list[EvalAllRow]:
    """The rows of a file, in its order. Raises EvalAllError, for bad rows with all of them."""
    reading = scan_eval_all(path)
    if reading.bad:
        raise EvalAllError(f"{reading.told()}\nmend them, or take them out of the file")
    return list(reading.rows)


def scan_eval_all(path: str | Path) -> EvalAllReading:
    """What is in a file, bad rows included. Raises EvalAllError where it has no row."""
    rows: dict[str, EvalAllRow] = {}
    bad: list[BadRow] = []
    for number, raw in _raw_rows(str(path)):
        faults: dict[str, str] = {}
        if isinstance(raw, _NoJson):
            faults["row"] = raw.reason
        else:
            try:
                row = EvalAllRow.model_validate(raw)
            except ValidationError as error:
                for each in error.errors():
                    # A value that may be of two types has an error for either: one is enough.
                    field, reason = field_and_reason(each, depth=2)
                    faults.setdefault(field, reason)
            else:
                if rows.setdefault(row.question_id, row) is not row:
                    faults["question_id"] = f"{row.question_id!r} came before"
        bad += [BadRow(str(path), number, *fault) for fault in faults.items()]
    if not rows and not bad:
        raise EvalAllError(f"{path}: holds no recorded candidates")
    return EvalAllReading(tuple(rows.values()), tuple(bad))


@dataclass(frozen=True, slots=True)
class _NoJson:
    """A row that does not parse."""

    reason: str


def _raw_rows(path: str) -> Iterable[tuple[int, Any]]:
    """Every row with its number, from 1. Raises EvalAllError."""
    try:
        text = read_bytes(path).decode()
    except OSError as error:
        raise EvalAllError(f"recorded candidates: {error}") from error
    except UnicodeDecodeError as error:
        raise EvalAllError(
            f"{path}: neither UTF-8 text nor compressed as its name says (.gz, .bz2, .xz, .zst): "
            f"{error}"
        ) from error
    if text.lstrip().startswith("["):
        found = _json(text)
        rows = [(1, found)] if isinstance(found, _NoJson) else list(enumerate(found, start=1))
    else:
        lines = enumerate(text.split("\n"), start=1)
        rows = [(number, _json(line)) for number, line in lines if line.strip()]
    if rows and all(isinstance(raw, _NoJson) for _, raw in rows):
        number, first = rows[0]
        raise EvalAllError(
            f"{path}, row {number}: neither JSON lines nor a JSON list: {first.reason}"
        )
    return rows


def _json(text: str) -> Any:
    """The value, or _NoJson, also for a number of more digits than Python converts."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return _NoJson(f"no JSON: {error}")
