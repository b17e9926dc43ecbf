"""What makes a trained PRM another one, and what does not."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import TrainingConfig
from pipeline.plan import make_plan
from pipeline.prm.trainer import _shaping_options
from pipeline.settings import load_config

DEMO = "jobs/configs/demo.yaml"

EXECUTION = {
    "model.attention": "eager",
    "model.gradient_checkpointing": "true",
    "workers": "1",
    "parallel": "fsdp",
    "micro_batch_size": "3",
    "threads_per_worker": "2",
    "checkpoint_every": "7",
}
SHAPING = {
    "model.max_tokens": "200",
    "model.dtype": "bfloat16",
    "model.lora": "{rank: 4}",
    "optimizer.learning_rate": "0.1",
    "loss": "mse",
    "epochs": "9",
    "seed": "5",
}


def fingerprints(root: Path, **options: str) -> tuple[list[str], str]:
    """Of the arms of a run, and of the options in a checkpoint."""
    words = [word for key, value in options.items() for word in (f"--training.{key}", value)]
    config = load_config(DEMO, ["--root", str(root), *words])
    plan = make_plan(config).with_examples({})
    of_arms = [plan.prm_fingerprint(arm) for arm in config.training.arms]
    return of_arms, _shaping_options(config.training)


@pytest.mark.parametrize("option", EXECUTION)
def test_how_a_model_is_computed_makes_it_no_other_model(tmp_path: Path, option: str) -> None:
    changed: dict[str, Any] = {option: EXECUTION[option]}
    assert fingerprints(tmp_path, **changed) == fingerprints(tmp_path)


@pytest.mark.parametrize("option", SHAPING)
def test_what_shapes_a_model_makes_it_another(tmp_path: Path, option: str) -> None:
    changed: dict[str, Any] = {option: SHAPING[option]}
    arms, checkpoint = fingerprints(tmp_path, **changed)
    before, checkpoint_before = fingerprints(tmp_path)
    assert all(one != other for one, other in zip(arms, before, strict=True))
    assert checkpoint != checkpoint_before


def test_a_checkpoint_from_before_some_options_stopped_counting_is_still_known() -> None:
    """They are put at their defaults, not left out."""
    assert '"gradient_checkpointing":false,"attention":"sdpa"' in _shaping_options(TrainingConfig())
