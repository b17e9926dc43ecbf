import itertools
from collections.abc import Iterable, Sequence

import pytest
import torch

from pipeline.config import CorrectionConfig, LabelSpace, Targets
from pipeline.prm.correction import (
    CorrectionState,
    averaged,
    has_drifted,
    is_due,
    move_labels,
    move_weights,
)
from pipeline.prm.label_table import (
    Evidence,
    LabelTable,
    initial_label,
    initial_labels,
    label_estimates,
)
from pipeline.prm.parallel import Ranks
from pipeline.records import Example
from tests.prm.world import make_example, make_examples

EXAMPLES = make_examples(20, seed=3)


def soft_labels(examples: Sequence[Example]) -> list[list[float | None]]:
    return [initial_labels(example, Targets.SOFT) for example in examples]


def table_of(examples: Sequence[Example], owned: Iterable[int]) -> LabelTable:
    return LabelTable(examples, soft_labels(examples), owned)


@pytest.mark.parametrize(
    ("targets", "passed", "trials", "final", "truth", "label"),
    [
        (Targets.SOFT, 1, 4, False, None, 0.25),
        (Targets.SOFT, 0, 0, True, None, None),
        (Targets.HARD, 1, 4, False, None, 1.0),
        (Targets.HARD, 0, 4, True, None, 0.0),
        (Targets.HARD, 0, 0, True, None, None),
        (Targets.PROVEN, 0, 4, True, None, 1.0),
        (Targets.PROVEN, 0, 0, True, None, 1.0),
        (Targets.PROVEN, 1, 4, False, None, 0.25),
        (Targets.FINAL, 4, 4, True, None, None),
        (Targets.TRUE, 0, 4, False, True, 1.0),
        (Targets.TRUE, 0, 0, False, False, 0.0),
    ],
)
def test_the_first_label_of_a_step_follows_its_targets(
    targets: Targets, passed: int, trials: int, final: bool, truth: bool | None, label: float | None
) -> None:
    assert initial_label(targets, Evidence(passed, trials, final, truth)) == label


def test_true_targets_without_known_truth_are_refused() -> None:
    with pytest.raises(ValueError, match="known truth"):
        initial_label(Targets.TRUE, Evidence(4, 4, True))


def test_the_last_step_carries_the_clean_final_label_under_all_targets() -> None:
    wrong = make_example(("double", "square"), ("double", "triple"), passed=(2, 4))
    for targets in Targets:
        assert initial_labels(wrong, targets, dict.fromkeys(wrong.step_ids, 0.5))[-1] == 0.0
    assert initial_labels(wrong, Targets.FINAL) == [None, 0.0]


def test_a_label_that_was_not_updated_has_not_moved() -> None:
    table = table_of(EXAMPLES, range(20))
    slots = table.slots([3, 7])
    slots = slots[table.free[slots]]
    table.update(slots, torch.full((len(slots),), 0.5))
    untouched = torch.ones(len(table.values), dtype=torch.bool)
    untouched[slots] = False
    assert torch.equal(table.values[untouched], table.initial[untouched])
    assert table.updates.sum() == len(slots)


def test_clean_labels_and_steps_without_evidence_cannot_be_corrected() -> None:
    example = make_example(("double",) * 3, ("double",) * 3, passed=(0, 4, 4), trials=(0, 4, 4))
    table = table_of([example], [0])
    assert table.free.tolist() == [False, True, False]
    assert table.values[0].isnan()
    for slot in (0, 2):
        with pytest.raises(ValueError, match="intermediate steps with evidence"):
            table.update(torch.tensor([slot]), torch.tensor([0.5]))


def test_a_checkpoint_of_two_ranks_restores_on_three() -> None:
    owned_by_two = [list(range(rank, 20, 2)) for rank in range(2)]
    tables = [table_of(EXAMPLES, owned) for owned in owned_by_two]
    for table, owned in zip(tables, owned_by_two, strict=True):
        slots = table.slots(owned[:4])
        slots = slots[table.free[slots]]
        table.update(slots, torch.linspace(0.1, 0.9, len(slots)))
    whole = table_of(EXAMPLES, range(20))
    for table in tables:
        whole.restore(table.corrected())
    again = [table_of(EXAMPLES, range(rank, 20, 3)) for rank in range(3)]
    for table in again:
        table.restore(whole.corrected())
    merged = dict(
        itertools.chain(
            *(
                zip(
                    t.step_ids, zip(t.values.tolist(), t.updates.tolist(), strict=True), strict=True
                )
                for t in again
            )
        )
    )
    assert merged == dict(
        zip(
            whole.step_ids,
            zip(whole.values.tolist(), whole.updates.tolist(), strict=True),
            strict=True,
        )
    )


def test_label_estimates_name_every_labelled_intermediate_step() -> None:
    table = table_of(EXAMPLES, range(20))
    slot = int(table.free.nonzero()[0])
    table.update(torch.tensor([slot]), torch.tensor([0.75]))
    rows = {
        row.step_id: row
        for row in label_estimates(EXAMPLES, soft_labels(EXAMPLES), table.corrected())
    }
    assert len(rows) == int(table.free.sum())
    moved = rows.pop(table.step_ids[slot])
    assert (moved.corrected, moved.updates) == (0.75, 1)
    assert all(row.corrected == row.initial and row.updates == 0 for row in rows.values())


def moved_labels(config: CorrectionConfig, hypergradient: torch.Tensor) -> torch.Tensor:
    examples = [make_example(("double",) * 5, ("double",) * 5, passed=(2,) * 5)]
    table = table_of(examples, [0])
    move_labels(config, table, table.slots([0]), hypergradient, Ranks())
    return table.values


def test_labels_go_against_the_hypergradient_and_only_by_its_shape() -> None:
    config = CorrectionConfig(label_rate=0.1, anchor=0.0, centred=True)
    h = torch.tensor([1.0, 2.0, 3.0, 6.0, 99.0])  # the last step's label is clean
    labels = moved_labels(config, h)
    centred = (h[:4] - 3.0) / (h[:4] - 3.0).square().mean().sqrt()
    torch.testing.assert_close(labels[:4], 0.5 - 0.1 * centred)
    assert labels[4] == 1.0
    torch.testing.assert_close(moved_labels(config, 1e-3 * h + 5.0), labels, atol=1e-3, rtol=0)


def test_labels_stay_in_the_unit_interval() -> None:
    config = CorrectionConfig(label_rate=10.0)
    labels = moved_labels(config, torch.tensor([-1.0, 1.0, -2.0, 2.0, 0.0]))
    assert labels.tolist() == [1.0, 0.0, 1.0, 0.0, 1.0]


def test_the_anchor_pulls_a_moved_label_back_to_its_evidence() -> None:
    config = CorrectionConfig(label_rate=0.1, anchor=0.5, centred=True)
    table = table_of([make_example(("double",) * 3, ("double",) * 3, passed=(2,) * 3)], [0])
    table.update(torch.tensor([0, 1]), torch.tensor([0.9, 0.9]))
    move_labels(config, table, table.slots([0]), torch.tensor([-1.0, 1.0, 0.0]), Ranks())
    pull = 0.1 * 0.5 * 0.4
    torch.testing.assert_close(table.values[:2], torch.tensor([1.0 - pull, 0.8 - pull]))


def test_a_logit_moves_along_its_own_derivative_and_never_reaches_an_end() -> None:
    config = CorrectionConfig(label_rate=0.1, anchor=0.0, label_space=LabelSpace.LOGIT)
    h = torch.tensor([1.0, 2.0, 3.0, 6.0, 99.0])
    centred = (h[:4] - 3.0) / (h[:4] - 3.0).square().mean().sqrt()
    labels = moved_labels(config, h)
    torch.testing.assert_close(labels[:4], (-0.1 * centred).sigmoid())
    far = moved_labels(config.model_copy(update={"label_rate": 8.0}), h)[:4]
    assert bool(((far > 0) & (far < 1)).all())
    assert far.max() > 0.99


def test_weights_move_by_the_rule_of_labels_and_labels_stay() -> None:
    config = CorrectionConfig(label_rate=0.1, anchor=0.5)
    table = table_of([make_example(("double",) * 4, ("double",) * 4, passed=(2,) * 4)], [0])
    table.reweigh(torch.tensor([0]), torch.tensor([1.6]))
    move_weights(config, table, table.slots([0]), torch.tensor([-1.0, 0.0, 1.0, 99.0]), Ranks())
    step = 0.1 * 1.5**0.5
    # Half a weight is what moves: 0.8 is pulled back towards 0.5.
    expected = [2 * (0.8 + step - 0.1 * 0.5 * 0.3), 1.0, 2 * (0.5 - step), 1.0]
    torch.testing.assert_close(table.weights, torch.tensor(expected))
    assert torch.equal(table.values, table.initial)
    move_weights(
        CorrectionConfig(label_rate=99.0),
        table,
        table.slots([0]),
        torch.tensor([-1.0, 0.0, 1.0, 0.0]),
        Ranks(),
    )
    assert table.weights.tolist()[::2] == [2.0, 0.0]


def test_a_flat_hypergradient_moves_nothing() -> None:
    labels = moved_labels(CorrectionConfig(), torch.ones(5))
    assert labels.tolist() == [0.5] * 4 + [1.0]


def test_correction_waits_for_the_warm_up_and_stops_for_good_when_guarded() -> None:
    config = CorrectionConfig(every=4, warmup=0.25)
    state = CorrectionState()
    assert [s for s in range(40) if is_due(config, state, s, 40)] == list(range(12, 40, 4))
    state.stopped_at = 12
    assert not any(is_due(config, state, s, 40) for s in range(40))


def test_the_running_mean_of_meta_gradients_has_no_bias_at_the_start() -> None:
    config, state = CorrectionConfig(gradient_ema=0.9), CorrectionState()
    for _ in range(3):
        mean = averaged(config, state, torch.tensor([2.0, -1.0]))
        torch.testing.assert_close(mean, torch.tensor([2.0, -1.0]))


@pytest.mark.parametrize(
    ("mean", "first", "drifted"),
    [(0.5, 0.5, False), (0.04, 0.5, True), (0.96, 0.5, True), (0.04, 0.05, False)],
)
def test_drift_is_measured_against_the_first_mean_label(
    mean: float, first: float, drifted: bool
) -> None:
    assert has_drifted(mean, first) is drifted


@pytest.mark.parametrize("label", [float("nan"), -0.1, 1.5])
def test_a_label_that_is_none_is_refused_with_its_step(label: float) -> None:
    example = make_example(("double",) * 3, ("double",) * 3)
    with pytest.raises(ValueError, match=f"{example.solution_id}: the label of step 2 is {label}"):
        LabelTable([example], [[0.5, label, 1.0]], [0])
