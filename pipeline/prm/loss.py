"""The loss of a step's logit f against its label y, and the two derivatives that bi-level training
needs. With the score p = sigmoid(f):

    kind   loss(f, y)                           slope = dloss/df          coupling = -d^2 loss/dy df
    bce    -y log p - (1 - y) log(1 - p)        p - y                     1
    mse    (p - y)^2                            2 (p - y) p (1 - p)       2 p (1 - p)
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline.config import LossKind

Steps = Float[Tensor, " S"]


def losses(kind: LossKind, logits: Steps, labels: Steps) -> Steps:
    """One loss per step."""
    if kind is LossKind.BCE:
        return binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (logits.sigmoid() - labels).square()


def slope(kind: LossKind, logits: Steps, labels: Steps) -> Steps:
    """How a step's loss changes with its logit."""
    distance = logits.sigmoid() - labels
    return distance if kind is LossKind.BCE else 2 * distance * _flatness(logits)


def coupling(kind: LossKind, logits: Steps) -> Steps:
    """How much a label pulls at its logit."""
    return torch.ones_like(logits) if kind is LossKind.BCE else 2 * _flatness(logits)


def _flatness(logits: Steps) -> Steps:
    score = logits.sigmoid()
    return score * (1 - score)
