"""The label corrector, without a PRM: the hypergradient is given."""

import copy

import pytest
import torch

from pipeline.config import CorrectionConfig, Targets
from pipeline.prm.corrector import Corrector, step_features
from pipeline.prm.label_table import LabelTable, initial_labels
from pipeline.prm.parallel import Ranks
from tests.prm.world import half_right, make_example, make_examples

EXAMPLES = [half_right(example) for example in make_examples(30, seed=3)]


def make(**options: object) -> tuple[Corrector, LabelTable]:
    labels = [initial_labels(example, Targets.SOFT) for example in EXAMPLES]
    table = LabelTable(EXAMPLES, labels, range(len(EXAMPLES)))
    known = step_features(EXAMPLES, range(len(EXAMPLES)))
    config = CorrectionConfig.model_validate({"corrector_rate": 0.05, **options})
    return Corrector(config, table, known, 0, Ranks()), table


def everything(table: LabelTable) -> tuple[torch.Tensor, torch.Tensor]:
    """All slots, and logits that differ from step to step."""
    count = len(table.values)
    return torch.arange(count), torch.linspace(-3, 3, count)


def test_a_new_corrector_gives_every_label_its_evidence() -> None:
    corrector, table = make()
    corrector.relabel(*everything(table))
    assert torch.equal(table.values[table.free], table.initial[table.free])


def test_labels_of_steps_known_to_be_alike_move_alike_against_their_hypergradient() -> None:
    corrector, table = make(anchor=0.0)
    slots, logits = everything(table)
    final = torch.tensor([e.final_label for e in EXAMPLES for _ in e.step_ids])
    h = torch.where(final, -1.0, 1.0)  # prefixes of passing solutions deserve more
    for _ in range(60):
        corrector.learn(slots, logits, h)
    corrector.relabel(slots, logits)
    moved = (table.values - table.initial)[table.free]
    assert moved[final[table.free]].mean() > 0.2
    assert moved[~final[table.free]].mean() < -0.2
    assert torch.equal(table.values[~table.free], table.initial[~table.free])


def test_a_pull_common_to_all_labels_moves_none() -> None:
    corrector, table = make(anchor=0.0, centred=False)
    slots, logits = everything(table)
    for _ in range(20):
        corrector.learn(slots, logits, torch.ones(len(slots)))
    corrector.relabel(slots, logits)
    assert (table.values - table.initial)[table.free].abs().max() < 1e-4


def test_shifts_are_centred_over_the_batch_last_corrected() -> None:
    corrector, table = make(anchor=0.0, corrector_rate=0.005)
    slots, logits = everything(table)
    h = torch.randn(len(slots), generator=torch.Generator().manual_seed(0))
    for _ in range(6):
        corrector.learn(slots, logits, h)
    corrector.relabel(slots, logits)
    moved = (table.values - table.initial)[table.free]
    assert moved.abs().max() > 0.02
    assert moved.mean().abs() < 1e-5  # no label is at an end, so none is clipped
    assert table.values[table.free].min() > 0.0


def test_the_anchor_holds_labels_near_their_evidence() -> None:
    distance = []
    for anchor in (0.0, 10.0):
        corrector, table = make(anchor=anchor)
        slots, logits = everything(table)
        for _ in range(100):
            corrector.learn(slots, logits, logits)
        corrector.relabel(slots, logits)
        distance.append(float((table.values - table.initial)[table.free].abs().mean()))
    assert distance[1] < 0.5 * distance[0]


def test_the_gradient_of_the_network_is_the_chain_rule_through_its_labels() -> None:
    corrector, table = make(anchor=0.0, centred=False)
    slots, logits = everything(table)
    generator = torch.Generator().manual_seed(1)
    for parameter in corrector._network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    free = table.free
    h = torch.randn(len(slots), generator=generator)
    shift = corrector._shift(slots[free], logits[free])
    labels = table.initial[free] + shift - shift.mean()  # interior: nothing is clipped
    assert labels.min() > 0
    assert labels.max() < 1
    normal = h[free] / h[free].square().mean().sqrt()
    exact = torch.autograd.grad((normal * labels).mean(), list(corrector._network.parameters()))
    corrector.learn(slots, logits, h)
    for parameter, wanted in zip(corrector._network.parameters(), exact, strict=True):
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-5, atol=1e-7)


def test_a_label_at_an_end_is_not_pushed_further_out_but_can_come_back() -> None:
    examples = [make_example(("double",) * 3, ("double",) * 3, passed=(0, 4, 4))]
    labels = [initial_labels(example, Targets.SOFT) for example in examples]
    table = LabelTable(examples, labels, [0])
    known = step_features(examples, [0])
    slots, logits = torch.arange(3), torch.tensor([-1.0, 1.0, 0.0])
    config = CorrectionConfig(anchor=0.0, corrector_rate=0.05)
    outward, inward = torch.tensor([1.0, -1.0, 0.0]), torch.tensor([-1.0, 1.0, 0.0])
    stays = Corrector(config, table, known, 0, Ranks())
    for _ in range(20):
        stays.learn(slots, logits, outward)
    stays.relabel(slots, logits)
    assert table.values[:2].tolist() == [0.0, 1.0]
    returns = Corrector(config, table, known, 0, Ranks())
    for _ in range(20):
        returns.learn(slots, logits, inward)
    returns.relabel(slots, logits)
    assert table.values[0] > 0.05
    assert table.values[1] < 0.95


def test_a_restored_corrector_goes_on_as_the_one_that_was_saved() -> None:
    first, table = make()
    slots, logits = everything(table)
    for _ in range(3):
        first.learn(slots, logits, logits)
    second, other = make()
    second.restore(copy.deepcopy(first.state()))
    for corrector in (first, second):
        corrector.learn(slots, logits, logits)
        corrector.relabel(slots, logits)
    assert torch.equal(table.values[table.free], other.values[table.free])


def test_what_is_known_of_a_step_is_in_one_row_of_numbers_between_ends() -> None:
    right = make_example(("double",) * 2, ("double",) * 2, passed=(1, 4), trials=(4, 4))
    wrong = make_example(("double",) * 2, ("double", "square"), passed=(0, 0), trials=(0, 4))
    rows = (step_features([right, wrong], [0, 1]) + 1) / 2
    # rollouts passed, rollouts of 16, position, final label, the problem's pass rate
    assert rows[0].tolist() == pytest.approx([0.25, 0.25, 0.5, 1.0, 0.5])
    assert rows[2].tolist() == pytest.approx([0.5, 0.0, 0.5, 0.0, 0.5])
    assert step_features([right, wrong], []).shape == (0, 5)
