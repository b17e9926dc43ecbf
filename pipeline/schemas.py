"""The one versioned Arrow schema of every record, and the way between rows and tables.

A schema names the record's key (shards are sorted by it) and its *measured* columns (times,
memory): those alone may differ between two runs of the same inputs and responses.
"""

import dataclasses
import datetime
import types
import typing
from collections.abc import Iterable
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

    @property
    def name(self) -> str:
        return self.record.__name__

    @property
    def arrow(self) -> pa.Schema:
        return pa.schema(_fields(self.record))

    def to_table(self, rows: Iterable[R]) -> pa.Table:
        """The rows as a table, sorted by key. Raises pyarrow.ArrowInvalid on a wrong value."""
        plain = [_plain(row) for row in rows]
        plain.sort(key=lambda row: tuple(row[name] for name in self.key))
        return pa.Table.from_pylist(plain, schema=self.arrow)

    def from_table(self, table: pa.Table) -> list[R]:
        return [_record(self.record, row) for row in table.to_pylist()]


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
    nullable = False
    if isinstance(hint, types.UnionType):
        (hint,) = (arm for arm in typing.get_args(hint) if arm is not types.NoneType)
        nullable = True
    return pa.field(name, _arrow_type(hint), nullable=nullable)


def _arrow_type(hint: Any) -> pa.DataType:
    if typing.get_origin(hint) is tuple:
        return pa.list_(pa.field("item", _arrow_type(typing.get_args(hint)[0]), nullable=False))
    if dataclasses.is_dataclass(hint):
        return pa.struct(_fields(typing.cast(type, hint)))
    if issubclass(hint, StrEnum):
        return pa.string()
    return _PRIMITIVES[hint]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        row: dict[str, Any] = {}
        for field in dataclasses.fields(value):
            item = _plain(getattr(value, field.name))
            row.update(item) if field.name in _FLATTENED else row.__setitem__(field.name, item)
        return row
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, StrEnum):
        return value.value
    return value


def _record(hint: Any, value: Any) -> Any:
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        (hint,) = (arm for arm in typing.get_args(hint) if arm is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        item_hint = typing.get_args(hint)[0]
        return tuple(_record(item_hint, item) for item in value)
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return typing.cast(type, hint)(
            **{
                field.name: _record(
                    hints[field.name], value if field.name in _FLATTENED else value[field.name]
                )
                for field in dataclasses.fields(hint)
            }
        )
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(value)
    return value


PROBLEM = RecordSchema(records.Problem, version=2, key=("problem_id",))
SOLUTION = RecordSchema(records.Solution, version=1, key=("problem_id", "sample_index"))
PROGRAM_VERDICT = RecordSchema(
    records.ProgramVerdict,
    version=2,
    key=("problem_id", "program_id"),
    measured=frozenset({"cpu_s", "wall_s", "peak_mb"}),
)
COMPLETION = RecordSchema(records.Completion, version=1, key=("step_id", "rollout_index"))
ROLLOUT = RecordSchema(records.Rollout, version=1, key=("step_id", "rollout_index"))
STEP_LABEL = RecordSchema(records.StepLabel, version=1, key=("step_id",))
STEP_TRUTH = RecordSchema(records.StepTruth, version=1, key=("step_id",))
EXAMPLE = RecordSchema(records.Example, version=1, key=("problem_id", "solution_id"))
LABEL_ESTIMATE = RecordSchema(records.LabelEstimate, version=2, key=("step_id",))
SCORED_SOLUTION = RecordSchema(records.ScoredSolution, version=1, key=("solution_id",))
