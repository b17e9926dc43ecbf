"""What every form of problem files has in common: a row, and what may be wrong with its fields."""

import datetime
import keyword
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from pipeline.records import Problem
from sandbox.protocol import Comparator

Text = Annotated[str, Field(min_length=1)]
"""Of a field that says nothing where it is empty."""


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

    has_tests: ClassVar[bool] = True
    """False for a form that holds statements alone: nothing can be judged by it."""

    @abstractmethod
    def problem(self, defaults: Defaults) -> Problem:
        """Raises FieldError."""

    def canonical_program(self) -> str | None:
        """A program that is known to be right, where the benchmark has one."""
        return None


def read_date(field: str, text: str) -> datetime.date:
    """The day of an ISO 8601 date or time. Raises FieldError."""
    try:
        return datetime.datetime.fromisoformat(text).date()
    except ValueError:
        raise FieldError(field, f"{text!r} is no date such as 2024-08-01") from None


def check_entry_point(field: str, text: str) -> str:
    """`text`, once it is known to be a function's name or like `Solution().method`: it becomes part
    of a program. Raises FieldError."""
    names = text.split("().")
    if len(names) > 2 or not all(n.isidentifier() and not keyword.iskeyword(n) for n in names):
        raise FieldError(field, f"{text!r} is neither a function name nor like 'Solution().method'")
    return text
