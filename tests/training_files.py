"""What a person hands to the training jobs: a config and Example shards, of the tests' world."""

from pathlib import Path
from typing import Any

import yaml

from pipeline.part_file import write_rows
from pipeline.records import Example, Role
from pipeline.schemas import EXAMPLE
from tests.prm.world import make_examples


def write_config(place: Path, base: str, **training: Any) -> str:
    """A config for a tiny model on one CPU worker; `training` are options of that section."""
    options = {
        "model": {"base": base, "max_tokens": 256, "lora": None, "dtype": "float32"},
        "arms": [{"name": "prm_corrected", "correction": "labels"}],
        "optimizer": {"learning_rate": 0.003},
        "correction": {"every": 2, "meta_batch": 16},
        "epochs": 4,
        "batch_size": 8,
        "micro_batch_size": 8,
        "use_gpu": False,
        "threads_per_worker": 1,
        **training,
    }
    config = {
        "problems": {"kind": "scale_model"},
        "policy": {"kind": "vllm", "model": "unused", "gpus": 0},
        "training": options,
    }
    path = place / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def write_examples(place: Path, *roles: Role, count: int = 24) -> str:
    """A folder with one shard of so many examples per role."""
    place.mkdir(parents=True, exist_ok=True)
    for part, role in enumerate(roles):
        rows: list[Example] = make_examples(count, seed=part + 1, role=role)
        write_rows(str(place / f"part-{part:05d}.arrow"), rows, EXAMPLE)
    return str(place)
