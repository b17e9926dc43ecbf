"""The pipeline's sampling and rollouts through the OpenAI policies: real Ray, a real server on
loopback, a driver that is killed.

One story is told once: a first driver asks for solutions by single calls, of which one fails for
good while others are in flight. A second asks again, and then for the rollouts by a batch; it is
killed while the server works at that. A third goes on to the end.
"""

import asyncio
import collections
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.attempts import Token
from pipeline.config import PipelineConfig
from pipeline.journal import Journal
from pipeline.plan import Plan, make_plan
from pipeline.records import StepLabel
from pipeline.workers import (
    CompleteParts,
    JudgeRolloutParts,
    PolicyWorker,
    Row,
    SampleParts,
    new_row,
)
from pipeline.workers.reading import step_labels
from tests.policies import fault_server
from tests.policies.batch_endpoints import answered
from tests.policies.fault_server import FaultServer

KEY = "sk-marked-7f3a9d51c2e84b60-never-written"
WORDS = ("one", "two", "a hundred")
SAMPLES, ROLLOUTS = 2, 4
NEVER = 10**9  # looks until a batch ends
_CALLS_HELPER = "print(double(int(input())))"


class Programmer:
    """The model behind the server: writes a program, and its missing function in several ways. Each
    second way is right, but for problem "two" none is."""

    def __init__(self) -> None:
        self.asked: collections.Counter[str] = collections.Counter()

    def __call__(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body["input"]
        if _CALLS_HELPER not in prompt:
            return self._code(f"def main():\n    {_CALLS_HELPER}\n\n\n{_helper('x * 2')}")
        self.asked[prompt] += 1
        is_right = self.asked[prompt] % 2 == 0 and "Read two" not in prompt
        return self._code(_helper(f"x + x + {0 if is_right else self.asked[prompt]}"))

    def _code(self, code: str) -> dict[str, Any]:
        return fault_server.response(f"```python\n{code}```\n")


def _helper(doubled: str) -> str:
    return f"def double(x):\n    return {doubled}\n\n\nmain()\n"


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def options(place: Path, server: FaultServer, *, batch: bool) -> dict[str, Any]:
    problems = [
        {
            "problem_id": f"double-{number}",
            "title": f"Double {word}",
            "statement": f"Read {word} numbers, one per line, and print twice their sum. {word}!",
            "difficulty": "easy",
            "released_on": "2024-01-01",
            "entry_point": None,
            "starter_code": "",
            "tests": [{"stdin": "1\n", "expected": "2\n"}],
        }
        for number, word in enumerate(WORDS)
    ]
    (place / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    policy = {
        "kind": "openai",
        "base_url": server.base_url,
        "max_output_tokens": 1000,
        "batch_poll_s": 0.1,
        "budget_usd": 1.0,
    }
    return {
        "name": "paid",
        "root": str(place / "store"),
        "output": str(place / "runs"),
        "problems": {"kind": "jsonl", "paths": [str(place / "problems.jsonl")]},
        "policy": policy,
        "sampling": {"samples": SAMPLES, "problems_per_part": 1},
        "rollouts": {"samples": ROLLOUTS, "policy": policy | {"batch": batch}},
        "sandbox": {"isolation": "unsafe-process", "slots": 1},
    }


def start(place: Path, server: FaultServer, stages: str) -> subprocess.Popen[str]:
    (place / "config.yaml").write_text(yaml.safe_dump(options(place, server, batch=True)))
    command = [
        *(sys.executable, "-m", "jobs.run", "--config", str(place / "config.yaml")),
        *("--stages", stages),
    ]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment |= {"OPENAI_API_KEY": KEY, "RAY_TMPDIR": str(place / "ray"), "OPENAI_LOG": "debug"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def written(place: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for path in place.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def plan_of(place: Path, server: FaultServer, *, batch: bool) -> Plan:
    return make_plan(PipelineConfig.model_validate(options(place, server, batch=batch)))


def labels(plan: Plan) -> list[StepLabel]:
    found = [label for part in plan.problems.done() for label in step_labels(plan.waves, part)]
    return sorted(found, key=lambda label: label.step_id)


def labels_by_single_calls(place: Path, server: FaultServer, asked: Plan) -> list[StepLabel]:
    """Those of the same problems, all answers asked anew; the workers need no Ray."""
    server.answer = Programmer()
    plan = plan_of(place, server, batch=False)
    rows: list[Row] = [{"part": part} | new_row(Token("r")) for part in asked.problems.done()]
    for row in rows:
        plan.problems.write(row["part"], asked.problems.read(row["part"]))
    for asking in (SampleParts(plan), CompleteParts(plan, 0)):
        assert asyncio.run(_all(asking, rows)) == rows
        asking.policy.close()
    judging = JudgeRolloutParts(plan, 0)
    assert [judging(row) for row in rows] == rows
    return labels(plan)


async def _all(asking: PolicyWorker, rows: list[Row]) -> list[Row]:
    return await asyncio.gather(*map(asking, rows))


@dataclass
class Story:
    """What was seen on the way."""

    place: Path
    server: FaultServer
    plan: Plan
    said: list[str] = field(default_factory=list[str])
    paid: list[int] = field(default_factory=list[int])
    """Calls that the server had got when each driver had ended."""
    kept: list[int] = field(default_factory=list[int])
    """Answers that were on disk then."""

    def ended(self, driver: subprocess.Popen[str]) -> int:
        """Its exit status."""
        self.said.append(driver.communicate(timeout=600)[0])
        self.paid.append(len(self.server.calls))
        self.kept.append(len(Journal(self.plan.journal_directory)))
        return driver.returncode


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """With a short path, as Ray's sockets want it."""
    with tempfile.TemporaryDirectory(prefix="paid-") as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def story(place: Path, server: FaultServer) -> Story:
    programmer = Programmer()

    def slowly(body: dict[str, Any]) -> dict[str, Any]:
        time.sleep(1.0)
        return programmer(body)

    server.answer = slowly  # longer than the call that fails takes
    server.batches.result = lambda line: answered(line, 200, programmer(line["body"]))
    server.batches.looks = NEVER
    story = Story(place, server, plan_of(place, server, batch=True))

    server.faults.append(fault_server.error(403, "not yours"))
    assert story.ended(start(place, server, "problems,sample")) == 1, story.said[-1]

    driver = start(place, server, "problems,sample,label")
    deadline = time.monotonic() + 600
    while not any(batch.looks for batch in server.batches.batches):
        assert driver.poll() is None, driver.communicate()[0]
        assert time.monotonic() < deadline, "the driver never came so far"
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    story.ended(driver)

    server.batches.looks = 1
    assert story.ended(start(place, server, "problems,sample,label")) == 0, story.said[-1]
    return story


@pytest.mark.slow
def test_answers_in_flight_when_one_fails_for_good_are_kept_and_not_paid_again(
    story: Story,
) -> None:
    solutions = len(WORDS) * SAMPLES
    assert "not yours" in story.said[0]
    assert "Traceback" not in story.said[0]
    assert (story.paid[0], story.kept[0]) == (solutions, solutions - 1)
    assert (story.paid[1], story.kept[1]) == (solutions + 1, solutions)


@pytest.mark.slow
def test_the_rollouts_of_all_parts_are_one_batch_that_a_killed_driver_finds_again(
    story: Story,
) -> None:
    assert story.paid[2] == story.paid[1], "a rollout at full price"
    assert [len(batch.lines) for batch in story.server.batches.batches] == [len(WORDS) * ROLLOUTS]
    assert story.kept[2] == len(WORDS) * (SAMPLES + ROLLOUTS)


@pytest.mark.slow
def test_labels_by_a_batch_are_those_by_single_calls(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    found = labels(story.plan)
    counted = collections.Counter((label.passed, label.trials) for label in found)
    assert counted == {(2, ROLLOUTS): 2 * SAMPLES, (0, ROLLOUTS): SAMPLES}
    assert found == labels_by_single_calls(tmp_path, story.server, story.plan)


@pytest.mark.slow
def test_the_key_is_in_no_file_and_in_no_word(story: Story) -> None:
    files = written(story.place)
    kinds = {path.suffix for path in files}
    assert {".arrow", ".journal", ".json", ".yaml", ".txt"} <= kinds, kinds
    assert any("ray" in path.parts for path in files), "Ray's own logs were looked at too"
    assert [path for path, data in files.items() if KEY.encode() in data] == []
    assert KEY not in "".join(story.said)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_an_interrupted_run_says_that_it_resumes_and_is_no_success(
    sent: signal.Signals, status: int
) -> None:
    with tempfile.TemporaryDirectory(prefix="paid-") as folder, FaultServer() as server:
        server.latency_s = 5.0
        driver = start(Path(folder), server, "problems,sample")
        deadline = time.monotonic() + 300
        while not server.calls:
            assert driver.poll() is None, driver.communicate()[0]
            assert time.monotonic() < deadline, "nothing was ever asked"
            time.sleep(0.05)
        driver.send_signal(sent)
        said = driver.communicate(timeout=120)[0]
        assert driver.returncode == status, said
        assert "stopped; the same command resumes" in said
        assert "Traceback" not in said
        assert not list(Path(folder).glob("store/**/lock.json"))


def test_a_refused_key_is_one_clear_error_before_anything_starts(tmp_path: Path) -> None:
    with FaultServer() as server:
        server.preflight_faults.append(fault_server.error(401, f"Incorrect API key: {KEY}"))
        driver = start(tmp_path, server, "problems,sample")
        said = driver.communicate(timeout=300)[0]
        assert server.calls == []
    assert driver.returncode == 1
    assert "the key in OPENAI_API_KEY was refused" in said
    assert "Traceback" not in said
    assert KEY not in said
    assert not (tmp_path / "ray").exists(), "Ray was started for nothing"
    assert [path for path, data in written(tmp_path).items() if KEY.encode() in data] == []
