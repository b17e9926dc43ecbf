"""How a hypergradient moves labels, or weights.

With h_i = dL_meta/dy_i over the free labels of one batch,

    h~_i = (h_i - mean h) / std h
    y_i <- clip(y_i - rate * (h~_i + anchor * (y_i - y_i^0)), 0, 1).

The scale of h falls with the learning rate and as training goes on, so it is normalised; its mean
carries no knowledge of one step against another but, added up over a run, drives all labels to 0 or
1 together, so it is taken out (`centred`); the anchor keeps a label near its evidence y^0. The meta
gradient that h is made of is a running mean over corrections, because one meta batch says little.

The same rule moves the logit of a label (`label_space: logit`, with h dy/dlogit in the place of h)
and, where weights are learned, w_i / 2 in the place of y_i, which starts at 1/2.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.config import CorrectionConfig, LabelSpace
from pipeline.prm.directional_derivative import Stride
from pipeline.prm.label_table import MOST_WEIGHT, LabelTable
from pipeline.prm.parallel import Ranks

DRIFTED = 0.1
"""Correction stops when the mean label is within this fraction of its first distance to 0 or 1."""

LOGIT_EDGE = 0.01
"""A label is at least so far from 0 and 1 where its logit is the variable."""


@dataclass(slots=True)
class CorrectionState:
    """What a correction remembers from one time to the next; part of every checkpoint."""

    meta_gradient: Float[Tensor, " P"] | None = None  # running mean, not yet bias-corrected
    corrections: int = 0
    stride: Stride = field(default_factory=Stride)
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


def normalised(
    config: CorrectionConfig, hypergradient: Float[Tensor, " S"], ranks: Ranks
) -> Float[Tensor, " S"] | None:
    """h~ of this rank's free steps, with the statistics of all ranks; None where all are alike."""
    h = hypergradient.double()
    sums = torch.stack([h.sum(), h.square().sum(), h.new_tensor(len(h))])
    total, squares, count = ranks.sum(sums).tolist()
    mean = total / max(count, 1.0) if config.centred else 0.0
    spread = max(squares / max(count, 1.0) - mean**2, 0.0) ** 0.5
    return None if spread == 0.0 else ((h - mean) / spread).float()


def move_labels(
    config: CorrectionConfig,
    table: LabelTable,
    slots: Int[Tensor, " S"],
    hypergradient: Float[Tensor, " S"],
    ranks: Ranks,
) -> None:
    """Update the free labels among `slots`, given dL_meta/dy of all of them."""
    free = table.free[slots]
    slots, h = slots[free], hypergradient[free]
    labels, start = table.values[slots], table.initial[slots]
    if config.label_space is LabelSpace.LOGIT:
        labels, start = (each.clamp(LOGIT_EDGE, 1 - LOGIT_EDGE) for each in (labels, start))
        h = h * labels * (1 - labels)
        labels, start = labels.logit(), start.logit()
    direction = normalised(config, h, ranks)
    if direction is None:
        return
    labels = labels - config.label_rate * (direction + config.anchor * (labels - start))
    in_logits = config.label_space is LabelSpace.LOGIT
    table.update(slots, labels.sigmoid() if in_logits else labels.clamp(0.0, 1.0))


def move_weights(
    config: CorrectionConfig,
    table: LabelTable,
    slots: Int[Tensor, " S"],
    hypergradient: Float[Tensor, " S"],
    ranks: Ranks,
) -> None:
    """Update the weights of the free steps among `slots`, given dL_meta/dw of all of them."""
    free = table.free[slots]
    slots = slots[free]
    direction = normalised(config, hypergradient[free], ranks)
    if direction is None:
        return
    share = table.weights[slots] / MOST_WEIGHT
    share = share - config.label_rate * (direction + config.anchor * (share - 1 / MOST_WEIGHT))
    table.reweigh(slots, share.clamp(0.0, 1.0) * MOST_WEIGHT)


def has_drifted(mean_label: float, initial_mean: float) -> bool:
    """Whether labels have gone to 0 or 1 together, however unequal they were at first."""
    return mean_label < DRIFTED * initial_mean or 1 - mean_label < DRIFTED * (1 - initial_mean)
