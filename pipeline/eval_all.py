"""LiveCodeBench's `eval_all` form: a model's recorded answers to its problems, with their grades.

A file is JSON lines, or one JSON list, plain or compressed (.gz, .xz, ...), local or at a URI. A
row needs `question_id` and `output_list`, the answers in the order in which they were sampled;
`code_list`, the program that LiveCodeBench took from each, `graded_list`, whether it passed, and
`metadata`, how it failed, have one entry per answer. There are no unit tests in it.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from pipeline.row_files import read_bytes


class EvalAllError(Exception):
    """A file that is not there, or of another form; the message names file, row and field."""


def _storable(value: object) -> object:
    """Half a surrogate pair, which no UTF-8 file can hold, becomes U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


Text = Annotated[str, BeforeValidator(_storable)]


class EvalAllRow(BaseModel):
    """The candidates of one problem. What a file does not hold is empty."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    question_id: Text
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


def read_eval_all(path: str | Path) -> list[EvalAllRow]:
    """The rows of a file, in its order. Raises EvalAllError."""
    rows: list[EvalAllRow] = []
    seen: set[str] = set()
    for number, raw in _raw_rows(str(path)):
        place = f"{path}, row {number}"
        try:
            row = EvalAllRow.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            field = "".join(
                f"[{part}]" if isinstance(part, int) else str(part) for part in first["loc"][:2]
            )
            told = first["msg"].removeprefix("Value error, ")
            raise EvalAllError(f"{place}, {field or 'row'}: {told}") from None
        if row.question_id in seen:
            raise EvalAllError(f"{place}, question_id: {row.question_id!r} came before")
        seen.add(row.question_id)
        rows.append(row)
    if not rows:
        raise EvalAllError(f"{path}: holds no recorded candidates")
    return rows


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
        return enumerate(_json(path, text), start=1)
    return [
        (number, _json(f"{path}, row {number}", line))
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]


def _json(place: str, text: str) -> Any:
    """Raises EvalAllError, also for a number of more digits than Python converts."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EvalAllError(f"{place}: neither JSON lines nor a JSON list: {error}") from error
