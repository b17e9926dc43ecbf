"""A training whose processes die goes on from its last checkpoint, on as many workers as there are
then."""

import dataclasses
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import torch

from pipeline.prm.trainer import TrainingFailedError, TrainingProgress, persist, train_prms
from tests.prm.ray_training import (
    ARMS,
    META,
    TRAIN,
    Trained,
    assert_same,
    config_of,
    shard,
    storage_in,
)

MARK = 123.0
"""A loss that no training has."""


@dataclasses.dataclass
class FailingStarts:
    """Starts that fail, each after having reached so much, and one that does not."""

    reaches: list[int]
    reached: int = 0
    starts: int = 0

    def start(self) -> None:
        self.starts += 1
        if self.reaches:
            self.reached = self.reaches.pop(0)
            raise TrainingFailedError(f"start {self.starts}")


def test_a_training_is_started_again_as_long_as_it_gets_further() -> None:
    failing = FailingStarts([1, 2, 2, 2, 3, 3, 4])
    persist(failing.start, lambda: failing.reached)
    assert failing.starts == 8


@pytest.mark.parametrize("reaches", [[0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 2, 2, 2, 2]])
def test_a_training_that_three_starts_did_not_further_has_failed(reaches: list[int]) -> None:
    failing = FailingStarts([*reaches, 99])
    with pytest.raises(TrainingFailedError, match=f"start {len(reaches)}$"):
        persist(failing.start, lambda: failing.reached)


@contextmanager
def killed(title: str, checkpoint: Path, times: int) -> Iterator[list[int]]:
    """While open, SIGKILL Ray's processes of this title when `checkpoint` appears, and again at
    later ones. Gives when those were written."""
    at: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while len(at) < times and not over.wait(0.005):
            with suppress(FileNotFoundError):
                now = checkpoint.stat().st_mtime_ns
                if (not at or now != at[-1]) and kill_all(title):
                    at.append(checkpoint.stat().st_mtime_ns)  # the last that the killed one wrote

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    try:
        yield at
    finally:
        over.set()
        killer.join()


def kill_all(title: str) -> int:
    count = 0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error, IndexError):  # it has ended
            if process.cmdline()[0].startswith(title):
                process.kill()
                count += 1
                process.wait(timeout=10)
    return count


@pytest.mark.slow
def test_workers_killed_again_and_again_end_with_the_model_of_an_undisturbed_training(
    by_two: Trained, base: str, tmp_path: Path
) -> None:
    config = config_of(base, checkpoint_every=1)
    examples, storage = shard(tmp_path, TRAIN + META), storage_in(tmp_path, config)
    told: list[TrainingProgress] = []
    with killed("ray::RayTrainWorker", Path(storage["prm_corrected"], "checkpoint.pt"), 2) as at:
        results = train_prms(config, examples, storage, told.append)
    assert len(set(at)) == 2
    assert_same(results, by_two.results)
    # Nothing that a checkpoint holds is done again, and an arm that was done not at all.
    steps = {arm: [now.step for now in told if now.arm == arm] for arm in storage}
    assert len(steps["orm"]) == len(set(steps["orm"]))
    assert steps["prm_corrected"] == sorted(steps["prm_corrected"])


@pytest.mark.slow
def test_a_lost_driver_side_board_does_not_lose_a_training(
    by_two: Trained, base: str, tmp_path: Path
) -> None:
    config = config_of(base, arms=ARMS[:1], checkpoint_every=1)
    examples, storage = shard(tmp_path, TRAIN + META), storage_in(tmp_path, config)
    with killed("ray::_Board", Path(storage["orm"], "checkpoint.pt"), 1) as at:
        results = train_prms(config, examples, storage, lambda progress: None)
    assert len(at) == 1
    assert_same(results, {"orm": by_two.results["orm"]})


@pytest.mark.slow
def test_a_training_goes_on_with_another_number_of_workers(
    by_two: Trained, base: str, tmp_path: Path
) -> None:
    config = config_of(base, workers=1, arms=ARMS[1:])
    storage = storage_in(tmp_path, config)
    place = Path(storage["prm_corrected"])
    place.mkdir()
    saved = torch.load(io.BytesIO(by_two.checkpoint), weights_only=True)
    assert 0 < saved["step"] < by_two.results["prm_corrected"].steps
    saved["history"][0]["loss"] = MARK
    torch.save(saved, place / "checkpoint.pt")
    results = train_prms(config, by_two.examples, storage, lambda progress: None)
    rows = [json.loads(line) for line in (place / "history.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == MARK  # so it did not begin anew
    assert_same(results, {"prm_corrected": by_two.results["prm_corrected"]})
