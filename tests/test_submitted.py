"""A submitted job refuses to keep its results where Ray will remove them, whichever job it is."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from jobs import evaluate, judge, run, score, study, train, tune

DEMO = str(Path(__file__).parent.parent / "jobs" / "configs" / "demo.yaml")
Main = Callable[[Sequence[str]], int]


@pytest.mark.parametrize(
    ("main", "arguments", "option"),
    [
        (run.main, ["--config", DEMO], "root"),
        (evaluate.main, ["--config", DEMO], "root"),
        (evaluate.main, ["--candidates", "c.jsonl", "--out", "results"], "out"),
        (train.main, ["--config", DEMO, "--examples", "e", "--out", "results"], "out"),
        (
            tune.main,
            ["--config", DEMO, "--examples", "e", "--validation", "v", "--out", "results"],
            "out",
        ),
        (study.main, ["--config", DEMO, "--out", "results", "--root", "/shared/store"], "out"),
        (judge.main, ["--problems", "p", "--programs", "q", "--out", "results"], "out"),
        (score.main, ["--model", "m", "--examples", "e", "--out", "results"], "out"),
    ],
    ids=["run", "evaluate a run", "evaluate", "train", "tune", "study", "judge", "score"],
)
def test_a_relative_folder_of_a_submitted_job_is_refused_and_not_made(
    main: Main, arguments: list[str], option: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert f"--{option}: " in (told := capfd.readouterr().err)
    assert "is a relative path, and Ray removes the working directory" in told
    assert list(tmp_path.iterdir()) == []


def test_a_study_takes_no_uri_for_the_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        study.main(["--config", DEMO, "--out", "s3://bucket/study"])
    assert "--out: 's3://bucket/study' is a URI" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
