"""How a hypergradient moves labels.

With h_i = dL_meta/dy_i over the free labels of one batch,

    y_i <- clip(y_i - rate * ((h_i - mean h) / std h + anchor * (y_i - y_i^0)), 0, 1).

The scale of h falls with the learning rate and as training goes on, so it is normalised; its mean
carries no knowledge of one step against another but, added up over a run, drives all labels to 0 or
1 together, so it is taken out (`centred`); the anchor keeps a label near its evidence y^0. The meta
gradient that h is made of is a running mean over corrections, because one meta batch says little.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.config import CorrectionConfig
from pipeline.prm.label_table import LabelTable
from pipeline.prm.parallel import Ranks

DRIFTED = 0.1
"""Correction stops when the mean label is within this fraction of its first distance to 0 or 1."""


@dataclass(slots=True)
class CorrectionState:
    """What a correction remembers from one time to the next; part of every checkpoint."""

    meta_gradient: Float[Tensor, " P"] | None = None  # running mean, not yet bias-corrected
    corrections: int = 0
    distance: float | None = None  # along v, of the last forward difference
    stopped_at: int | None = None  # the optimizer step at which the guard stopped it


def is_due(config: CorrectionConfig, state: CorrectionState, step: int, total: int) -> bool:
    """Whether to correct at this optimizer step, counted from 0."""
    return state.stopped_at is None and step >= config.warmup * total and step % config.every == 0


def averaged(
    config: CorrectionConfig, state: CorrectionState, meta_gradient: Float[Tensor, " P"]
) -> Float[Tensor, " P"]:
    """Take a new meta gradient into the running mean and return the mean, bias-corrected."""
    decay = config.gradient_ema
    if state.meta_gradient is None:
        state.meta_gradient = torch.zeros_like(meta_gradient)
    state.meta_gradient.mul_(decay).add_(meta_gradient, alpha=1 - decay)
    state.corrections += 1
    return state.meta_gradient / (1 - decay**state.corrections)


def move_labels(
    config: CorrectionConfig,
    table: LabelTable,
    slots: Int[Tensor, " S"],
    hypergradient: Float[Tensor, " S"],
    ranks: Ranks,
) -> None:
    """Update the free labels among `slots`; the statistics of h are over all ranks."""
    free = table.free[slots]
    slots, h = slots[free], hypergradient[free].double()
    sums = torch.stack([h.sum(), h.square().sum(), free.sum().double()])
    total, squares, count = ranks.sum(sums).tolist()
    if not count:
        return
    mean = total / count if config.centred else 0.0
    spread = max(squares / count - mean**2, 0.0) ** 0.5
    if spread == 0.0:
        return
    labels = table.values[slots]
    pull = config.anchor * (labels - table.initial[slots])
    step = ((h - mean) / spread).float() + pull
    table.update(slots, (labels - config.label_rate * step).clamp(0.0, 1.0))


def has_drifted(mean_label: float, initial_mean: float) -> bool:
    """Whether labels have gone to 0 or 1 together, however unequal they were at first."""
    return mean_label < DRIFTED * initial_mean or 1 - mean_label < DRIFTED * (1 - initial_mean)
