"""`jobs.tune` as a person calls it: a sweep on validation problems, killed, and run again."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.trials import Sweep
from jobs.tune import main
from pipeline.evaluation.sweep import Setting
from pipeline.lock import stage_lock
from pipeline.records import Role
from pipeline.settings import load_config
from tests.training_files import write_config, write_examples

RATES = [0.0003, 0.003]


@pytest.fixture(scope="module")
def arguments(base: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    place = tmp_path_factory.mktemp("handed_in")
    arms = [{"name": "orm", "targets": "final"}, {"name": "prm_soft"}]
    config = write_config(place, base, arms=arms)
    examples = write_examples(place / "e", Role.TRAIN, Role.META, Role.VALIDATION, Role.TEST)
    return ["--config", config, "--examples", examples, "--validation", examples]


@pytest.mark.slow
def test_a_sweep_killed_in_the_middle_repeats_no_trial_that_was_done(
    arguments: list[str], local_ray: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [
        *arguments,
        *("--arm", "prm_soft", "--learning-rates", ",".join(map(str, RATES))),
        *("--concurrent", "1", "--out", str(tmp_path / "out")),
    ]
    with (tmp_path / "killed.txt").open("wb") as output:
        job = subprocess.Popen(
            [sys.executable, "-m", "jobs.tune", *words], stdout=output, stderr=output
        )
        try:
            deadline = time.monotonic() + 400
            while not (done := list((tmp_path / "out").glob("trials/*/result.json"))):
                assert job.poll() is None, (tmp_path / "killed.txt").read_text()
                assert time.monotonic() < deadline, "no trial ended"
                time.sleep(0.05)
        finally:
            job.kill()
            job.wait()
    (first,) = done
    trained = first.parent / "done.json"
    before = [path.stat().st_mtime_ns for path in (first, trained)]

    assert main(words) == 0
    assert [path.stat().st_mtime_ns for path in (first, trained)] == before
    assert len(list((tmp_path / "out").glob("trials/*/result.json"))) == 2
    assert (tmp_path / "out" / "tune.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads((tmp_path / "out" / "tune.json").read_text())
    assert told["arm"] == "prm_soft"
    best, other = told["results"]
    assert best["accuracy"] >= other["accuracy"]
    assert {row["setting"]["learning_rate"] for row in told["results"]} == set(RATES)
    assert best["accuracy"] == max(best["by_aggregator"].values())
    written = load_config(tmp_path / "out" / "best.yaml").training
    assert written.optimizer.learning_rate == best["setting"]["learning_rate"]
    assert [arm.name for arm in written.arms] == ["orm", "prm_soft"]  # not the tuned one alone
    assert str(tmp_path / "out" / "best.yaml") in capfd.readouterr().out.replace("\n", "")


@pytest.mark.slow
def test_an_interrupted_sweep_says_that_it_resumes_and_is_no_success(
    arguments: list[str], local_ray: None, tmp_path: Path
) -> None:
    out, told = tmp_path / "out", tmp_path / "told.txt"
    words = [*arguments, "--training.epochs", "500", "--out", str(out)]
    with told.open("wb") as output:
        job = subprocess.Popen(
            [sys.executable, "-m", "jobs.tune", *words], stdout=output, stderr=output
        )
        try:
            deadline = time.monotonic() + 300
            while not list(out.glob("trials/*/ray_train")):
                assert job.poll() is None, told.read_text()
                assert time.monotonic() < deadline, "no trial began"
                time.sleep(0.05)
            job.send_signal(signal.SIGINT)
            assert job.wait(60) == 130
        finally:
            job.kill()
            job.wait()
    assert "stopped; the same command resumes" in told.read_text()
    assert not (out / "tune.json").exists()
    assert not (out / "lock.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arm", "prm"], "--arm prm: arms are orm, prm_soft"),
        (["--label-rates", "0.1"], "--label-rates: arm 'orm' corrects nothing"),
        (["--learning-rates", "-1"], "training.optimizer.learning_rate: Input should be greater"),
        (["--training.model.base", "scale-model", "--scale_model.steps", "1"], "name a directory"),
    ],
)
def test_what_cannot_be_swept_is_told_before_any_trial(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    words: list[str], message: str,
) -> None:  # fmt: skip
    assert main([*arguments, "--out", str(tmp_path / "out"), *words]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told
    assert not (tmp_path / "out").exists()


def test_a_trial_counts_on_other_workers_too(base: str, tmp_path: Path) -> None:
    def trial(**changes: object) -> Path:
        config = load_config(write_config(tmp_path, base, **changes))
        arm = config.training.arms[0]
        return Sweep(config, arm, (), (), "digest", str(tmp_path)).directory(Setting(), 0)

    assert trial(workers=2, micro_batch_size=4) == trial()
    assert trial(epochs=5) != trial()


def test_shards_without_validation_candidates_are_told(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test_only = write_examples(tmp_path / "test", Role.TEST)
    words = [*arguments, "--validation", test_only, "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "holds no candidate of a validation problem" in capsys.readouterr().err


def test_a_uri_is_refused_as_the_folder(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--out", "s3://bucket/sweep"])
    assert "--out: 's3://bucket/sweep' is a URI" in capsys.readouterr().err


def test_a_second_sweep_into_the_same_folder_is_refused(
    arguments: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with stage_lock(str(tmp_path)):
        assert main([*arguments, "--out", str(tmp_path)]) == 1
    assert "another driver is working on it" in " ".join(capfd.readouterr().out.split())


def test_a_list_that_is_none_is_refused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--out", str(tmp_path), "--every", "2,often"])
    assert "'2,often' is no list of whole numbers" in capsys.readouterr().err
