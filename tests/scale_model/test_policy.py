import json

import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    GenerationConfig,
)

from pipeline.config import ScaleModelPolicy, ScaleModelProblems, SplitsConfig
from pipeline.scale_model.corpus import draw_corpus
from pipeline.scale_model.policy import train_policy

TINY = ScaleModelPolicy(programs=600, steps=40, batch_size=16)


def train(directory, config=TINY):
    history = []
    train_policy(
        config,
        ScaleModelProblems(),
        SplitsConfig(),
        directory,
        lambda step, steps, loss: history.append((step, steps, loss)),
    )
    return history


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("policies") / "policy"
    return directory, train(directory)


def test_the_loss_falls_and_progress_is_told_up_to_the_last_step(trained):
    _, history = trained
    assert [step for step, _, _ in history] == list(range(1, 41))
    assert {steps for _, steps, _ in history} == {40}
    assert history[-1][2] < 0.6 * history[0][2]


def test_it_loads_as_a_causal_model_that_continues_a_statement(trained):
    directory, _ = trained
    model = AutoModelForCausalLM.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(0.65e6, rel=0.02)
    chat = [{"role": "user", "content": "Given a line of integers: sort them."}]
    prompt = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    torch.manual_seed(0)
    answer = model.generate(**prompt, max_new_tokens=8)
    assert answer.shape[1] > prompt["input_ids"].shape[1]


def test_its_tokenizer_comes_back_as_it_was_trained(trained):
    """transformers replaces the pre-tokenizer of some model types when it loads them."""
    directory, _ = trained
    loaded = AutoTokenizer.from_pretrained(directory)
    saved = Tokenizer.from_file(str(directory / "tokenizer.json"))
    for program in draw_corpus(50, 0, 0, SplitsConfig()):
        text = f"{program.statement}\n{program.code}"
        assert loaded(text)["input_ids"] == saved.encode(text).ids


def test_its_own_generation_settings_sample_from_the_whole_distribution(trained):
    directory, _ = trained
    settings = GenerationConfig.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert (settings.do_sample, settings.temperature, settings.top_k) == (True, 1.0, 0)
    assert settings.eos_token_id == tokenizer.eos_token_id
    assert settings.pad_token_id == tokenizer.pad_token_id


def test_it_loads_as_the_body_of_a_reward_model(trained):
    directory, _ = trained
    model = AutoModelForTokenClassification.from_pretrained(directory, num_labels=1)
    causal = AutoModelForCausalLM.from_pretrained(directory)
    assert torch.equal(model.model.embed_tokens.weight, causal.model.embed_tokens.weight)


def test_the_same_options_give_the_same_weights(trained, tmp_path):
    directory, _ = trained
    train(tmp_path / "again")
    first, second = (d / "model.safetensors" for d in (directory, tmp_path / "again"))
    assert first.read_bytes() == second.read_bytes()


def test_training_replaces_what_was_there_and_leaves_nothing_else_behind(tmp_path):
    directory = tmp_path / "policy"
    directory.mkdir()
    (directory / "stale.txt").write_text("old")
    train(directory, TINY.model_copy(update={"steps": 2}))
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]
    assert not (directory / "stale.txt").exists()
    assert json.loads((directory / "config.json").read_text())["model_type"] == "qwen3"


def test_a_diverging_run_is_an_error_that_names_the_option_and_leaves_no_directory(tmp_path):
    wild = TINY.model_copy(update={"learning_rate": float("1e30")})
    with pytest.raises(FloatingPointError, match=r"scale_model\.learning_rate"):
        train(tmp_path / "policy", wild)
    assert list(tmp_path.iterdir()) == []
