"""A base in bfloat16 with float32 adapters, as on GPUs."""

import math
from pathlib import Path

import pytest
import torch

from pipeline.config import ArmConfig, Correction, TrainingConfig
from pipeline.prm.export import export
from pipeline.prm.flat_parameters import pieces
from pipeline.prm.parallel import Ranks
from pipeline.prm.scoring import Scorer
from pipeline.records import Role
from tests.prm.world import fit_of, half_right, make_examples

CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
)


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("correction", [Correction.LABELS, Correction.CORRECTOR])
def test_a_bfloat16_base_with_adapters_is_trained_corrected_and_scored(
    base: str, tmp_path: Path, device: str, correction: Correction
) -> None:
    config = TrainingConfig.model_validate(
        {
            "model": {
                "base": base, "max_tokens": 256, "dtype": "bfloat16", "lora": {"rank": 4},
                "gradient_checkpointing": True,
            },
            "optimizer": {"learning_rate": 3e-3},
            "correction": {"every": 2, "meta_batch": 16},
            "epochs": 3,
            "batch_size": 16,
            "micro_batch_size": 8,
            "use_gpu": device == "cuda",
        }
    )  # fmt: skip
    train = [half_right(example) for example in make_examples(96, seed=1)]
    meta = make_examples(32, seed=2, role=Role.META)
    on = torch.device(device)
    arm = ArmConfig(name="corrected", correction=correction)
    fit = fit_of(config, arm, train, meta, Ranks(device=on), on)
    for report in fit.run(lambda state: None):
        assert math.isfinite(report.row.loss)
    assert (fit.table.updates > 0).any()
    assert fit.flat.values.dtype is torch.float32

    weights = fit.flat.whole(fit.flat.values.data)
    export(config.model, pieces(fit.flat.layout, weights), tmp_path)
    scored = Scorer(str(tmp_path / "model"), device=device).score(train)
    assert [len(row.step_scores) for row in scored] == [len(e.step_ids) for e in train]
    assert all(0.0 < score < 1.0 for row in scored for score in row.step_scores)
