"""The closed form against autograd through the unrolled step, on a small Qwen2 model in float32.
Tolerances are relative to the largest hypergradient of a batch and are never to be relaxed."""

from dataclasses import dataclass

import pytest
import torch
from torch.func import functional_call, jvp
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from pipeline.config import ArmConfig, Correction, LossKind, TrainingConfig
from pipeline.prm import hypergradient as hyper
from pipeline.prm.encoding import collate
from pipeline.prm.fitting import Fit, learning_rate
from pipeline.prm.label_table import MOST_WEIGHT
from pipeline.prm.loss import coupling, slope
from pipeline.prm.parallel import Ranks
from pipeline.prm.training_set import TrainingSet
from pipeline.records import Role
from tests.prm.world import fit_of, half_right, make_examples

RATE = 1e-3  # of labels
CLIPPED = 0.02  # below every gradient here
JVP_TOLERANCE = 1e-5
DIFFERENCE_TOLERANCE = 2e-2


def make_fit(
    base: str,
    *,
    optimizer: dict[str, object],
    lora: bool = False,
    micro: int = 4,
    loss: LossKind = LossKind.BCE,
    correction: Correction = Correction.LABELS,
) -> Fit:
    config = TrainingConfig.model_validate(
        {
            "model": {
                "base": base,
                "max_tokens": 256,
                "lora": {"rank": 4} if lora else None,
                "dtype": "float32",
                "attention": "eager",  # the fused kernels have no second derivative for the oracle
            },
            "optimizer": {"warmup": 0.0, **optimizer},
            # Nothing between the hypergradient and the labels but its scale.
            "correction": {
                "every": 1,
                "warmup": 0.0,
                "gradient_ema": 0.0,
                "centred": False,
                "anchor": 0.0,
                "label_rate": RATE,
                "meta_batch": 12,
            },
            "loss": loss,
            "epochs": 4,
            "batch_size": 8,
            "micro_batch_size": micro,
            "use_gpu": False,
        }
    )
    arm = ArmConfig(name="corrected", correction=correction)
    # Interior labels, so that a step of either sign shows.
    train = [half_right(example) for example in make_examples(24, seed=1)]
    return fit_of(config, arm, train, make_examples(12, seed=2, role=Role.META), Ranks())


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
    gradient = raw * (optimizer.clip_norm / (raw.norm() + 1e-6)).clamp(max=1.0)
    if optimizer.kind == "sgd":
        phi_next = phi - rate * gradient
        diagonal = torch.ones_like(phi)
    else:
        state = fit.optimizer.state[fit.flat.values]
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
    clipping = hyper.Clipping(raw.detach(), float(raw.detach().norm()), optimizer.clip_norm)
    return Oracle(
        of_labels,
        of_weights,
        phi.detach(),
        clipping.transposed(diagonal * meta_gradient),
        logits.detach(),
        y.detach(),
        fit.table.free[slots],
        rate,
    )


CASES = [
    pytest.param({"kind": "sgd", "learning_rate": 0.02, "clip_norm": 1e3}, id="sgd"),
    pytest.param({"kind": "sgd", "learning_rate": 0.02, "clip_norm": CLIPPED}, id="sgd clipped"),
    pytest.param({"learning_rate": 1e-3, "clip_norm": 1e3}, id="adamw"),
    pytest.param(
        {"learning_rate": 1e-3, "clip_norm": CLIPPED, "weight_decay": 0.1},
        id="adamw clipped, decayed",
    ),
]


def after_some_steps(fit: Fit, steps: int) -> list[int]:
    """Advance a fit; return the batch that comes next."""
    running = fit.run(lambda state: None)
    for _ in range(steps):
        next(running)
    running.close()
    epoch, place = divmod(fit.step, fit.plan.steps_per_epoch)
    return fit.plan.epoch(epoch)[place]


def assert_close(found: torch.Tensor, exact: torch.Tensor, tolerance: float) -> None:
    assert exact.abs().max() > 0
    error = (found - exact).abs().max() / exact.abs().max()
    assert error <= tolerance, f"relative error {error:.2e} above {tolerance:.0e}"


@pytest.mark.parametrize("optimizer", CASES)
@pytest.mark.parametrize(
    ("loss", "steps"), [(LossKind.BCE, 0), (LossKind.BCE, 4), (LossKind.MSE, 4)]
)
def test_the_closed_form_is_autograd_through_the_unrolled_step(
    base: str, optimizer: dict[str, object], loss: LossKind, steps: int
) -> None:
    fit = make_fit(base, optimizer=optimizer, loss=loss)
    batch = after_some_steps(fit, steps)
    oracle = unroll(fit, batch, fit.data)
    _, along = jvp(
        lambda weights: logits_of(fit, weights, fit.data, batch, meta=False),
        (oracle.phi,),
        (oracle.v,),
    )
    along = oracle.rate / len(along) * along
    by_labels = coupling(loss, oracle.logits) * along
    assert_close(by_labels, oracle.of_labels, JVP_TOLERANCE)
    by_weights = -slope(loss, oracle.logits, oracle.labels) * along
    assert_close(by_weights, oracle.of_weights, JVP_TOLERANCE)


def assert_one_step_is_exact(fit: Fit) -> None:
    # In the first few steps Adam divides by moments that are all but zero for some weights; the
    # logits are then too curved along v for any difference. Corrections start after a warm-up.
    batch = after_some_steps(fit, 9)
    slots = fit.table.slots(batch)
    oracle = unroll(fit, batch, fit.data)
    weights = fit.table.weights[slots].clone()
    after_some_steps(fit, 1)
    clipped = fit.history[-1].gradient_norm > fit.config.optimizer.clip_norm
    assert clipped is (fit.config.optimizer.clip_norm == CLIPPED)
    if fit.arm.correction is Correction.WEIGHTS:
        exact, moved = oracle.of_weights, (weights - fit.table.weights[slots]) / MOST_WEIGHT
    else:
        exact, moved = oracle.of_labels, oracle.labels - fit.table.values[slots]
    exact, moved = exact[oracle.free], moved[oracle.free] / RATE
    assert_close(moved, exact / exact.square().mean().sqrt(), DIFFERENCE_TOLERANCE)


@pytest.mark.parametrize("optimizer", CASES)
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("micro", [3, 8], ids=["accumulated", "one batch"])
def test_a_training_step_moves_labels_along_the_exact_hypergradient(
    base: str, optimizer: dict[str, object], lora: bool, micro: int
) -> None:
    assert_one_step_is_exact(make_fit(base, optimizer=optimizer, lora=lora, micro=micro))


@pytest.mark.parametrize("optimizer", CASES)
@pytest.mark.parametrize("loss", LossKind)
def test_a_training_step_moves_weights_along_the_exact_hypergradient(
    base: str, optimizer: dict[str, object], loss: LossKind
) -> None:
    fit = make_fit(base, optimizer=optimizer, loss=loss, correction=Correction.WEIGHTS, micro=3)
    assert_one_step_is_exact(fit)


@pytest.mark.parametrize("optimizer", CASES)
def test_squared_errors_move_labels_along_their_own_hypergradient(
    base: str, optimizer: dict[str, object]
) -> None:
    assert_one_step_is_exact(make_fit(base, optimizer=optimizer, loss=LossKind.MSE, micro=3))


def test_a_training_step_leaves_the_weights_that_the_optimizer_reached(base: str) -> None:
    corrected = make_fit(base, optimizer={"learning_rate": 1e-2})
    plain = make_fit(base, optimizer={"learning_rate": 1e-2})
    plain.arm = ArmConfig(name="plain")
    after_some_steps(corrected, 1)
    after_some_steps(plain, 1)
    assert torch.equal(corrected.flat.values, plain.flat.values)


@pytest.mark.parametrize("distance", [1e-7, None, 1e7])
def test_a_bad_first_guess_of_the_distance_is_mended(distance: float | None) -> None:
    matrix = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    phi, v = torch.ones(9), torch.linspace(-1, 1, 9)

    def logits_at(weights: torch.Tensor) -> torch.Tensor:
        return matrix @ weights + 0.1 * (matrix @ weights).sin()

    exact = jvp(logits_at, (phi,), (v,))[1]
    found = hyper.forward_difference(
        logits_at(phi), logits_at, phi, v, distance=distance, wanted_rms=0.02, ranks=Ranks()
    )
    assert_close(found.values, exact, DIFFERENCE_TOLERANCE)


def test_without_a_meta_gradient_nothing_moves() -> None:
    found = hyper.forward_difference(
        torch.ones(3),
        lambda weights: pytest.fail("no pass is needed"),
        torch.ones(2),
        torch.zeros(2),
        distance=None,
        wanted_rms=0.02,
        ranks=Ranks(),
    )
    assert found.values.tolist() == [0.0, 0.0, 0.0]
