"""A small training by Ray Train, whose model and labels others are held against."""

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForTokenClassification

from pipeline.config import TrainingConfig
from pipeline.part_file import read_table, write_rows
from pipeline.prm.trainer import TrainedPRM, TrainingProgress, train_prms
from pipeline.records import Example, Role
from pipeline.schemas import EXAMPLE, LABEL_ESTIMATE
from tests.prm.world import make_examples

LABELS = 5e-3
"""Absolute; see `test_ranks`, and these are corrected more often."""

TRAIN = make_examples(48, seed=1)
META = make_examples(24, seed=2, role=Role.META)
ARMS = [
    {"name": "orm", "targets": "final"},
    {"name": "prm_corrected", "correction": "labels"},
]


def config_of(base: str, workers: int = 1, **options: object) -> TrainingConfig:
    return TrainingConfig.model_validate(
        {
            "model": {"base": base, "max_tokens": 256, "lora": None, "dtype": "float32"},
            "arms": ARMS,
            # SGD: Adam's first steps turn rounding of tiny gradients into steps of full size.
            "optimizer": {"kind": "sgd", "learning_rate": 0.05},
            "correction": {"every": 2, "meta_batch": 16},
            "epochs": 2,
            "batch_size": 8,
            "micro_batch_size": 4,
            "workers": workers,
            "use_gpu": False,
            "threads_per_worker": 1,
            **options,
        }
    )


def shard(path: Path, examples: list[Example]) -> list[str]:
    write_rows(str(path / "examples.arrow"), examples, EXAMPLE)
    return [str(path / "examples.arrow")]


def storage_in(path: Path, config: TrainingConfig) -> dict[str, str]:
    return {arm.name: str(path / arm.name) for arm in config.arms}


@dataclasses.dataclass
class Trained:
    config: TrainingConfig
    examples: list[str]
    storage: dict[str, str]
    results: dict[str, TrainedPRM]
    progress: list[TrainingProgress]
    checkpoint: bytes
    """Of the corrected arm, from the middle of its training."""


def train(base: str, path: Path, workers: int) -> Trained:
    config = config_of(base, workers, checkpoint_every=3)
    examples, storage = shard(path, TRAIN + META), storage_in(path, config)
    progress: list[TrainingProgress] = []
    with keeping_a_checkpoint(storage["prm_corrected"]) as kept:
        results = train_prms(config, examples, storage, progress.append)
    return Trained(config, examples, storage, results, progress, kept[0])


@contextmanager
def keeping_a_checkpoint(storage: str) -> Iterator[list[bytes]]:
    """While open, watch for the first checkpoint there, and keep it."""
    path = Path(storage, "checkpoint.pt")
    kept: list[bytes] = []
    ended = threading.Event()

    def watch() -> None:
        while not kept and not ended.wait(0.002):
            if path.exists():
                kept.append(path.read_bytes())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        ended.set()
        thread.join()


def assert_same(found: dict[str, TrainedPRM], wanted: dict[str, TrainedPRM]) -> None:
    """The same weights and labels, but for the order in which numbers were added."""
    assert found.keys() == wanted.keys()
    for arm in found:
        one, two = found[arm], wanted[arm]
        weights, others = (
            AutoModelForTokenClassification.from_pretrained(r.model).state_dict()
            for r in (one, two)
        )
        for name, value in weights.items():
            torch.testing.assert_close(value, others[name], atol=1e-5, rtol=0)
        labels, other_labels = (
            LABEL_ESTIMATE.from_table(read_table(r.labels, LABEL_ESTIMATE)) for r in (one, two)
        )
        for row, other in zip(labels, other_labels, strict=True):
            assert (row.step_id, row.updates) == (other.step_id, other.updates)
            assert row.corrected == pytest.approx(other.corrected, abs=LABELS)
