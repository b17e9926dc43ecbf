"""Training one arm, on one rank, in this process."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from pipeline.config import ArmConfig, Correction, Targets, TrainingConfig
from pipeline.prm.checkpoint import ArmState, load_state, save_state
from pipeline.prm.data import TrainingDataError, TrainingExamples
from pipeline.prm.encoding import Encoder, TokenBatch
from pipeline.prm.fitting import Fit
from pipeline.prm.label_table import CorrectedLabels
from pipeline.prm.model import build_tokenizer
from pipeline.prm.optimizer import ADAM_SETTLES, learning_rate
from pipeline.prm.parallel import Ranks
from pipeline.prm.results import HistoryRow
from pipeline.prm.training_set import prepare
from pipeline.records import Role
from tests.prm.world import fit_of, half_right, make_example, make_examples

CORRECTED = ArmConfig(name="corrected", correction=Correction.LABELS)
CPU = torch.device("cpu")


def make_fit(base: str, arm: ArmConfig, **options: object) -> Fit:
    config = TrainingConfig.model_validate(
        {
            "model": {"base": base, "max_tokens": 256, "lora": None, "dtype": "float32"},
            "optimizer": {"learning_rate": 3e-3},
            "correction": {"every": 2, "meta_batch": 16},
            "epochs": 2,
            "batch_size": 16,
            "micro_batch_size": 8,
            "use_gpu": False,
            **options,
        }
    )
    train = [half_right(example) for example in make_examples(96, seed=1)]
    return fit_of(config, arm, train, make_examples(32, seed=2, role=Role.META), Ranks())


def finish(fit: Fit) -> list[HistoryRow]:
    for _ in fit.run(lambda state: None):
        pass
    return fit.history


def test_a_model_learns_to_tell_right_steps_from_wrong_ones(base: str) -> None:
    arm = ArmConfig(name="true", targets=Targets.TRUE)
    fit = make_fit(base, arm, epochs=30)
    share = float(fit.table.initial.mean())
    knowing_only_the_share = -share * math.log(share) - (1 - share) * math.log(1 - share)
    history = finish(fit)
    assert sum(row.loss for row in history[-6:]) / 6 < 0.9 * knowing_only_the_share


def test_all_arms_see_the_same_batches_and_only_correction_moves_labels(base: str) -> None:
    plain = make_fit(base, ArmConfig(name="plain"))
    corrected = make_fit(base, CORRECTED)
    assert plain.plan.epoch(1) == corrected.plan.epoch(1)
    finish(plain)
    rows = finish(corrected)
    assert torch.equal(plain.table.values.nan_to_num(), plain.table.initial.nan_to_num())
    moved = corrected.table.updates > 0
    assert moved.any()
    assert not moved[~corrected.table.free].any()
    assert [row.step for row in rows if row.meta_loss is not None] == list(range(6, 12, 2))
    assert all((row.hypergradient_norm or 0) > 0 for row in rows if row.meta_loss is not None)


def test_labels_against_a_shuffled_meta_set_are_other_labels(base: str) -> None:
    corrected = make_fit(base, CORRECTED)
    shuffled = make_fit(base, ArmConfig(name="shuffled", correction=Correction.SHUFFLED))
    assert sorted(corrected.meta.labels.tolist()) == sorted(shuffled.meta.labels.tolist())
    finish(corrected)
    finish(shuffled)
    assert not torch.equal(corrected.table.values, shuffled.table.values)


def test_learned_weights_move_and_labels_stay(base: str) -> None:
    fit = make_fit(base, ArmConfig(name="weights", correction=Correction.WEIGHTS))
    rows = finish(fit)
    moved = fit.table.updates > 0
    assert moved.any()
    assert not torch.equal(fit.table.weights[moved], torch.ones(int(moved.sum())))
    assert bool((fit.table.weights[~fit.table.free] == 1.0).all())
    assert torch.equal(fit.table.values.nan_to_num(), fit.table.initial.nan_to_num())
    assert rows[0].mean_weight == 1.0 != rows[-1].mean_weight


def test_a_corrector_labels_the_steps_of_every_batch_once_it_has_learned(base: str) -> None:
    arm = ArmConfig(name="corrector", correction=Correction.CORRECTOR)
    fit = make_fit(base, arm, correction={"every": 2, "meta_batch": 16}, epochs=3)
    finish(fit)
    free = fit.table.free
    assert bool((fit.table.updates[free] >= 1).all())
    assert not torch.equal(fit.table.values[free], fit.table.initial[free])


def test_meta_programs_of_the_same_problems_are_those_of_the_batch(base: str) -> None:
    fit = make_fit(base, CORRECTED, correction={"meta_problems": "same", "meta_batch": 8})
    batch = fit.plan.epoch(0)[1]
    problems = {fit.data.examples[index].problem_id for index in batch}
    chosen = fit.meta.draw(0, batch)
    assert len(chosen) == len(set(chosen)) == 8
    for index in chosen:
        assert fit.data.examples[index].problem_id in problems
        assert fit.meta.labels[index] == fit.data.examples[index].final_label
        assert len(fit.meta.solutions[index].step_positions) == 1
    assert chosen != fit.meta.draw(1, batch)
    finish(fit)
    assert (fit.table.updates > 0).any()


def test_an_outcome_model_is_trained_on_last_steps_alone(base: str) -> None:
    fit = make_fit(base, ArmConfig(name="orm", targets=Targets.FINAL))
    assert fit.table.initial.isfinite().sum() == len(fit.data.examples)
    assert finish(fit)[-1].mean_label is None


@pytest.mark.parametrize("correction", ["labels", "weights", "corrector"])
def test_a_killed_run_resumes_to_the_same_weights_and_labels(
    base: str, tmp_path: Path, correction: Correction
) -> None:
    arm = ArmConfig(name="corrected", correction=correction)
    undisturbed = make_fit(base, arm)
    finish(undisturbed)

    killed = make_fit(base, arm, checkpoint_every=5)
    running = killed.run(lambda state: save_state(str(tmp_path), state))
    for _ in range(7):
        next(running)
    running.close()

    resumed = make_fit(base, arm)
    state = load_state(str(tmp_path), "fingerprint")
    assert state is not None
    assert state.step == 5
    resumed.restore(state)
    assert finish(resumed) == undisturbed.history
    assert torch.equal(resumed.flat.values, undisturbed.flat.values)
    moments, wanted = resumed.optimizer.state(), undisturbed.optimizer.state()
    assert moments.keys() == wanted.keys() != set()
    assert all(torch.equal(moments[name], wanted[name]) for name in wanted)
    assert torch.equal(resumed.table.values.nan_to_num(), undisturbed.table.values.nan_to_num())
    assert torch.equal(resumed.table.weights, undisturbed.table.weights)
    assert torch.equal(resumed.table.updates, undisturbed.table.updates)


def test_a_checkpoint_of_another_training_is_refused(base: str, tmp_path: Path) -> None:
    fit = make_fit(base, CORRECTED)
    save_state(str(tmp_path), fit.state())
    with pytest.raises(TrainingDataError, match="other data or settings"):
        load_state(str(tmp_path), "another")
    assert load_state(str(tmp_path / "empty"), "fingerprint") is None
    (name, shape), *rest = fit.flat.layout
    wider = dataclasses.replace(fit.state(), layout=((name, (999, *shape[1:])), *rest))
    with pytest.raises(
        TrainingDataError, match=rf"another model.* hold {name} \[999, .* has {name}"
    ):
        fit.restore(wider)
    moved = CorrectedLabels(("strange",), (0.5,), (1,), (1.0,))
    other = dataclasses.replace(fit.state(), labels=moved)
    with pytest.raises(TrainingDataError, match=r"other labels: 1 of its 1 .*, strange for one"):
        fit.restore(other)


def test_a_checkpoint_of_another_version_is_refused(base: str, tmp_path: Path) -> None:
    torch.save({"fingerprint": "fingerprint"}, tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingDataError, match=r"checkpoint\.pt was written by another version"):
        load_state(str(tmp_path), "fingerprint")


def test_micro_batches_do_not_change_the_training(base: str) -> None:
    whole = make_fit(base, CORRECTED, micro_batch_size=16)
    pieces = make_fit(base, CORRECTED, micro_batch_size=3)
    for first, second in zip(finish(whole), finish(pieces), strict=True):
        assert first.loss == pytest.approx(second.loss, rel=1e-4)


def test_a_loss_that_is_not_finite_stops_and_names_step_and_solutions(base: str) -> None:
    fit = make_fit(base, ArmConfig(name="plain"), checkpoint_every=2)
    saved: list[ArmState] = []
    running = fit.run(saved.append)
    next(running)
    next(running)
    fit.flat.values.data[:] = torch.nan
    batch = fit.plan.epoch(0)[2]
    name = fit.data.solutions[batch[0]].solution_id
    with pytest.raises(TrainingDataError, match=f"loss nan.* at step 2 .*16 solutions: {name}"):
        next(running)
    assert saved[-1].step == 2


def test_the_solution_that_breaks_a_loss_is_named_alone(base: str) -> None:
    fit = make_fit(base, ArmConfig(name="plain"))
    broken = fit.data.solutions[fit.plan.epoch(0)[0][5]]
    forward = fit.scorer.forward

    def overflow(batch: TokenBatch) -> torch.Tensor:
        rows = [list(row[: len(broken.token_ids)]) for row in batch.token_ids.tolist()]
        hit = torch.tensor([row == list(broken.token_ids) for row in rows])
        return forward(batch).masked_fill(hit[batch.step_rows], torch.inf)

    fit.scorer.forward = overflow
    with pytest.raises(TrainingDataError, match=f"1 solutions: {broken.solution_id}\\)"):
        next(fit.run(lambda state: None))


def test_a_correction_without_a_meta_program_that_fits_is_refused(base: str) -> None:
    config = make_fit(base, ArmConfig(name="plain")).config
    long = make_example(("double",) * 60, ("double",) * 60, role=Role.META)
    with pytest.raises(
        TrainingDataError,
        match=r"correction 'labels' needs solutions of meta problems.*1 programs did not fit",
    ):
        fit_of(config, CORRECTED, make_examples(4), [long], Ranks())


def test_correction_stops_and_says_when_labels_drift_together(base: str) -> None:
    fit = make_fit(base, CORRECTED)
    fit.table.values[fit.table.free] = 0.001  # as if driven there
    running = fit.run(lambda state: None)
    for _ in range(10):
        next(running)
    assert fit.correction.stopped_at == 6
    assert [row.step for row in fit.history if row.meta_loss is not None] == [6]


@pytest.mark.parametrize(("kind", "first"), [("adamw", ADAM_SETTLES), ("sgd", 0)])
def test_no_label_is_corrected_through_the_first_updates_of_adam(
    base: str, kind: str, first: int
) -> None:
    fit = make_fit(
        base, CORRECTED, optimizer={"kind": kind}, correction={"every": 1, "warmup": 0.0}
    )
    rows = finish(fit)
    assert [row.step for row in rows if row.meta_loss is not None] == list(range(first, fit.total))


def test_programs_that_do_not_fit_are_left_out_and_counted(base: str) -> None:
    config = TrainingConfig.model_validate(
        {"model": {"base": base, "max_tokens": 256}, "arms": [{"name": "plain"}]}
    )
    encoder = Encoder(build_tokenizer(config.model))
    long = make_example(("double",) * 60, ("double",) * 60)
    some = make_examples(8)
    data = prepare(TrainingExamples((long, *some), ()), encoder, config)
    assert (data.too_long, len(data.examples)) == (1, 8)
    with pytest.raises(TrainingDataError, match=r"none of 1 programs fits into 256 tokens"):
        prepare(TrainingExamples((long,), ()), encoder, config)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"name": "orm", "targets": "final"}, "none of its 2 solutions with code is failing"),
        ({"name": "labels", "correction": "labels"}, "role 'meta': none of its 1 .* is passing"),
        ({"name": "crossfit", "targets": "crossfit"}, "there is one problem"),
    ],
)
def test_what_is_left_after_the_programs_that_do_not_fit_is_checked_again(
    base: str, arm: dict[str, str], message: str
) -> None:
    config = TrainingConfig.model_validate(
        {"model": {"base": base, "max_tokens": 256}, "arms": [arm]}
    )
    many = ("double",) * 60
    wrong = ("square", *many[1:])
    short = [
        make_example(("double", "double"), ("double", last), index=index)
        for index, last in enumerate(("double", "double", "square"))
    ]
    kept = short[:2] if arm["name"] == "orm" else short
    train = (*kept, make_example(many, wrong), make_example(many, many))
    meta = (
        make_example(("halve",), ("square",), role=Role.META),
        make_example(many, many, role=Role.META),
    )
    encoder = Encoder(build_tokenizer(config.model))
    with pytest.raises(TrainingDataError, match=f"{message}.*programs did not fit into 256 tokens"):
        prepare(TrainingExamples(train, meta), encoder, config)


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    optimizer = TrainingConfig.model_validate(
        {"optimizer": {"learning_rate": 1.0, "warmup": 0.1}}
    ).optimizer
    rates = [learning_rate(optimizer, step, 100) for step in range(101)]
    assert rates[:11] == sorted(rates[:11])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0.0)
