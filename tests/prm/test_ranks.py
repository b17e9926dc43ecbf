"""Two ranks against one, in float32: replicas (DDP) and shards (FSDP2) alike. The ranks are two
processes that talk through gloo; they train everything that is compared here, once."""

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from pipeline.config import ArmConfig, Correction, Parallel, TrainingConfig
from pipeline.prm.checkpoint import ArmState, load_state, save_state
from pipeline.prm.data import TrainingDataError
from pipeline.prm.encoding import EncodedSolution
from pipeline.prm.fitting import Fit
from pipeline.prm.parallel import Ranks
from pipeline.prm.scoring import score_encoded
from pipeline.records import Role
from tests.prm.unrolled import assert_close, unroll
from tests.prm.world import fit_of, half_right, make_examples

WORLD = 2
WEIGHTS = 1e-5  # absolute
LABELS = 3e-3
"""Absolute; a label moves by 0.15 at a time, along a central difference whose rounding is another
one for another order of sums."""
HYPERGRADIENT = 2e-2  # relative to the largest, as on one rank
RATE = 1e-3  # of labels, in the comparison with autograd
CLIPPED = 0.02  # below every gradient here
HALFWAY = 4
STEPS = 8

CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True)
class Case:
    """One training that both sides make."""

    name: str
    correction: Correction = Correction.LABELS
    # SGD: Adam's first steps turn rounding of tiny gradients into steps of full size.
    optimizer: dict[str, object] = dataclasses.field(
        default_factory=lambda: {"kind": "sgd", "learning_rate": 0.05}
    )
    model: dict[str, object] = dataclasses.field(default_factory=dict)
    outer: dict[str, object] = dataclasses.field(
        default_factory=lambda: {"every": 1, "warmup": 0.2, "meta_batch": 11}
    )
    epochs: int = 2
    train: int = 43  # one batch is incomplete, and ranks have unequal shares of it
    meta: int = 21

    def fit(self, base: str, parallel: Parallel = Parallel.DDP, ranks: Ranks | None = None) -> Fit:
        ranks = ranks or Ranks()
        config = TrainingConfig.model_validate(
            {
                "model": {
                    "base": base,
                    "max_tokens": 256,
                    "lora": None,
                    "dtype": "float32",
                    **self.model,
                },
                "optimizer": {"warmup": 0.0, **self.optimizer},
                "correction": self.outer,
                "epochs": self.epochs,
                "batch_size": 8,
                "micro_batch_size": 3,  # accumulates, and ranks differ in their number
                "parallel": parallel,
                "workers": ranks.world,
                "use_gpu": False,
            }
        )
        arm = ArmConfig(name=self.name, correction=self.correction)
        train = [half_right(example) for example in make_examples(self.train, seed=1)]
        meta = make_examples(self.meta, seed=2, role=Role.META)
        return fit_of(config, arm, train, meta, ranks)


CASES = [
    Case("accumulated"),
    Case("clipped", optimizer={"kind": "sgd", "learning_rate": 0.5, "clip_norm": CLIPPED}),
    Case(
        "adapters",
        model={"lora": {"rank": 4}, "gradient_checkpointing": True},
        correction=Correction.CORRECTOR,
    ),
]
ADAM = Case(
    "adam",
    optimizer={"learning_rate": 1e-3, "clip_norm": CLIPPED, "weight_decay": 0.1},
    model={"attention": "eager"},  # the fused kernels have no second derivative for the oracle
    # Nothing between the hypergradient and the labels but its scale.
    outer={
        "every": 1,
        "warmup": 0.0,
        "gradient_ema": 0.0,
        "centred": False,
        "anchor": 0.0,
        "label_rate": RATE,
        "meta_batch": 12,
    },
    epochs=4,
    train=24,
    meta=12,
)


def advance(fit: Fit, to: int) -> ArmState:
    """The state after so many optimizer steps."""
    running = fit.run(lambda state: None)
    while fit.step < to:
        next(running)
    running.close()
    return fit.state()


def judged(fit: Fit) -> list[EncodedSolution]:
    """Five solutions for the first rank, one for any other."""
    return list(fit.data.solutions[:5] if fit.ranks.rank == 0 else fit.data.solutions[5:6])


# --- in each of the two processes ----------------------------------------------------------------


def _rank(rank: int, base: str, place: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=WORLD
    )
    for parallel in Parallel:
        _train(base, f"{place}/{parallel}", parallel, Ranks(rank, WORLD))
    dist.destroy_process_group()


def _train(base: str, place: str, parallel: Parallel, ranks: Ranks) -> None:
    def keep(name: str, state: ArmState) -> None:
        if ranks.rank == 0:
            save_state(f"{place}/{name}", state)

    for case in CASES:
        fit = case.fit(base, parallel, ranks)
        keep(f"{case.name} halfway", advance(fit, HALFWAY))
        keep(case.name, advance(fit, STEPS))

    adam = ADAM.fit(base, parallel, ranks)
    keep("before", advance(adam, 9))
    keep("after", advance(adam, 10))

    resumed = CASES[0].fit(base, parallel, ranks)
    halfway = load_state(f"{place}/../one", "fingerprint")
    assert halfway is not None
    resumed.restore(halfway)
    keep("resumed", advance(resumed, STEPS))

    scores = score_encoded(
        resumed.scorer, judged(resumed), CPU, tokens_per_batch=1, together=resumed.flat.inner.shards
    )
    torch.save(scores, f"{place}/scores of {ranks.rank}")

    if ranks.rank == 1:
        resumed.table.values[:] = torch.inf
    try:
        next(resumed.run(lambda state: None))
    except TrainingDataError as error:
        torch.save(str(error), f"{place}/refusal of {ranks.rank}")


# --- in the test's own ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Together:
    """What the two ranks left."""

    base: str
    place: Path
    one: dict[str, ArmState]  # by one rank, undisturbed

    def state(self, parallel: Parallel, name: str) -> ArmState:
        state = load_state(str(self.place / parallel / name), "fingerprint")
        assert state is not None
        return state


@pytest.fixture(scope="module")
def together(base: str, tmp_path_factory: pytest.TempPathFactory) -> Together:
    place = tmp_path_factory.mktemp("ranks")
    one = {}
    for case in CASES:
        fit = case.fit(base)
        halfway = advance(fit, HALFWAY)
        if case is CASES[0]:
            save_state(str(place / "one"), halfway)
        one[case.name] = advance(fit, STEPS)
    spawn(_rank, (base, str(place)), nprocs=WORLD)
    return Together(base, place, one)


def assert_same(found: ArmState, wanted: ArmState) -> None:
    """Weights, labels and history within the tolerances above."""
    assert found.step == wanted.step
    assert found.layout == wanted.layout
    torch.testing.assert_close(found.parameters, wanted.parameters, atol=WEIGHTS, rtol=0)
    assert wanted.labels.step_ids
    columns = [
        dict(zip(state.labels.step_ids, zip(state.labels.values, state.labels.updates, strict=True),
                 strict=True))
        for state in (found, wanted)
    ]  # fmt: skip
    assert columns[0].keys() == columns[1].keys()
    for step_id, (value, updates) in columns[1].items():
        assert columns[0][step_id] == (pytest.approx(value, abs=LABELS), updates)
    for row, other in zip(found.history, wanted.history, strict=True):
        assert row.loss == pytest.approx(other.loss, abs=1e-5)
        assert row.meta_loss == (other.meta_loss and pytest.approx(other.meta_loss, abs=1e-5))
        assert row.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-3)


@pytest.mark.parametrize("parallel", Parallel)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_two_ranks_give_the_weights_labels_and_losses_of_one(
    together: Together, parallel: Parallel, case: Case
) -> None:
    assert_same(together.state(parallel, case.name), together.one[case.name])
    if case.name == "clipped":
        assert all(row.gradient_norm > CLIPPED for row in together.one[case.name].history)


@pytest.mark.parametrize("parallel", Parallel)
def test_two_ranks_move_labels_along_the_hypergradient_of_autograd(
    together: Together, parallel: Parallel
) -> None:
    before, after = (together.state(parallel, name) for name in ("before", "after"))
    one = ADAM.fit(together.base)
    one.restore(before)
    epoch, place = divmod(one.step, one.plan.steps_per_epoch)
    batch = one.plan.epoch(epoch)[place]
    oracle = unroll(one, batch, one.data)
    slots = one.table.slots(batch)[oracle.free]
    start = one.table.values[slots]
    one.restore(after)
    moved, exact = (start - one.table.values[slots]) / RATE, oracle.of_labels[oracle.free]
    assert_close(moved, exact / exact.square().mean().sqrt(), HYPERGRADIENT)


@pytest.mark.parametrize("parallel", Parallel)
def test_one_rank_goes_on_from_the_checkpoint_of_two(
    together: Together, parallel: Parallel
) -> None:
    for case in (CASES[0], CASES[-1]):
        fit = case.fit(together.base)
        fit.restore(together.state(parallel, f"{case.name} halfway"))
        assert_same(advance(fit, STEPS), together.one[case.name])


@pytest.mark.parametrize("parallel", Parallel)
def test_two_ranks_go_on_from_the_checkpoint_of_one(together: Together, parallel: Parallel) -> None:
    assert_same(together.state(parallel, "resumed"), together.one[CASES[0].name])


@pytest.mark.parametrize("parallel", Parallel)
def test_ranks_with_unequally_many_solutions_score_them_together(
    together: Together, parallel: Parallel
) -> None:
    fit = CASES[0].fit(together.base)
    fit.restore(together.state(parallel, "resumed"))
    wanted = score_encoded(fit.scorer, fit.data.solutions[:6], CPU)
    found = [
        scores
        for rank in range(WORLD)
        for scores in torch.load(together.place / parallel / f"scores of {rank}")
    ]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("parallel", Parallel)
def test_all_ranks_stop_at_a_loss_that_is_not_finite_and_say_the_same(
    together: Together, parallel: Parallel
) -> None:
    first, second = (
        torch.load(together.place / parallel / f"refusal of {rank}") for rank in range(WORLD)
    )
    assert first == second
    assert f"at step {STEPS}" in first
