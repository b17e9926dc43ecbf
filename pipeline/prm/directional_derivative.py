"""Derivatives of all logits along one direction in the weights, from forward passes alone.

With f_i the logit of step i, phi the weights and v a direction,

    one pass     <v, grad f_i(phi)> ~ (f_i(phi + epsilon v) - f_i(phi)) / epsilon
    two passes                      ~ (f_i(phi + epsilon v) - f_i(phi - epsilon v)) / (2 epsilon)

f(phi) is known from training. One pass is off by epsilon v^T H_i v / 2, and how much that is hangs
on the direction: AdamW's v lies on the few weights whose steps are longest for their gradients,
where logits may be strongly curved; and logits move along v mostly all together, so that what tells
one label from another is what is left when that is taken out. So the error is measured. Two passes,
f+ and f-, give

    bend = |f+ + f- - 2 f(phi)| / |f+ - f-|,

the relative error of one pass, its rounding included; with the mean over labels and without it, the
larger one. While it is small one pass is made, and it is measured again every RECHECK times.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.prm.parallel import WHOLE, InnerProduct, Ranks

ACCEPTED = 2.0
"""A step is taken that changes logits by the wanted RMS within this factor."""

MAX_ATTEMPTS = 6

RECHECK = 8
"""Of so many derivatives, one at least is made with two passes: directions change slowly, since a
running mean of meta gradients and Adam's moments make them."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Precision:
    """What a compute dtype allows."""

    wanted_rms: float
    """Change of the logits, RMS, to aim at: small, and yet well above their rounding."""

    tolerated_bend: float
    """One pass is good enough up to this relative error."""


PRECISION = {torch.float32: Precision(1e-3, 0.01), torch.bfloat16: Precision(0.2, 0.05)}


@dataclass(frozen=True, slots=True)
class Stride:
    """What one derivative tells the next: how far to go along v / |v|, and how straight that is."""

    distance: float | None = None
    bend: float = math.inf  # when it was last measured
    age: int = 0  # derivatives since then


def directional_derivative(
    logits: Float[Tensor, " S"],
    logits_at: Callable[[float], Float[Tensor, " S"]],
    phi: Float[Tensor, " P"],
    v: Float[Tensor, " P"],
    stride: Stride,
    precision: Precision,
    ranks: Ranks,
    inner: InnerProduct = WHOLE,
) -> tuple[Float[Tensor, " S"], Stride]:
    """<v, grad f_i(phi)> of this rank's `logits`, which are those at `phi`, and the next stride.

    `logits_at(a)` runs a forward pass at phi + a v: where that vector is put is the caller's
    business, because here it would be one more of its size. The step is right when logits change by
    the wanted RMS (over all ranks): much less drowns in the rounding of the forward pass, much more
    in its curvature. The distance that did so last time is the best guess for this time; where the
    guess is off by more than ACCEPTED, the pass is repeated with a better one.
    Raises FloatingPointError if no finite difference is found.
    """
    norm = inner.norm(v)
    if norm == 0.0:
        return torch.zeros_like(logits), stride
    step = stride.distance or 1e-2 * inner.norm(phi)
    for attempt in range(MAX_ATTEMPTS):
        ahead = logits_at(step / norm)
        rms, _ = _rms(ahead - logits, ranks)
        if not math.isfinite(rms):
            step /= 100.0
            continue
        if rms == 0.0:
            step *= 100.0
            continue
        wanted = precision.wanted_rms
        is_right = wanted / ACCEPTED <= rms <= wanted * ACCEPTED
        if not is_right and attempt < MAX_ATTEMPTS - 1:
            step *= min(max(wanted / rms, 1e-3), 1e3)
            continue
        if not is_right:
            logger.warning(
                "a step along the meta gradient changes logits by %.1e, not by %.1e: this "
                "correction may be inexact", rms, wanted,
            )  # fmt: skip
        stride = replace(stride, distance=step * wanted / rms, age=stride.age + 1)
        is_known = attempt == 0 and stride.age < RECHECK
        if is_known and stride.bend <= precision.tolerated_bend:
            return (ahead - logits) * (norm / step), stride
        behind = logits_at(-step / norm)
        bend = _bend(logits, ahead, behind, ranks)
        if not math.isfinite(bend):
            break
        values = (ahead - behind) * (norm / (2 * step))
        return values, replace(stride, bend=bend if is_right else math.inf, age=0)
    raise FloatingPointError("no step along the meta gradient changes the logits finitely")


def _bend(
    logits: Float[Tensor, " S"],
    ahead: Float[Tensor, " S"],
    behind: Float[Tensor, " S"],
    ranks: Ranks,
) -> float:
    curved = _rms(ahead + behind - 2 * logits, ranks)
    straight = _rms(ahead - behind, ranks)
    return max(c / s if s else math.inf for c, s in zip(curved, straight, strict=True))


def _rms(values: Float[Tensor, " S"], ranks: Ranks) -> tuple[float, float]:
    """Over all ranks: about zero, and about their mean."""
    found = values.double()
    sums = torch.stack([found.sum(), found.square().sum(), found.new_tensor(len(found))])
    total, squares, count = ranks.sum(sums).tolist()
    count = max(count, 1.0)
    about_mean = max(squares / count - (total / count) ** 2, 0.0)
    return math.sqrt(squares / count), math.sqrt(about_mean)
