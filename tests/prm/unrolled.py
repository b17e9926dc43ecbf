"""The oracle of the hypergradient: autograd through the unrolled optimizer step, on one process."""

from dataclasses import dataclass

import torch
from torch.func import functional_call
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from pipeline.config import LossKind
from pipeline.prm import hypergradient as hyper
from pipeline.prm.encoding import collate
from pipeline.prm.fitting import Fit
from pipeline.prm.optimizer import learning_rate
from pipeline.prm.training_set import TrainingSet


@dataclass
class Oracle:
    of_labels: torch.Tensor
    of_weights: torch.Tensor
    phi: torch.Tensor
    v: torch.Tensor
    logits: torch.Tensor
    labels: torch.Tensor
    free: torch.Tensor
    rate: float


def logits_of(fit: Fit, flat: torch.Tensor, data: TrainingSet, indices: list[int], meta: bool):
    named = [(n, p) for n, p in fit.scorer.named_parameters() if p.requires_grad]
    pieces = flat.split([p.numel() for _, p in named])
    weights = {n: piece.view_as(p) for (n, p), piece in zip(named, pieces, strict=True)}
    solutions = data.meta_solutions if meta else data.solutions
    return functional_call(fit.scorer, weights, (collate([solutions[i] for i in indices]),))


def loss_of(kind: LossKind, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Written anew, by torch alone."""
    if kind is LossKind.BCE:
        return binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return mse_loss(logits.sigmoid(), labels, reduction="none")


def unroll(fit: Fit, batch: list[int], data: TrainingSet) -> Oracle:
    """dL_meta/dy and dL_meta/dw by reverse mode through one whole optimizer step, and the v of the
    closed form."""
    optimizer, kind = fit.config.optimizer, fit.config.loss
    rate = learning_rate(optimizer, fit.step, fit.total)
    slots = fit.table.slots(batch)
    y = fit.table.values[slots].clone().requires_grad_()
    w = fit.table.weights[slots].clone().requires_grad_()
    phi = fit.flat.values.detach().clone().requires_grad_()
    logits = logits_of(fit, phi, data, batch, meta=False)
    (raw,) = torch.autograd.grad((w * loss_of(kind, logits, y)).mean(), phi, create_graph=True)
    # In double precision, as below: little is left of a meta gradient that is all but parallel to
    # `raw`, and single precision would round that off differently from one kind of CPU to another.
    exact = raw.double()
    gradient = (exact * (optimizer.clip_norm / (exact.norm() + 1e-6)).clamp(max=1.0)).float()
    if optimizer.kind == "sgd":
        phi_next = phi - rate * gradient
        diagonal = torch.ones_like(phi)
    else:
        state = fit.optimizer.torch.state[fit.flat.values]
        t = int(state["step"]) + 1 if state else 1
        m = 0.9 * state["exp_avg"] + 0.1 * gradient if state else 0.1 * gradient
        s = (0.999 * state["exp_avg_sq"] if state else 0.0) + 0.001 * gradient**2
        # The root has no derivative at 0; weights no gradient has touched take no part.
        touched = s > 0
        root = torch.where(touched, s / (1 - 0.999**t), 1.0).sqrt()
        update = torch.where(touched, m / (1 - 0.9**t) / (root + 1e-8), 0.0)
        phi_next = phi - rate * (update + optimizer.weight_decay * phi)
        diagonal = hyper.adamw_diagonal(
            gradient.detach(), m.detach(), s.detach(), t, (0.9, 0.999), 1e-8
        )
    everything = list(range(len(data.meta_solutions)))

    def meta_loss(weights: torch.Tensor) -> torch.Tensor:
        ends = logits_of(fit, weights, data, everything, meta=True)
        return loss_of(kind, ends, torch.tensor(data.meta_labels)).mean()

    of_labels, of_weights = torch.autograd.grad(meta_loss(phi_next), (y, w), retain_graph=True)
    reached = phi_next.detach().requires_grad_()
    (meta_gradient,) = torch.autograd.grad(meta_loss(reached), reached)
    exact = exact.detach()
    clipping = hyper.Clipping(exact, float(exact.norm()), optimizer.clip_norm)
    return Oracle(
        of_labels,
        of_weights,
        phi.detach(),
        clipping.transposed((diagonal * meta_gradient).double()).float(),
        logits.detach(),
        y.detach(),
        fit.table.free[slots],
        rate,
    )


def assert_close(found: torch.Tensor, exact: torch.Tensor, tolerance: float) -> None:
    assert exact.abs().max() > 0
    error = (found - exact).abs().max() / exact.abs().max()
    assert error <= tolerance, f"relative error {error:.2e} above {tolerance:.0e}"
