"""Processes are killed while a job works. Running the same command again ends with the same rows as
an undisturbed run, and makes no part twice but those that were in flight.

The policy answers from a script (tests/scripted_run.py), so that rows can be compared; Ray, the
store, the programs and SIGKILL are real.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.plan import Plan
from tests import scripted_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PARTS, PER_PART = 6, 4
SLOW = {"SCRIPTED_SECONDS": "0.05"}  # of each answer: the kill comes while parts are being made


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    place = tmp_path_factory.mktemp("undisturbed")
    return finish(new_run(place))


def new_run(place: Path) -> Plan:
    scripted_run.write_problems(place, ["fine"] * PARTS * PER_PART)
    return scripted_run.plan_of(place)


def driver(plan: Plan, **environment: str) -> subprocess.Popen[bytes]:
    """The job in a process of its own, which all processes of its Ray can be told by."""
    place = Path(plan.config.output).parent
    inherited = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.scripted_run", str(place)],
        env=inherited | environment | {"SCRIPTED_PLACE": str(place)},
        stdout=(place / "out.txt").open("ab"),
        stderr=subprocess.STDOUT,
    )


def finish(plan: Plan) -> dict[str, list[str]]:
    """Run the job to its end: what identifies its rows."""
    job = driver(plan)
    assert job.wait(timeout=300) == 0, (Path(plan.config.output).parent / "out.txt").read_text()
    return scripted_run.rows_of(plan)


def wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 200
    while not what():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


def actors(plan: Plan, title: str) -> list[int]:
    """The processes of a job's actors with such a title; they inherit the job's environment."""
    mark = f"SCRIPTED_PLACE={Path(plan.config.output).parent}\0".encode()
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            named = title.encode() in (folder / "cmdline").read_bytes()
            if named and mark in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue  # it has ended
    return found


def modified(plan: Plan) -> dict[str, int]:
    return {
        path.as_posix(): path.stat().st_mtime_ns
        for path in Path(plan.config.root).rglob("part-*.arrow")
        if "attempts" not in path.parts
    }


def test_a_killed_driver_loses_nothing(tmp_path: Path, undisturbed: dict[str, list[str]]) -> None:
    plan = new_run(tmp_path)
    job = driver(plan, **SLOW)
    wait_for(lambda: len(plan.solutions.done()) >= 2)
    job.kill()
    job.wait()
    # Its actors end when they see that it is gone; what they write until then is whole too.
    wait_for(lambda: not actors(plan, "ray::"))
    before = modified(plan)
    assert len(plan.solutions.done()) >= 2
    assert plan.examples.done() == []  # there is much left to do
    assert finish(plan) == undisturbed
    after = modified(plan)
    assert {path: after[path] for path in before} == before


@pytest.mark.parametrize("actor", ["ScriptedSampleParts", "JudgeSolutionParts"])
def test_a_killed_worker_is_replaced_in_the_same_run(
    tmp_path: Path, undisturbed: dict[str, list[str]], actor: str
) -> None:
    plan = new_run(tmp_path)
    job = driver(plan, **SLOW)
    wait_for(lambda: plan.solutions.done() and actors(plan, f"ray::MapWorker(Map({actor}"))
    before = modified(plan)
    for pid in actors(plan, f"ray::MapWorker(Map({actor}"):
        os.kill(pid, signal.SIGKILL)
    assert job.wait(timeout=300) == 0, (tmp_path / "out.txt").read_text()
    assert scripted_run.rows_of(plan) == undisturbed
    after = modified(plan)
    assert {path: after[path] for path in before} == before
