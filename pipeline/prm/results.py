"""What a training leaves behind.

    <storage>/model/            the trained PRM, in Hugging Face form; its README.md is the model
                                card, in which an evaluation writes what it found
    <storage>/adapter/          its adapters alone, in peft's form, where it was trained with LoRA
    <storage>/labels.arrow      LabelEstimate rows: labels before and after correction
    <storage>/history.jsonl     one line per optimizer step
    <storage>/progress.json     how far it was at the last checkpoint, for `jobs.status`
    <storage>/done.json         written last: everything else is there

`<storage>` is a local path or an fsspec URI that all workers reach.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.files import read_bytes, write_atomically
from pipeline.folders import publish_folder
from pipeline.part_file import write_rows
from pipeline.prm.data import TrainingDataError
from pipeline.records import LabelEstimate
from pipeline.schemas import LABEL_ESTIMATE


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One optimizer step. `meta_loss` and `hypergradient_norm` (of this step's labels, before it is
    normalised) are known at corrections only; `mean_label` and `mean_weight` are those of the free
    labels, None where an arm has none."""

    step: int
    epoch: int
    loss: float
    meta_loss: float | None
    mean_label: float | None
    learning_rate: float
    gradient_norm: float
    mean_weight: float | None
    hypergradient_norm: float | None = None


@dataclass(frozen=True, slots=True)
class TrainedPRM:
    """A finished training. The paths are below its storage."""

    model: str
    adapter: str | None
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
    adapter: bool = False


@dataclass(frozen=True, slots=True)
class Pace:
    """What `progress.json` says: `step` of `total` optimizer steps are done. `timed` of them, those
    since the training began or was resumed, took `seconds`."""

    step: int
    total: int
    timed: int
    seconds: float

    @property
    def seconds_left(self) -> float | None:
        return (self.total - self.step) * self.seconds / self.timed if self.timed else None


def write_pace(storage: str, pace: Pace) -> None:
    write_atomically(f"{storage}/progress.json", json.dumps(asdict(pace)).encode(), durable=False)


def read_pace(storage: str) -> Pace | None:
    """How far a training is; None where it has left no checkpoint yet."""
    data = read_bytes(f"{storage}/progress.json")
    return None if data is None else Pace(**json.loads(data))


def read_outcome(storage: str) -> Outcome | None:
    """How a training ended; None where it has not."""
    data = read_bytes(f"{storage}/done.json")
    return None if data is None else Outcome(**json.loads(data))


def finished(storage: str, fingerprint: str) -> TrainedPRM | None:
    """The results of a training that is done, else None. Raises TrainingDataError if they are of
    other data or settings."""
    outcome = read_outcome(storage)
    if outcome is None:
        return None
    check_fingerprint(f"{storage}/done.json", outcome.fingerprint, fingerprint)
    return TrainedPRM(
        model=f"{storage}/model",
        adapter=f"{storage}/adapter" if outcome.adapter else None,
        labels=f"{storage}/labels.arrow",
        history=f"{storage}/history.jsonl",
        steps=outcome.steps,
        trained=outcome.trained,
        too_long=outcome.too_long,
        correction_stopped_at=outcome.correction_stopped_at,
    )


def write_results(
    storage: str,
    exported: Path,
    labels: Sequence[LabelEstimate],
    history: Sequence[HistoryRow],
    outcome: Outcome,
) -> None:
    """Publish a finished training; `exported` is a local directory with the folders of `export`."""
    publish_folder(exported / "model", f"{storage}/model")
    if outcome.adapter:
        publish_folder(exported / "adapter", f"{storage}/adapter", last="adapter_config.json")
    write_rows(f"{storage}/labels.arrow", labels, LABEL_ESTIMATE)
    lines = "".join(json.dumps(asdict(row)) + "\n" for row in history)
    write_atomically(f"{storage}/history.jsonl", lines.encode())
    write_atomically(f"{storage}/done.json", json.dumps(asdict(outcome), indent=2).encode())


_SELECTION = ("<!-- selection -->", "<!-- end of selection -->")
"""What stands between is an evaluation's; both are comments in Markdown."""


def selection_block(told: str) -> str:
    """The part of a model card that an evaluation may replace."""
    first, last = _SELECTION
    return f"{first}\n{told}\n{last}"


def tell_selection(storage: str, told: str) -> None:
    """Say in the model cards of a finished training how it selects programs, in the place of what
    was said before. A card that says so already is left alone: one behind a URI would count as new.
    Raises StoreError where a card cannot be written."""
    first, last = _SELECTION
    for folder in ("model", "adapter"):
        path = f"{storage}/{folder}/README.md"
        data = read_bytes(path)
        if data is None:
            continue
        card = data.decode()
        before, begun, rest = card.partition(first)
        _, ended, after = rest.partition(last)
        if not (begun and ended):  # written by hand, or by an earlier version
            before, after = f"{card.rstrip()}\n\n", "\n"
        new = before + selection_block(told) + after
        if new != card:
            write_atomically(path, new.encode())


def check_fingerprint(path: str, found: str, wanted: str) -> None:
    """Raises TrainingDataError if what lies at `path` is not of this training."""
    if found != wanted:
        raise TrainingDataError(
            f"{path} belongs to a training on other data or settings: train into another "
            "directory, or delete this one"
        )
