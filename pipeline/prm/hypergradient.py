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

<v, grad f_i(phi)> is a directional derivative of logits, see `directional_derivative`. It is
linearised at phi, not phi', and needs nothing from other ranks but, where they hold parts of the
weights, |v| and <G, v>.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.prm.parallel import WHOLE, InnerProduct

CLIP_EPSILON = 1e-6
"""As in torch.nn.utils.clip_grad_norm_."""

AT_ONCE = 1 << 24
"""Weights whose diagonal is computed at once: its terms take several times their memory."""


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
        return (vector - along * self.gradient).mul_(self.scale)


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
    diagonal = torch.empty_like(gradient)
    for start in range(0, len(gradient), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        diagonal[part] = _adamw_diagonal(
            gradient[part], first_moment[part], second_moment[part], step, betas, epsilon
        )
    return diagonal


def _adamw_diagonal(
    gradient: Float[Tensor, " P"],
    first_moment: Float[Tensor, " P"],
    second_moment: Float[Tensor, " P"],
    step: int,
    betas: tuple[float, float],
    epsilon: float,
) -> Float[Tensor, " P"]:
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
