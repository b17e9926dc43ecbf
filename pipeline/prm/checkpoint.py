"""The state of a training, replaced atomically at `<storage>/checkpoint.pt`.

It names no rank and no way of sharing: weights and moments are whole vectors, labels go by step id.
So any number of ranks, with replicas or with shards, goes on from it.
"""

import io
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.files import exists, is_local, read_bytes, write_atomically
from pipeline.prm.correction import CorrectionState
from pipeline.prm.data import TrainingDataError
from pipeline.prm.directional_derivative import Stride
from pipeline.prm.flat_parameters import Layout
from pipeline.prm.label_table import CorrectedLabels
from pipeline.prm.results import HistoryRow, check_fingerprint

FORMAT = 3


@dataclass(frozen=True, slots=True)
class ArmState:
    """Everything that a training resumes from. Randomness needs no state: batches are a function of
    seed and step, and there is no dropout."""

    fingerprint: str
    step: int  # optimizer steps done
    layout: Layout
    parameters: Float[Tensor, " W"]
    optimizer: dict[str, Tensor]
    labels: CorrectedLabels
    correction: CorrectionState
    corrector: dict[str, Any] | None  # the network's state, where there is one
    history: tuple[HistoryRow, ...]


def save_state(storage: str, state: ArmState) -> None:
    buffer = io.BytesIO()
    plain = ("fingerprint", "step", "layout", "parameters", "optimizer", "corrector")
    torch.save(
        {
            "format": FORMAT,
            **{name: getattr(state, name) for name in plain},
            "labels": asdict(state.labels),
            "correction": asdict(state.correction),
            "history": [asdict(row) for row in state.history],
        },
        buffer,
    )
    # Not getvalue(), which copies: with the optimizer's moments this is the largest thing there is.
    write_atomically(f"{storage}/checkpoint.pt", buffer.getbuffer())


def load_state(storage: str, fingerprint: str) -> ArmState | None:
    """The last checkpoint, in host memory (mapped from a local file, so that the ranks of a node
    share it); None where there is none. Raises TrainingDataError if it belongs to other data or
    settings, or was written by another version."""
    path = f"{storage}/checkpoint.pt"
    if is_local(path):
        file = path if exists(path) else None
    else:
        data = read_bytes(path)
        file = None if data is None else io.BytesIO(data)
    if file is None:
        return None
    saved = torch.load(file, map_location="cpu", weights_only=True, mmap=is_local(path))
    if saved.pop("format", 1) != FORMAT:
        raise TrainingDataError(
            f"{path} was written by another version of this project: delete it to train anew"
        )
    check_fingerprint(path, saved["fingerprint"], fingerprint)
    return ArmState(
        **saved
        | {
            "layout": tuple((name, tuple(shape)) for name, shape in saved["layout"]),
            "labels": CorrectedLabels(
                **{k: tuple(column) for k, column in saved["labels"].items()}
            ),
            "correction": CorrectionState(
                **saved["correction"] | {"stride": Stride(**saved["correction"]["stride"])}
            ),
            "history": tuple(HistoryRow(**row) for row in saved["history"]),
        }
    )
