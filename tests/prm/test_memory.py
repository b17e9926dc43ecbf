"""How many vectors as long as the trained weights a correction holds, and that fewer of them are
the same ones."""

import gc

import pytest
import torch

from pipeline.config import ArmConfig, Correction, TrainingConfig
from pipeline.prm import hypergradient as hyper
from pipeline.prm.flat_parameters import FlatParameters
from pipeline.prm.parallel import Ranks
from pipeline.prm.passes import Share, Steps
from pipeline.records import Role
from tests.prm.world import fit_of, make_examples

ALWAYS = 5  # weights, gradient, two moments, running mean of the meta gradient
ALONG = 3  # phi, v and the weights that the optimizer has reached


def held() -> dict[int, int]:
    """Bytes of every tensor's storage, by where it is."""
    storages = [
        each.untyped_storage() for each in gc.get_objects() if isinstance(each, torch.Tensor)
    ]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def test_the_passes_along_v_hold_no_vector_that_they_do_not_need(base: str) -> None:
    config = TrainingConfig.model_validate(
        {
            "model": {"base": base, "max_tokens": 256, "lora": None, "dtype": "float32"},
            "optimizer": {"clip_norm": 0.02},  # clips every gradient: its copy is needed before
            "correction": {"every": 1, "meta_batch": 8},
            "batch_size": 8,
            "epochs": 4,
            "use_gpu": False,
        }
    )
    arm = ArmConfig(name="corrected", correction=Correction.LABELS)
    meta = make_examples(8, seed=2, role=Role.META)
    gc.collect()
    before = held()  # by trainings of earlier tests
    fit = fit_of(config, arm, make_examples(32, seed=1), meta, Ranks())
    logits, counts = fit.passes.logits, []

    def counting(share: Share) -> Steps:
        mine = [size for place, size in held().items() if place not in before]
        counts.append(mine.count(4 * len(fit.flat.values)))
        return logits(share)

    fit.passes.logits = counting
    for _ in fit.run(lambda state: None):
        pass
    assert fit.history[-1].meta_loss is not None
    assert fit.history[-1].gradient_norm > 0.02
    assert counts
    assert max(counts) <= ALWAYS + ALONG


def test_weights_along_a_direction_are_those_of_the_formula() -> None:
    module = torch.nn.Linear(7, 5)
    flat = FlatParameters(module)
    start, direction = torch.randn(2, len(flat.values)).unbind()
    flat.assign_along(start, direction, -0.37)
    assert torch.equal(flat.values.data, start - 0.37 * direction)
    assert torch.equal(module.bias.data, flat.values.data[35:])


def test_the_diagonal_of_many_weights_is_that_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    gradient, first = torch.randn(2, 1000).unbind()
    second = torch.rand(1000)
    gradient[::7] = first[::7] = second[::7] = 0.0  # never touched
    of = gradient, first, second
    whole = hyper.adamw_diagonal(*of, 9, (0.9, 0.999), 1e-8)
    monkeypatch.setattr(hyper, "AT_ONCE", 64)
    assert torch.equal(hyper.adamw_diagonal(*of, 9, (0.9, 0.999), 1e-8), whole)
    assert bool((whole[::7] == 0.0).all())
    assert bool(whole.isfinite().all())
