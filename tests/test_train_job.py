"""`jobs.train` as a person calls it: on Example shards alone, killed, and run again."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForTokenClassification

from jobs.train import main
from pipeline.lock import stage_lock
from pipeline.part_file import read_table
from pipeline.prm.results import read_pace
from pipeline.records import LabelEstimate, Role
from pipeline.schemas import LABEL_ESTIMATE
from tests.training_files import write_config, write_examples

STEPS = 48  # 16 epochs of 24 solutions, 8 in a batch: seconds in which a killer can strike


@pytest.fixture(scope="module")
def arguments(base: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    place = tmp_path_factory.mktemp("handed_in")
    config = write_config(place, base, epochs=16, checkpoint_every=4)
    return ["--config", config, "--examples", write_examples(place / "e", Role.TRAIN, Role.META)]


def labels(arm: Path) -> list[LabelEstimate]:
    return LABEL_ESTIMATE.from_table(read_table(str(arm / "labels.arrow"), LABEL_ESTIMATE))


def weights(arm: Path) -> dict[str, torch.Tensor]:
    return AutoModelForTokenClassification.from_pretrained(arm / "model").state_dict()


@pytest.mark.slow
def test_a_killed_training_run_again_ends_with_the_model_of_an_undisturbed_one(
    arguments: list[str], local_ray: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--out", str(tmp_path / "whole")]) == 0
    assert f"{STEPS:,}" in capfd.readouterr().out
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "Ray Train took it"
    killed, whole = tmp_path / "killed" / "prm_corrected", tmp_path / "whole" / "prm_corrected"
    with (tmp_path / "killed.txt").open("wb") as output:
        job = subprocess.Popen(
            [sys.executable, "-m", "jobs.train", *arguments, "--out", str(tmp_path / "killed")],
            stdout=output, stderr=output,
        )  # fmt: skip
        try:
            wait_for(killed / "checkpoint.pt", job)
        finally:
            job.kill()
            job.wait()
    assert not (killed / "done.json").exists()  # there was something left to do

    assert main([*arguments, "--out", str(tmp_path / "killed")]) == 0
    told = re.findall(r"prm_corrected +([\d,]+)/48 optimizer steps", capfd.readouterr().out)
    assert told[-1] == str(STEPS)
    history = [json.loads(line) for line in (killed / "history.jsonl").open()]
    assert [row["step"] for row in history] == list(range(STEPS))
    pace = read_pace(str(killed))
    assert pace is not None
    assert (pace.step, pace.total) == (STEPS, STEPS)
    assert 0 < pace.timed < STEPS  # since it was resumed
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(killed)[name], value, atol=1e-6, rtol=0)
    assert labels(killed) == labels(whole)

    before = (killed / "model" / "model.safetensors").stat().st_mtime_ns
    assert main([*arguments, "--out", str(tmp_path / "killed")]) == 0  # done: looked up alone
    assert (killed / "model" / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_an_interrupted_training_says_that_it_resumes_and_is_no_success(
    arguments: list[str], local_ray: None, tmp_path: Path, sent: signal.Signals, status: int
) -> None:
    arm, told = tmp_path / "out" / "prm_corrected", tmp_path / "told.txt"
    with told.open("wb") as output:
        job = subprocess.Popen(
            [sys.executable, "-m", "jobs.train", *arguments, "--out", str(tmp_path / "out")],
            stdout=output, stderr=output,
        )  # fmt: skip
        try:
            wait_for(arm / "checkpoint.pt", job)
            job.send_signal(sent)
            assert job.wait(60) == status
        finally:
            job.kill()
            job.wait()
    assert "stopped; the same command resumes" in told.read_text()
    assert "Traceback" not in told.read_text()
    assert not (arm / "done.json").exists()
    assert not (arm / "lock.json").exists()


def wait_for(path: Path, job: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert job.poll() is None, "the job ended before its first checkpoint"
        assert time.monotonic() < deadline, "no checkpoint"
        time.sleep(0.02)


def test_a_second_training_into_the_same_folder_is_refused(
    arguments: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with stage_lock(str(tmp_path / "prm_corrected")):
        assert main([*arguments, "--out", str(tmp_path)]) == 1
    told = capfd.readouterr().out
    assert "another driver is working on it" in " ".join(told.split())
    assert not (tmp_path / "prm_corrected" / "checkpoint.pt").exists()


def test_a_model_that_a_run_trains_for_itself_is_told_to_be_named(
    base: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, "scale-model")
    examples = write_examples(tmp_path / "e", Role.TRAIN)
    arguments = ["--config", config, "--examples", examples, "--out", str(tmp_path / "out")]
    assert main([*arguments, "--scale_model.steps", "1"]) == 1
    assert "--training.model.base DIR" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (["--training.epoch", "3"], 2, "training.epoch: unknown key. Did you mean 'epochs'?"),
        (["--training.optimizer.learning_rate", "fast"], 2, "training.optimizer.learning_rate"),
        (["--examples", "nowhere.arrow"], 1, "nowhere.arrow"),
        (["--training.workers", "9"], 2, "workers (9) share a batch: at most batch_size (8)"),
    ],
)
def test_what_cannot_be_trained_is_one_clear_error(
    arguments: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str], local_ray: None,
    change: list[str], code: int, message: str,
) -> None:  # fmt: skip
    assert main([*arguments, "--out", str(tmp_path), *change]) == code
    told = capfd.readouterr()
    assert message in " ".join((told.out + told.err).split())
    assert "Traceback" not in told.out + told.err


def test_shards_without_a_meta_role_cannot_be_corrected(
    base: str, tmp_path: Path, local_ray: None, capfd: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, base)
    examples = write_examples(tmp_path / "e", Role.TRAIN)
    assert main(["--config", config, "--examples", examples, "--out", str(tmp_path)]) == 1
    told = " ".join(capfd.readouterr().out.split())
    assert "arm 'prm_corrected': correction 'labels' needs solutions of meta problems" in told
