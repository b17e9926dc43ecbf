"""The state of a training, replaced atomically at `<storage>/checkpoint.pt`."""

import io
from dataclasses import asdict, dataclass
from typing import Any

import fsspec
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.files import exists, write_atomically
from pipeline.prm.correction import CorrectionState
from pipeline.prm.label_table import CorrectedLabels
from pipeline.prm.results import HistoryRow, check_fingerprint


@dataclass(frozen=True, slots=True)
class ArmState:
    """Everything that a training resumes from. Randomness needs no state: batches are a function of
    seed and step, and there is no dropout."""

    fingerprint: str
    step: int  # optimizer steps done
    parameters: Float[Tensor, " P"]
    optimizer: dict[str, Any]
    labels: CorrectedLabels
    correction: CorrectionState
    corrector: dict[str, Any] | None  # the network's state, where there is one
    history: tuple[HistoryRow, ...]


def save_state(storage: str, state: ArmState) -> None:
    buffer = io.BytesIO()
    torch.save(
        {
            **{name: getattr(state, name) for name in ("fingerprint", "step", "parameters")},
            "optimizer": state.optimizer,
            "corrector": state.corrector,
            "labels": asdict(state.labels),
            "correction": asdict(state.correction),
            "history": [asdict(row) for row in state.history],
        },
        buffer,
    )
    write_atomically(f"{storage}/checkpoint.pt", buffer.getvalue())


def load_state(storage: str, fingerprint: str, device: torch.device) -> ArmState | None:
    """The last checkpoint; None where there is none. Raises TrainingDataError if it belongs to
    other data or settings."""
    path = f"{storage}/checkpoint.pt"
    if not exists(path):
        return None
    with fsspec.open(path, "rb") as file:
        saved = torch.load(file, map_location=device, weights_only=True)  # pyright: ignore[reportArgumentType]
    check_fingerprint(path, saved["fingerprint"], fingerprint)
    labels = {name: tuple(column) for name, column in saved["labels"].items()}
    return ArmState(
        fingerprint,
        saved["step"],
        saved["parameters"],
        saved["optimizer"],
        CorrectedLabels(**labels),
        CorrectionState(**saved["correction"]),
        saved["corrector"],
        tuple(HistoryRow(**row) for row in saved["history"]),
    )
