"""The whole story, small: problems -> policy -> solutions -> rollouts -> PRMs -> a chosen program.

Everything is real: a policy trained from scratch, vLLM, the Docker sandbox, Ray Data, Ray Train.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs.run_status import read_plan, run_status
from jobs.study import main as study_main
from pipeline.plan import Plan
from pipeline.records import Role
from sandbox.protocol import Isolation, Status

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]

SIZES = {
    "scale_model.steps": 340,  # a fraction of the demo's: a few programs are right
    "scale_model.batch_size": 16,
    "scale_model.programs": 8_000,
    "scale_model.threads": 1,
    "problems.train": 16,
    "problems.meta": 8,
    "problems.validation": 8,
    "problems.test": 16,
    "sampling.samples": 6,
    "rollouts.samples": 2,
    "training.epochs": 2,
    "training.correction.meta_batch": 16,
}


def run_job(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    sizes = [word for key, value in SIZES.items() for word in (f"--{key}", str(value))]
    command = [
        *(sys.executable, "-m", "jobs.run", "--config", "jobs/configs/demo.yaml"),
        *("--name", "story", "--root", str(place / "store"), "--output", str(place)),
        *sizes,
        *arguments,
    ]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=850, check=False, env=environment
    )


@pytest.fixture(scope="module")
def story(docker_engine: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    place = tmp_path_factory.mktemp("story")
    done = run_job(place)
    log = (place / "story" / "log.txt").read_text(errors="replace")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{log[-4000:]}"
    return place, done.stdout


@pytest.fixture(scope="module")
def plan(story: tuple[Path, str]) -> Plan:
    return read_plan(f"{story[0]}/store", "story")


def parts_of(plan: Plan, role: Role) -> list[int]:
    note = plan.problems.note()
    assert note is not None
    return [part for part, of in enumerate(note["shaped_by"]["roles"]) if of == role]


def modified(paths: Sequence[Path]) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in paths}


def test_a_run_ends_with_a_table_and_a_report(story: tuple[Path, str]) -> None:
    place, output = story
    for row in ("pass@1", "ORM", "PRM cross-fitted", "oracle", "AUROC", "Brier score", "ECE"):
        assert row in output
    report = place / "story" / "report"
    selection = json.loads((report / "selection.json").read_text())
    assert selection["problems"] == SIZES["problems.test"]
    assert selection["candidates"] == SIZES["problems.test"] * SIZES["sampling.samples"]
    page = (report / "report.html").read_text()
    assert not re.search(r"""(?:src|href)=["']https?:""", page), "the page must be self-contained"
    assert len(list(report.glob("*.png"))) >= 3


def test_every_part_of_every_stage_is_there(story: tuple[Path, str]) -> None:
    for status in run_status(f"{story[0]}/store", "story").stages:
        assert status.done == status.total, status
        assert status.working is None


def test_every_program_was_executed_in_docker(plan: Plan) -> None:
    for part in plan.verdicts.done():
        for row in plan.verdicts.read(part):
            assert row.verdict.isolation is Isolation.DOCKER
            assert row.verdict.status is not Status.INFRA
            assert (row.verdict.status is Status.AC) == (
                row.verdict.tests_passed == row.verdict.tests_total
            )


def test_only_training_problems_are_rolled_out(plan: Plan) -> None:
    assert plan.rollouts.done() == parts_of(plan, Role.TRAIN)


def test_every_rollout_keeps_the_prefix_that_it_labels(plan: Plan) -> None:
    for part in plan.rollouts.done():
        prefix_of = {
            step_id: example.code.encode()[:end].decode()
            for example in plan.examples.read(part)
            for step_id, end in zip(example.step_ids, example.step_ends, strict=True)
        }
        rollouts = plan.rollouts.read(part)
        assert rollouts
        for rollout in rollouts:
            if rollout.status is not None:
                assert rollout.code.startswith(prefix_of[rollout.step_id])


def test_a_prefix_with_a_passing_rollout_is_rarely_wrong(plan: Plan) -> None:
    """Label noise is one-sided: tests are few, so a wrong prefix may pass, but seldom does."""
    wrong = trusted = 0
    for part in parts_of(plan, Role.TRAIN):
        for example in plan.examples.read(part):
            assert example.step_truth is not None
            for passed, truth in list(zip(example.passed, example.step_truth, strict=True))[:-1]:
                wrong += not truth
                trusted += not truth and passed > 0
    assert wrong > 0
    assert trusted / wrong < 0.2


def test_a_second_run_finds_everything_in_place(story: tuple[Path, str]) -> None:
    place, _ = story
    before = modified(sorted((place / "store").rglob("part-*.arrow")))
    selection = (place / "story" / "report" / "selection.json").read_bytes()
    again = run_job(place)
    assert again.returncode == 0, again.stdout + again.stderr
    assert modified(sorted((place / "store").rglob("part-*.arrow"))) == before
    assert (place / "story" / "report" / "selection.json").read_bytes() == selection


def test_a_study_takes_a_finished_run_for_its_first_seed(
    story: tuple[Path, str], capfd: pytest.CaptureFixture[str]
) -> None:
    place, _ = story
    before = modified(sorted((place / "store").rglob("*.arrow")))
    sizes = [word for key, value in SIZES.items() for word in (f"--{key}", str(value))]
    arms = ["orm", "prm_soft", "prm_hard", "prm_crossfit", "prm_corrected", "prm_true"]
    done = study_main(
        [
            *("--config", "jobs/configs/demo.yaml", "--root", str(place / "store"), *sizes),
            *("--seeds", "1", "--arms", ",".join(arms), "--out", str(place / "study")),
        ]
    )
    output = capfd.readouterr().out
    assert done == 0, output
    assert modified(sorted((place / "store").rglob("*.arrow"))) == before  # nothing was computed
    selection = json.loads((place / "story" / "report" / "selection.json").read_text())
    study = json.loads((place / "study" / "study.json").read_text())
    assert {row["method"]: row["estimate"]["value"] for row in study["methods"]} == {
        row["method"]: pytest.approx(row["overall"]["value"]) for row in selection["methods"]
    }
    assert {row["method"] for row in study["labels"]} == set(arms) - {"orm", "prm_true"}
    assert (place / "study" / "study.png").read_bytes().startswith(b"\x89PNG")
    assert "1 of 1 seeds" in output


def test_a_truncated_part_is_told_and_made_again_alone(story: tuple[Path, str], plan: Plan) -> None:
    place, _ = story
    damaged = Path(plan.verdicts.path(0))
    whole = plan.verdicts.read(0)
    damaged.write_bytes(damaged.read_bytes()[:1000])
    others = [path for path in (place / "store").rglob("part-*.arrow") if path != damaged]
    before = modified(others)
    again = run_job(place, "--stages", "sample,label")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "redone" in again.stdout
    assert "not a whole Arrow file" in " ".join(again.stdout.split())
    assert modified(others) == before
    assert [row.verdict.status for row in plan.verdicts.read(0)] == [
        row.verdict.status for row in whole
    ]


def test_a_changed_option_recomputes_only_what_depends_on_it(story: tuple[Path, str]) -> None:
    place, _ = story
    before = modified(sorted((place / "store" / "solutions").rglob("part-*.arrow")))
    again = run_job(place, "--name", "other", "--sandbox.memory_mb", "128", "--stages", "sample")
    assert again.returncode == 0, again.stdout + again.stderr
    assert modified(sorted((place / "store" / "solutions").rglob("part-*.arrow"))) == before
    assert len(list((place / "store" / "verdicts").iterdir())) == 2


def test_an_empty_problem_file_is_one_clear_error(tmp_path: Path) -> None:
    empty = tmp_path / "problems.jsonl"
    empty.write_text("")
    config = tmp_path / "config.yaml"
    config.write_text(
        f"problems: {{kind: jsonl, paths: [{empty}]}}\n"
        "policy: {kind: vllm, model: somewhere, gpus: 0}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "jobs.run", "--config", str(config),
         "--root", str(tmp_path / "store"), "--output", str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "stopped:" in done.stdout
    assert str(empty) in "".join(done.stdout.split())
    assert "Traceback" not in done.stdout + done.stderr
