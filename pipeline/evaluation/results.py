"""The one typed result of an evaluation, stored as `selection.json`.

Its keys are the fields of `Selection`, nested as they are, and `run` with the fields of `RunFacts`;
enums are their values, a missing number is null, accuracies are in [0, 1]. `schema_version` is
raised whenever a key is removed or changes meaning.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from pipeline.evaluation.labels import LabelQuality
from pipeline.evaluation.metrics import Estimate, Reliability
from pipeline.evaluation.selection import Aggregator, AggregatorChoice

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class MethodResult:
    """One row of the table. `overall` and `by_difficulty` are accuracies at the largest N, and
    `curve[N - 1]` those of best-of-N (for pass@1 the same for every N). `by_aggregator` says what
    each way of reading steps would have solved, to be looked at and never to choose by; it is empty
    for pass@1 and the oracle. `solved` is the expected success on each of `Selection.problem_ids`.
    `unscored` candidates had no score and ranked last."""

    method: str
    title: str
    choice: AggregatorChoice | None
    overall: Estimate
    by_difficulty: Mapping[str, Estimate]
    curve: tuple[Estimate, ...]
    by_aggregator: Mapping[Aggregator, Estimate]
    solved: tuple[float, ...]
    unscored: int


class Finding(StrEnum):
    """What a paired difference allows one to say."""

    HIGHER = "higher"
    LOWER = "lower"
    WITHIN_NOISE = "within noise"  # its interval contains 0
    TOO_FEW = "too few problems to say"


@dataclass(frozen=True, slots=True)
class Difference:
    """Accuracy of `method` minus that of `baseline` on the same problems, at the largest N.
    `planned`: decided before any result; the others are all remaining pairs of methods."""

    method: str
    baseline: str
    difference: Estimate
    finding: Finding
    planned: bool


class CalibrationTarget(StrEnum):
    """What a score is held against."""

    OUTCOME = "last step against the unit tests"
    TRUTH = "earlier steps against the known truth"


@dataclass(frozen=True, slots=True)
class Calibration:
    method: str
    target: CalibrationTarget
    reliability: Reliability


@dataclass(frozen=True, slots=True)
class Selection:
    """Everything that best-of-N on the test problems showed."""

    schema_version: int
    problem_ids: tuple[str, ...]
    problems: int
    candidates: int
    passing: int
    most_candidates: int
    problems_with_fewer_candidates: int
    problems_none_passed: int
    problems_all_passed: int
    problems_by_difficulty: Mapping[str, int]
    bootstrap: int
    confidence: float
    seed: int
    methods: tuple[MethodResult, ...]
    differences: tuple[Difference, ...]
    calibration: tuple[Calibration, ...]
    labels: tuple[LabelQuality, ...]

    def method(self, name: str) -> MethodResult:
        return next(method for method in self.methods if method.method == name)


def to_json(result: object, **sections: object) -> str:
    """A result (a dataclass, say a `Selection`) as JSON, with `sections` (dataclasses too) under
    keys of their own after it."""
    stored = _plain(result) | {name: _plain(value) for name, value in sections.items()}
    return json.dumps(stored, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
