"""What a training leaves behind.

    <storage>/model/            the trained PRM, in Hugging Face form
    <storage>/labels.arrow      LabelEstimate rows: labels before and after correction
    <storage>/history.jsonl     one line per optimizer step
    <storage>/done.json         written last: everything else is there

`<storage>` is a local path or an fsspec URI that all workers reach.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import fsspec

from pipeline.files import exists, write_atomically
from pipeline.part_file import write_rows
from pipeline.prm.data import TrainingDataError
from pipeline.records import LabelEstimate
from pipeline.schemas import LABEL_ESTIMATE


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One optimizer step. `meta_loss` is known at corrections only; `mean_label` and `mean_weight`
    are those of the free labels, None where an arm has none."""

    step: int
    epoch: int
    loss: float
    meta_loss: float | None
    mean_label: float | None
    learning_rate: float
    gradient_norm: float
    mean_weight: float | None


@dataclass(frozen=True, slots=True)
class TrainedPRM:
    """A finished training. The paths are below its storage."""

    model: str
    labels: str
    history: str
    steps: int
    trained: int  # solutions trained on
    too_long: int  # solutions left out because their program exceeds the context
    correction_stopped_at: int | None  # the step at which the guard against drift ended correction


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `done.json` says."""

    fingerprint: str
    steps: int
    trained: int
    too_long: int
    correction_stopped_at: int | None


def finished(storage: str, fingerprint: str) -> TrainedPRM | None:
    """The results of a training that is done, else None. Raises TrainingDataError if they are of
    other data or settings."""
    path = f"{storage}/done.json"
    if not exists(path):
        return None
    with fsspec.open(path, "rt") as file:
        outcome = Outcome(**json.load(file))  # pyright: ignore[reportArgumentType]
    check_fingerprint(path, outcome.fingerprint, fingerprint)
    return TrainedPRM(
        model=f"{storage}/model",
        labels=f"{storage}/labels.arrow",
        history=f"{storage}/history.jsonl",
        steps=outcome.steps,
        trained=outcome.trained,
        too_long=outcome.too_long,
        correction_stopped_at=outcome.correction_stopped_at,
    )


def write_results(
    storage: str,
    model: Path,
    labels: Sequence[LabelEstimate],
    history: Sequence[HistoryRow],
    outcome: Outcome,
) -> None:
    """Publish a finished training; `model` is a local directory."""
    filesystem, directory = fsspec.core.url_to_fs(storage)
    if filesystem.exists(f"{directory}/model"):
        filesystem.rm(f"{directory}/model", recursive=True)
    filesystem.makedirs(directory, exist_ok=True)
    filesystem.put(str(model), f"{directory}/model", recursive=True)
    write_rows(f"{storage}/labels.arrow", labels, LABEL_ESTIMATE)
    lines = "".join(json.dumps(asdict(row)) + "\n" for row in history)
    write_atomically(f"{storage}/history.jsonl", lines.encode())
    write_atomically(f"{storage}/done.json", json.dumps(asdict(outcome), indent=2).encode())


def check_fingerprint(path: str, found: str, wanted: str) -> None:
    """Raises TrainingDataError if what lies at `path` is not of this training."""
    if found != wanted:
        raise TrainingDataError(
            f"{path} belongs to a training on other data or settings: train into another "
            "directory, or delete this one"
        )
