"""The gradient of the meta loss with respect to step labels, in closed form.

One training step on labels y, then the meta loss at the weights it leads to
(bi-level label learning, arXiv 2512.15000):

    phi' = phi - lr * u(c(G)),   G = (1/N) sum_j grad_phi BCE(f_j(phi), y_j),

with u the optimizer's update, c gradient clipping, N the global number of labels and f_j the logit
of step j. Since d^2 BCE / dy df = -1,

    dL_meta(phi') / dy_i = (lr / N) <v, grad f_i(phi)>,   v = (dc/dG)^T D grad L_meta(phi'),

where D = du/dg is diagonal: the identity for SGD; for AdamW at step t, with moments m and s *after*
the step, b1 = 1 - beta1^t, b2 = 1 - beta2^t and r = sqrt(s / b2),

    D = (1 - beta1) / (b1 (r + eps)) - (m / b1) ((1 - beta2) / b2) g / (r (r + eps)^2).

Decoupled weight decay moves phi' but not its derivative by g. Clipping to norm M at n = |G| > M is
c(G) = G M / (n + 1e-6), whose symmetric Jacobian is M/(n + 1e-6) (I - G G^T / (n (n + 1e-6))).

<v, grad f_i(phi)> is a directional derivative of logits: two forward passes without gradients, at
phi + epsilon v and phi - epsilon v. Two, because AdamW's v lies on the few weights whose steps are
longest for their gradients, where logits are strongly curved, and because logits move along v
mostly all together: what tells one label from another is what is left when that is taken out, and
the curvature of a one-sided difference was as large. It is linearised at phi, not phi', and needs
nothing from other ranks but, where they hold parts of the weights, |v| and <G, v>.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.prm.parallel import WHOLE, InnerProduct, Ranks

CLIP_EPSILON = 1e-6
"""As in torch.nn.utils.clip_grad_norm_."""

ACCEPTED = 2.0
"""A step is taken that changes logits by the wanted RMS within this factor."""

MAX_ATTEMPTS = 6

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Clipping:
    """Scaling of a gradient to a norm of at most `max_norm`."""

    gradient: Float[Tensor, " P"]  # before clipping
    norm: float
    max_norm: float
    inner: InnerProduct = WHOLE

    @property
    def scale(self) -> float:
        return min(1.0, self.max_norm / (self.norm + CLIP_EPSILON))

    def transposed(self, vector: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        """(dc/dG)^T vector."""
        if self.scale == 1.0:
            return vector
        along = self.inner.dot(self.gradient, vector) / (self.norm * (self.norm + CLIP_EPSILON))
        return self.scale * (vector - along * self.gradient)


def adamw_diagonal(
    gradient: Float[Tensor, " P"],
    first_moment: Float[Tensor, " P"],
    second_moment: Float[Tensor, " P"],
    step: int,
    betas: tuple[float, float],
    epsilon: float,
) -> Float[Tensor, " P"]:
    """D of AdamW; `gradient` is what the optimizer was given, `step` counts from 1, the moments are
    those after the step. Zero for weights that no gradient has ever touched: no logit of the batch
    depends on them, and the formula's 1 / epsilon would drown the others in rounding."""
    correction1 = 1 - betas[0] ** step
    correction2 = 1 - betas[1] ** step
    root = (second_moment / correction2).sqrt()
    shifted = root + epsilon
    through_first = (1 - betas[0]) / (correction1 * shifted)
    through_second = (
        (first_moment / correction1)
        * ((1 - betas[1]) / correction2)
        * gradient
        / (root * shifted.square())
    )
    return torch.where(root > 0, through_first - through_second, 0.0)


@dataclass(frozen=True, slots=True)
class DirectionalDerivative:
    """<v, grad f_i> of this rank's logits, and the distance to go along v / |v| next time."""

    values: Float[Tensor, " S"]
    distance: float


def central_difference(
    logits: Float[Tensor, " S"],
    logits_at: Callable[[Float[Tensor, " P"]], Float[Tensor, " S"]],
    phi: Float[Tensor, " P"],
    v: Float[Tensor, " P"],
    *,
    distance: float | None,
    wanted_rms: float,
    ranks: Ranks,
    inner: InnerProduct = WHOLE,
) -> DirectionalDerivative:
    """Derivatives of `logits`, which are those at `phi`, along `v`:
    (f(phi + epsilon v) - f(phi - epsilon v)) / (2 epsilon).

    `logits_at` runs a forward pass at other weights. The step is right when logits change by
    `wanted_rms` (RMS over all ranks): much less drowns in the rounding of the forward pass, much
    more in its curvature. The distance that did so last time is the best guess for this time; where
    the guess is off by more than ACCEPTED, the first pass is repeated with a better one.
    Raises FloatingPointError if no finite difference is found.
    """
    norm = inner.norm(v)
    if norm == 0.0:
        return DirectionalDerivative(torch.zeros_like(logits), distance or 0.0)
    step = distance or 1e-2 * inner.norm(phi)
    for attempt in range(MAX_ATTEMPTS):
        ahead = logits_at(phi + (step / norm) * v)
        rms = _rms(ahead - logits, ranks)
        if not math.isfinite(rms):
            step /= 100.0
            continue
        if rms == 0.0:
            step *= 100.0
            continue
        is_right = wanted_rms / ACCEPTED <= rms <= wanted_rms * ACCEPTED
        if is_right or attempt == MAX_ATTEMPTS - 1:
            if not is_right:
                logger.warning(
                    "a step along the meta gradient changes logits by %.1e, not by %.1e: this "
                    "correction may be inexact", rms, wanted_rms,
                )  # fmt: skip
            behind = logits_at(phi - (step / norm) * v)
            values = (ahead - behind) * (norm / (2 * step))
            if not math.isfinite(_rms(values, ranks)):
                break
            return DirectionalDerivative(values, step * wanted_rms / rms)
        step *= min(max(wanted_rms / rms, 1e-3), 1e3)
    raise FloatingPointError("no step along the meta gradient changes the logits finitely")


def _rms(values: Float[Tensor, " S"], ranks: Ranks) -> float:
    """Over all ranks."""
    sums = [values.double().square().sum(), values.new_tensor(len(values)).double()]
    total, count = ranks.sum(torch.stack(sums)).tolist()
    return math.sqrt(total / max(count, 1.0))
