"""The Ray Train job, with real workers."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from pipeline.part_file import read_table
from pipeline.prm.base_identity import base_identity
from pipeline.prm.data import TrainingDataError, read_examples
from pipeline.prm.scoring import Scorer
from pipeline.prm.trainer import TrainingProgress, train_prms
from pipeline.records import Example, Role
from pipeline.schemas import LABEL_ESTIMATE
from tests.prm.ray_training import (
    ARMS,
    META,
    TRAIN,
    Trained,
    assert_same,
    config_of,
    shard,
    storage_in,
    train,
)
from tests.prm.world import make_example


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


def test_a_base_model_is_known_by_its_content_wherever_it_is(base: str, tmp_path: Path) -> None:
    copy = shutil.copytree(base, tmp_path / "copy")
    assert base_identity(str(copy)) == base_identity(base)
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert base_identity(str(copy)) != base_identity(base)
    assert base_identity("Qwen/Qwen2.5-Coder-3B") != base_identity("Qwen/Qwen2.5-Coder-7B")


@pytest.mark.slow
def test_results_on_another_base_model_are_never_taken_for_ones_own(
    by_two: Trained, base: str, tmp_path: Path
) -> None:
    other = shutil.copytree(base, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rope_theta": 12345.0}))
    model = by_two.config.model.model_copy(update={"base": str(other)})
    with pytest.raises(TrainingDataError, match="belongs to a training on other data"):
        train_prms(
            by_two.config.model_copy(update={"model": model}),
            by_two.examples,
            by_two.storage,
            lambda progress: None,
        )
