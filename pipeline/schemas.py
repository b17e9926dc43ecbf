"""The one versioned Arrow schema of every record, and the way between rows and tables.

A schema names the record's key (shards are sorted by it) and its *measured* columns (times,
memory): those alone may differ between two runs of the same inputs and responses.
"""

import dataclasses
import datetime
import functools
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

import pyarrow as pa

from pipeline import records

R = TypeVar("R")

_PRIMITIVES: dict[type, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    datetime.date: pa.date32(),
}


@dataclass(frozen=True)
class RecordSchema(Generic[R]):
    """How one record type is stored.

    `version` is bumped by hand whenever a field is added, removed or changes meaning.
    """

    record: type[R]
    version: int
    key: tuple[str, ...]
    measured: frozenset[str] = frozenset()
    summed: tuple[str, ...] = ()
    """Columns whose sums a part's footer keeps, for those who ask how far a run is."""
    counted: str | None = None
    """The column whose values it counts; null counts as "none"."""

    @property
    def name(self) -> str:
        return self.record.__name__

    @property
    def arrow(self) -> pa.Schema:
        return pa.schema(_fields(self.record))

    def to_table(self, rows: Iterable[R]) -> pa.Table:
        """The rows as a table, sorted by key. Raises pyarrow.ArrowInvalid on a wrong value."""
        to_plain = _to_plain(self.record)
        assert to_plain is not None
        plain = [to_plain(row) for row in rows]
        plain.sort(key=lambda row: tuple(row[name] for name in self.key))
        return pa.Table.from_pylist(plain, schema=self.arrow)

    def from_table(self, table: pa.Table) -> list[R]:
        from_plain = _from_plain(self.record)
        assert from_plain is not None
        return [from_plain(row) for row in table.to_pylist()]


def _fields(record: type) -> list[pa.Field]:
    """One Arrow field per dataclass field; a nested `verdict` is flattened into its columns, so
    that a verdict shard reads as one flat table."""
    hints = typing.get_type_hints(record)
    fields: list[pa.Field] = []
    for field in dataclasses.fields(record):
        if field.name in _FLATTENED:
            fields.extend(_fields(hints[field.name]))
        else:
            fields.append(_field(field.name, hints[field.name]))
    return fields


_FLATTENED = {"verdict"}


def _field(name: str, hint: Any) -> pa.Field:
    hint, nullable = _without_none(hint)
    return pa.field(name, _arrow_type(hint), nullable=nullable)


def _arrow_type(hint: Any) -> pa.DataType:
    if typing.get_origin(hint) is tuple:
        return pa.list_(pa.field("item", _arrow_type(typing.get_args(hint)[0]), nullable=False))
    if dataclasses.is_dataclass(hint):
        return pa.struct(_fields(typing.cast(type, hint)))
    if issubclass(hint, StrEnum):
        return pa.string()
    return _PRIMITIVES[hint]


_Convert = Callable[[Any], Any]


@functools.cache
def _to_plain(hint: Any) -> _Convert | None:
    """How a value of this type becomes what Arrow takes; None where it is that already.

    Types are looked at once: rows come by the million.
    """
    hint, optional = _without_none(hint)
    convert: _Convert | None = None
    if typing.get_origin(hint) is tuple:
        item = _to_plain(typing.get_args(hint)[0])
        convert = list if item is None else lambda values: [item(value) for value in values]
    elif dataclasses.is_dataclass(hint):
        convert = _record_to_plain(typing.cast(type, hint))
    elif issubclass(hint, StrEnum):
        convert = str.__str__
    return _unless_none(convert) if optional and convert else convert


def _record_to_plain(record: type) -> _Convert:
    hints = typing.get_type_hints(record)
    fields = [(field.name, _to_plain(hints[field.name])) for field in dataclasses.fields(record)]

    def convert(value: Any) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for name, to_plain in fields:
            item = getattr(value, name)
            if to_plain is not None:
                item = to_plain(item)
            if name in _FLATTENED:
                row.update(item)
            else:
                row[name] = item
        return row

    return convert


@functools.cache
def _from_plain(hint: Any) -> _Convert | None:
    """The inverse of `_to_plain`."""
    hint, optional = _without_none(hint)
    convert: _Convert | None = None
    if typing.get_origin(hint) is tuple:
        item = _from_plain(typing.get_args(hint)[0])
        convert = tuple if item is None else lambda values: tuple(item(value) for value in values)
    elif dataclasses.is_dataclass(hint):
        convert = _record_from_plain(typing.cast(type, hint))
    elif issubclass(hint, StrEnum):
        convert = hint
    return _unless_none(convert) if optional and convert else convert


def _record_from_plain(record: type) -> _Convert:
    hints = typing.get_type_hints(record)
    fields = [
        (field.name, _from_plain(hints[field.name]), field.name in _FLATTENED)
        for field in dataclasses.fields(record)
    ]

    def convert(row: dict[str, Any]) -> Any:
        values = [
            (row if flattened else row[name])
            if from_plain is None
            else from_plain(row if flattened else row[name])
            for name, from_plain, flattened in fields
        ]
        return record(*values)

    return convert


def _without_none(hint: Any) -> tuple[Any, bool]:
    if not isinstance(hint, types.UnionType):
        return hint, False
    (other,) = (arm for arm in typing.get_args(hint) if arm is not types.NoneType)
    return other, True


def _unless_none(convert: _Convert) -> _Convert:
    return lambda value: None if value is None else convert(value)


PROBLEM = RecordSchema(records.Problem, version=2, key=("problem_id",))
SOLUTION = RecordSchema(
    records.Solution,
    version=1,
    key=("problem_id", "sample_index"),
    summed=("prompt_tokens", "completion_tokens", "reasoning_tokens", "cost_usd"),
)
PROGRAM_VERDICT = RecordSchema(
    records.ProgramVerdict,
    version=2,
    key=("problem_id", "program_id"),
    measured=frozenset({"cpu_s", "wall_s", "peak_mb"}),
    counted="status",
)
COMPLETION = RecordSchema(
    records.Completion,
    version=1,
    key=("step_id", "rollout_index"),
    summed=("prompt_tokens", "completion_tokens", "cost_usd"),
)
ROLLOUT = RecordSchema(
    records.Rollout, version=1, key=("step_id", "rollout_index"), counted="status"
)
STEP_LABEL = RecordSchema(records.StepLabel, version=1, key=("step_id",))
STEP_TRUTH = RecordSchema(records.StepTruth, version=1, key=("step_id",))
EXAMPLE = RecordSchema(records.Example, version=1, key=("problem_id", "solution_id"))
LABEL_ESTIMATE = RecordSchema(records.LabelEstimate, version=2, key=("step_id",))
SCORED_SOLUTION = RecordSchema(records.ScoredSolution, version=1, key=("solution_id",))
