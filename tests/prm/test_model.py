from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForTokenClassification
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    Starcoder2Config,
    Starcoder2ForCausalLM,
)

from pipeline.config import LoRA, ModelConfig
from pipeline.prm.encoding import EncodedSolution, Encoder, collate
from pipeline.prm.export import export
from pipeline.prm.model import StepScorer, build_scorer
from pipeline.prm.scoring import Scorer
from tests.prm.world import make_example, make_examples

CPU = torch.device("cpu")


def config_of(base: str, lora: LoRA | None, dtype: str = "float32") -> ModelConfig:
    return ModelConfig.model_validate(
        {"base": base, "max_tokens": 256, "lora": lora, "dtype": dtype}
    )


def built(base: str, lora: LoRA | None, dtype: str = "float32") -> tuple[StepScorer, Encoder]:
    scorer, tokenizer = build_scorer(config_of(base, lora, dtype), seed=0, device=CPU)
    return scorer, Encoder(tokenizer)


def trained_weights(scorer: StepScorer) -> dict[str, torch.Tensor]:
    """As after some training: no new weight is zero."""
    random = torch.Generator().manual_seed(0)
    trained = {n: p for n, p in scorer.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(torch.randn(parameter.shape, generator=random) * 0.05)
    return {name: parameter.detach() for name, parameter in trained.items()}


def scores_by_transformers(network: torch.nn.Module, encoded: list[EncodedSolution]):
    """One solution at a time, as the model card says."""
    scores = []
    for solution in encoded:
        with torch.inference_mode():
            logits = network.eval()(torch.tensor([solution.token_ids])).logits
        scores.append(logits[0, list(solution.step_positions), 0].sigmoid())
    return torch.cat(scores)


@pytest.mark.parametrize("lora", [None, LoRA(rank=4)], ids=["full", "lora"])
def test_an_exported_model_gives_the_same_scores_through_transformers_peft_and_scoring(
    base: str, tmp_path: Path, lora: LoRA | None
) -> None:
    scorer, encoder = built(base, lora)
    examples = make_examples(6)
    encoded = [s for s in encoder.encode(examples).outcomes if isinstance(s, EncodedSolution)]
    weights = trained_weights(scorer)
    with torch.inference_mode():
        trained = scorer(collate(encoded)).sigmoid()
    export(config_of(base, lora), weights, tmp_path)

    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path / "model")
    assert loaded.config.num_labels == 1
    torch.testing.assert_close(scores_by_transformers(loaded, encoded), trained, atol=1e-5, rtol=0)

    assert (tmp_path / "adapter").exists() is (lora is not None)
    if lora:
        for loader in (AutoPeftModelForTokenClassification, AutoModelForTokenClassification):
            adapter = loader.from_pretrained(tmp_path / "adapter", num_labels=1)
            by_loader = scores_by_transformers(adapter, encoded)
            torch.testing.assert_close(by_loader, trained, atol=1e-5, rtol=0)

    scored = Scorer(str(tmp_path / "model"), device="cpu", tokens_per_batch=200).score(examples)
    assert [s.solution_id for s in scored] == [e.solution_id for e in examples]
    by_scoring = torch.tensor([score for s in scored for score in s.step_scores])
    torch.testing.assert_close(by_scoring, trained, atol=1e-5, rtol=0)


def test_lora_trains_adapters_and_head_in_float32_on_a_frozen_bfloat16_base(base: str) -> None:
    scorer, encoder = built(base, LoRA(rank=4), "bfloat16")
    trainable = {n: p for n, p in scorer.named_parameters() if p.requires_grad}
    frozen = [p for p in scorer.parameters() if not p.requires_grad]
    assert trainable
    assert all("lora_" in name or "score" in name for name in trainable)
    assert {p.dtype for p in trainable.values()} == {torch.float32}
    assert torch.bfloat16 in {p.dtype for p in frozen}
    outcome = encoder.encode(make_examples(1)).outcomes[0]
    assert isinstance(outcome, EncodedSolution)
    logits = scorer(collate([outcome]))
    assert logits.dtype is torch.float32
    logits.sum().backward()
    assert all(p.grad is not None for p in trainable.values())


def test_two_forward_passes_in_training_mode_agree_exactly(base: str) -> None:
    scorer, encoder = built(base, LoRA(rank=4))
    outcome = encoder.encode(make_examples(1)).outcomes[0]
    assert isinstance(outcome, EncodedSolution)
    assert scorer.training
    assert torch.equal(scorer(collate([outcome])), scorer(collate([outcome])))


def test_dropout_is_off_whatever_an_architecture_calls_it(base: str, tmp_path: Path) -> None:
    """Starcoder2's rates are numbers in its layers, not modules."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    config = Starcoder2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        residual_dropout=0.5, embedding_dropout=0.5, attention_dropout=0.5,
    )  # fmt: skip
    Starcoder2ForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    scorer, encoder = built(str(tmp_path), None)
    outcome = encoder.encode(make_examples(1)).outcomes[0]
    assert isinstance(outcome, EncodedSolution)
    assert scorer.training
    assert torch.equal(scorer(collate([outcome])), scorer(collate([outcome])))


def test_new_weights_depend_on_the_seed_alone(base: str) -> None:
    first, second = built(base, LoRA(rank=4))[0], built(base, LoRA(rank=4))[0]
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_solutions_that_cannot_be_scored_have_no_scores(
    base: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scorer, _ = built(base, None)
    export(config_of(base, None), dict(scorer.named_parameters()), tmp_path)
    fine = make_example(("double",), ("double",))
    without_code = make_example((), ())
    too_long = make_example(("double",) * 40, ("double",) * 40)
    scorer_of_saved = Scorer(str(tmp_path / "model"), device="cpu")
    scored = scorer_of_saved.score([without_code, fine, too_long])
    assert [len(s.step_scores) for s in scored] == [0, 1, 0]
    assert "not scored: too_long" in caplog.text
    assert scorer_of_saved.score([]) == []
