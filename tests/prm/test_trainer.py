"""The Ray Train job, with real workers."""

import dataclasses
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import ray
import torch
from transformers import AutoModelForTokenClassification

from pipeline.config import TrainingConfig
from pipeline.part_file import read_table, write_rows
from pipeline.prm.data import TrainingDataError, read_examples
from pipeline.prm.scoring import Scorer
from pipeline.prm.trainer import (
    TrainedPRM,
    TrainingFailedError,
    TrainingProgress,
    persist,
    train_prms,
)
from pipeline.records import Example, Role
from pipeline.schemas import EXAMPLE, LABEL_ESTIMATE
from tests.prm.world import make_example, make_examples

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


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@dataclasses.dataclass
class Trained:
    config: TrainingConfig
    examples: list[str]
    storage: dict[str, str]
    results: dict[str, TrainedPRM]
    progress: list[TrainingProgress]


def train(base: str, path: Path, workers: int) -> Trained:
    config = config_of(base, workers)
    examples, storage = shard(path, TRAIN + META), storage_in(path, config)
    progress: list[TrainingProgress] = []
    results = train_prms(config, examples, storage, progress.append)
    return Trained(config, examples, storage, results, progress)


@pytest.fixture(scope="module")
def by_two(cluster: None, base: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(base, tmp_path_factory.mktemp("two"), workers=2)


@pytest.mark.slow
def test_a_trained_arm_leaves_a_model_labels_and_history(by_two: Trained) -> None:
    corrected = by_two.results["prm_corrected"]
    assert corrected.steps == 12
    assert (corrected.trained, corrected.too_long) == (48, 0)
    scored = Scorer(corrected.model, device="cpu").score(TRAIN[:4])
    assert [len(s.step_scores) for s in scored] == [len(e.step_ids) for e in TRAIN[:4]]
    labels = LABEL_ESTIMATE.from_table(read_table(corrected.labels, LABEL_ESTIMATE))
    assert {row.step_id for row in labels} == {s for e in TRAIN for s in e.step_ids[:-1]}
    assert any(row.updates and row.corrected != row.initial for row in labels)
    lines = [json.loads(line) for line in Path(corrected.history).read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(12))
    assert any(line["meta_loss"] is not None for line in lines)


@pytest.mark.slow
def test_the_driver_sees_progress_and_the_end_of_every_job(by_two: Trained) -> None:
    assert by_two.progress[-1].arm == "prm_corrected"
    assert by_two.progress[-1].step == by_two.progress[-1].total == 12


@pytest.mark.slow
def test_finished_arms_are_looked_up_and_no_worker_is_started(by_two: Trained) -> None:
    again: list[TrainingProgress] = []
    results = train_prms(by_two.config, by_two.examples, by_two.storage, again.append)
    assert results == by_two.results
    assert again == []


@pytest.mark.slow
def test_two_workers_give_the_weights_and_labels_of_one(
    by_two: Trained, base: str, tmp_path: Path
) -> None:
    assert_same(train(base, tmp_path, workers=1).results, by_two.results)


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
    with killed("ray::RayTrainWorker", Path(storage["prm_corrected"], "checkpoint.pt"), 3) as at:
        results = train_prms(config, examples, storage, told.append)
    assert len(set(at)) == 3
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
def test_what_a_worker_finds_wrong_with_the_data_is_told_in_its_own_words(
    cluster: None, base: str, tmp_path: Path
) -> None:
    config = config_of(base, arms=ARMS[:1])
    examples, storage = shard(tmp_path, TRAIN + META), storage_in(tmp_path, config)
    Path(storage["orm"]).mkdir()
    torch.save({"format": 1}, Path(storage["orm"], "checkpoint.pt"))
    with pytest.raises(TrainingDataError, match="was written by another version"):
        train_prms(config, examples, storage, lambda progress: None)


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
            assert row.corrected == pytest.approx(other.corrected, abs=5e-3)


@pytest.mark.slow
def test_results_of_other_data_are_never_taken_for_ones_own(
    by_two: Trained, tmp_path: Path
) -> None:
    other = shard(tmp_path, TRAIN[:-1] + META)
    with pytest.raises(TrainingDataError, match="belongs to a training on other data"):
        train_prms(by_two.config, other, by_two.storage, lambda progress: None)


def without(examples: list[Example], outcome: bool) -> list[Example]:
    return [example for example in examples if example.final_label is not outcome]


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (META, "role 'train': none of its 0 solutions"),
        (without(TRAIN, True) + META, "role 'train': none of its .* is passing"),
        (without(TRAIN, False) + META, "role 'train': none of its .* is failing"),
        (TRAIN, "arm 'prm_corrected': correction 'labels' needs solutions of meta problems"),
        (TRAIN + without(META, True), "role 'meta': none of its .* is passing"),
        (
            [
                dataclasses.replace(e, passed=(0,) * len(e.step_ids), trials=(0,) * len(e.step_ids))
                for e in TRAIN
            ]
            + META,
            "arm 'prm_corrected': targets 'soft' need rollouts",
        ),
        (
            [dataclasses.replace(TRAIN[0], passed=(5,) * len(TRAIN[0].step_ids)), *TRAIN[1:]],
            f"solution {TRAIN[0].solution_id}: 5 of 4 rollouts passed",
        ),
    ],
)
def test_data_that_cannot_train_an_arm_is_refused_before_any_worker_starts(
    base: str, tmp_path: Path, examples: list[Example], message: str
) -> None:
    paths = shard(tmp_path, examples)
    with pytest.raises(TrainingDataError, match=message):
        read_examples(paths, config_of(base))


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([*TRAIN, TRAIN[3], *META], f"solution {TRAIN[3].solution_id} comes 2 times"),
        (
            [*TRAIN, *META, dataclasses.replace(TRAIN[3], solution_id="x", role=Role.META)],
            f"problem {TRAIN[3].problem_id} is in the roles",
        ),
    ],
)
def test_examples_that_come_twice_are_refused(
    base: str, tmp_path: Path, examples: list[Example], message: str
) -> None:
    with pytest.raises(TrainingDataError, match=message):
        read_examples(shard(tmp_path, examples), config_of(base))


def test_meta_programs_of_the_same_problems_need_no_meta_problems(
    base: str, tmp_path: Path
) -> None:
    config = config_of(base, correction={"meta_problems": "same"})
    assert read_examples(shard(tmp_path, TRAIN), config).meta == ()


def test_one_problem_cannot_be_cross_fitted(base: str, tmp_path: Path) -> None:
    one = [
        make_example(("double",) * 2, ("double", second), index=index)
        for index, second in enumerate(("double", "square"))
    ]
    config = config_of(base, arms=[{"name": "crossfit", "targets": "crossfit"}])
    with pytest.raises(TrainingDataError, match="there is one problem"):
        read_examples(shard(tmp_path, one), config)


def test_true_targets_need_the_truth_of_every_step(base: str, tmp_path: Path) -> None:
    unknown = dataclasses.replace(TRAIN[0], step_truth=None)
    paths = shard(tmp_path, [unknown, *TRAIN[1:]])
    config = config_of(base, arms=[{"name": "true", "targets": "true"}])
    with pytest.raises(TrainingDataError, match=f"solution {unknown.solution_id} has none"):
        read_examples(paths, config)
