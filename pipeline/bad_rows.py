"""Rows of files that cannot be read: each is named by file, row and field."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic_core import ErrorDetails

LISTED = 20


@dataclass(frozen=True, slots=True)
class BadRow:
    file: str
    row: int  # from 1
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}, {self.field}: {self.reason}"


def count_rows(rows: Sequence[BadRow]) -> int:
    """A row with two bad fields is one."""
    return len({(row.file, row.row) for row in rows})


def listing(rows: Sequence[BadRow], meant: str, see_all: str = "") -> str:
    """How many rows are no `meant`, and the first of them, a line each; `see_all` says where the
    others are."""
    count = count_rows(rows)
    told = [f"{count} {'row' if count == 1 else 'rows'} cannot be read as {meant}"]
    told += [f"  {row}" for row in rows[:LISTED]]
    if len(rows) > LISTED:
        told.append(f"  and {len(rows) - LISTED:,} more" + (f"; {see_all}" if see_all else ""))
    return "\n".join(told)


def field_and_reason(error: ErrorDetails, depth: int | None = None) -> tuple[str, str]:
    """What one of pydantic's errors says, of the first `depth` parts of its place; the field of a
    row as a whole is `row`."""
    location = ""
    for part in error["loc"][:depth]:
        location += f"[{part}]" if isinstance(part, int) else f".{part}" if location else part
    return location or "row", error["msg"].removeprefix("Value error, ")
