"""The closed form against autograd through the unrolled step, on a small Qwen2 model in float32.
Tolerances are relative to the largest hypergradient of a batch and are never to be relaxed."""

import pytest
import torch
from torch.func import jvp

from pipeline.config import ArmConfig, Correction, LossKind, TrainingConfig
from pipeline.prm.fitting import Fit
from pipeline.prm.label_table import MOST_WEIGHT
from pipeline.prm.loss import coupling, slope
from pipeline.prm.parallel import Ranks
from pipeline.records import Role
from tests.prm.unrolled import assert_close, logits_of, unroll
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
