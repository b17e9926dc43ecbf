"""A base in bfloat16 with float32 adapters, as on GPUs."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForTokenClassification

from pipeline.config import ArmConfig, Correction, ModelConfig, TrainingConfig
from pipeline.prm.encoding import Encoder, Skip
from pipeline.prm.export import export
from pipeline.prm.flat_parameters import pieces
from pipeline.prm.model import StepScorer, build_scorer, load_scorer
from pipeline.prm.parallel import CPU, Ranks
from pipeline.prm.scoring import Scorer, score_encoded
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


def changed(scorer: StepScorer) -> dict[str, torch.Tensor]:
    """The trained weights, moved as by some training to what bfloat16 cannot hold."""
    random = torch.Generator().manual_seed(0)
    trained = {name: p for name, p in scorer.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(torch.randn(parameter.shape, generator=random) * 0.05)
    return {name: parameter.detach() for name, parameter in trained.items()}


def head_of(scorer: StepScorer) -> torch.Tensor:
    """Its weights that are in use: peft keeps those of the base beside them."""
    (weight,) = (p for p in scorer.head.parameters() if p.requires_grad and p.ndim == 2)
    return weight.detach().clone()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_model_trained_whole_is_scored_in_the_dtype_that_it_was_trained_in(
    base: str, tmp_path: Path, dtype: str
) -> None:
    config = ModelConfig.model_validate(
        {"base": base, "max_tokens": 256, "lora": None, "dtype": dtype}
    )
    scorer, tokenizer = build_scorer(config, 0, CPU)
    export(config, changed(scorer), tmp_path)
    examples = make_examples(6)
    encoded = [s for s in Encoder(tokenizer).encode(examples).outcomes if not isinstance(s, Skip)]
    in_training = score_encoded(scorer, encoded, CPU)
    scored = [
        row.step_scores for row in Scorer(str(tmp_path / "model"), device="cpu").score(examples)
    ]
    assert scored == in_training

    network = AutoModelForTokenClassification.from_pretrained(tmp_path / "model")
    assert network.config.prm_compute_dtype == dtype
    assert network.dtype is torch.float32
    other = {"bfloat16": torch.float32, "float32": torch.bfloat16}[dtype]
    for compute_dtype, agree in ((getattr(torch, dtype), True), (other, False)):
        found = score_encoded(StepScorer(network.eval(), compute_dtype), encoded, CPU)
        assert (found == in_training) is agree


def test_the_head_on_a_bfloat16_base_is_float32_from_training_to_scoring(
    base: str, tmp_path: Path
) -> None:
    config = ModelConfig.model_validate(
        {"base": base, "max_tokens": 256, "lora": {"rank": 4}, "dtype": "bfloat16"}
    )
    scorer, _ = build_scorer(config, 0, CPU)
    weights = changed(scorer)
    head = head_of(scorer)
    assert not torch.equal(head, head.bfloat16().float())
    export(config, weights, tmp_path)
    scoring, _ = load_scorer(str(tmp_path / "model"), CPU)
    assert scoring.compute_dtype is scoring.classifier.dtype is torch.bfloat16
    assert torch.equal(head_of(scoring), head)

    # And on, where a trained PRM is the base of the next training.
    again, _ = build_scorer(config.model_copy(update={"base": str(tmp_path / "model")}), 0, CPU)
    assert torch.equal(head_of(again), head)
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path / "model")
    assert loaded.score.weight.dtype is torch.bfloat16  # nothing is changed for others
