"""What a stage will ask of a paid policy is known, checked and batched before it starts."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from pipeline import flow
from pipeline.ahead import ask_ahead
from pipeline.attempts import Token
from pipeline.config import FileProblems, PipelineConfig, SamplingConfig, VLLMPolicy
from pipeline.plan import Plan, make_plan
from pipeline.policies.protocol import PolicyError
from pipeline.progress import Progress
from pipeline.rounds import Rounds, StageFailed
from pipeline.workers import SampleParts, new_row
from tests.policies import fault_server
from tests.policies.fault_server import FaultServer
from tests.policies.openai_world import KEY, config
from tests.scripted import problem

SAMPLES = 3


class Heard:
    """An observer that remembers progress."""

    def __init__(self) -> None:
        self.told: list[Progress] = []

    def stage(self, title: str) -> None: ...

    def progress(self, progress: Progress) -> None:
        self.told.append(progress)

    def note(self, text: str) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FaultServer() as running:
        yield running


def plan_of(place: Path, server: FaultServer, **options: Any) -> Plan:
    """Two parts of one problem each."""
    file = place / "problems.jsonl"
    file.touch()  # what was in it is in the store already
    plan = make_plan(
        PipelineConfig(
            root=str(place / "store"),
            problems=FileProblems(kind="jsonl", paths=(str(file),)),
            policy=config(server, **options),
            sampling=SamplingConfig(samples=SAMPLES),
        )
    )
    for part in (0, 1):
        plan.problems.write(part, [problem(f"p{part}", statement=f"Print {part}.")])
    return plan


def ahead(plan: Plan, *parts: int) -> Heard:
    heard, before = Heard(), set(threading.enumerate())
    ask_ahead(heard, plan.sampling_policy(), parts, SampleParts, plan)
    assert not [each for each in set(threading.enumerate()) - before if each.name == "openai"]
    return heard


def test_the_requests_of_all_parts_go_into_one_batch_whose_answers_the_workers_find(
    tmp_path: Path, server: FaultServer
) -> None:
    server.batches.looks = 2
    plan = plan_of(tmp_path, server, batch=True)
    heard = ahead(plan, 0, 1)
    assert [len(batch.lines) for batch in server.batches.batches] == [2 * SAMPLES]
    assert [(told.done, told.total) for told in heard.told] == [(0, 2 * SAMPLES)]
    assert plan.solutions.done() == [], "only asked, not made"

    server.preflight_faults.append(fault_server.error(401))
    worker = SampleParts(plan)
    row = {"part": 1} | new_row(Token("r"))
    assert asyncio.run(worker(row)) == row
    worker.policy.close()
    assert len(plan.solutions.read(1)) == SAMPLES
    assert len(server.batches.batches) == 1


def test_single_calls_are_checked_and_not_begun(tmp_path: Path, server: FaultServer) -> None:
    plan = plan_of(tmp_path, server)
    assert ahead(plan, 0, 1).told == []
    assert server.calls == []
    server.preflight_faults.append(fault_server.error(401))
    with pytest.raises(PolicyError, match="OPENAI_API_KEY was refused"):
        ahead(plan, 0, 1)


def test_a_part_that_cannot_be_read_is_left_to_its_worker(
    tmp_path: Path, server: FaultServer
) -> None:
    plan = plan_of(tmp_path, server, batch=True)
    Path(plan.problems.path(0)).unlink()
    ahead(plan, 0, 1)
    assert [len(batch.lines) for batch in server.batches.batches] == [SAMPLES]


def test_a_stage_without_work_needs_neither_key_nor_server(
    tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tmp_path, server)
    monkeypatch.delenv("OPENAI_API_KEY")
    ahead(plan)


def test_a_policy_that_costs_nothing_is_not_even_opened(
    tmp_path: Path, server: FaultServer
) -> None:
    plan = plan_of(tmp_path, server)
    ask_ahead(Heard(), VLLMPolicy(model="nowhere"), (0, 1), SampleParts, plan)
    assert server.connections == 0


@pytest.mark.parametrize(
    ("round_number", "batch", "status", "goes_on"),
    [
        (1, False, 503, False),  # told at once, before anything is begun
        (2, False, 503, True),  # the workers are waiting for it
        (2, False, 401, False),  # does not pass
        (2, True, 503, False),  # or every part would go into a batch of its own
    ],
)
def test_a_later_round_leaves_it_to_the_workers_to_wait_for_a_service_that_is_down(
    tmp_path: Path,
    server: FaultServer,
    round_number: int,
    batch: bool,
    status: int,
    goes_on: bool,
) -> None:
    plan = plan_of(tmp_path, server, max_retries=0, batch=batch)
    rounds = Rounds([], Heard(), retry=False)
    rounds.token = Token("r", round_number)
    server.preflight_faults.append(fault_server.error(status))
    ended = nullcontext() if goes_on else pytest.raises(StageFailed)
    with ended:
        flow._ask_ahead(rounds, Heard(), plan.sampling_policy(), (0, 1), SampleParts, plan)
    assert server.calls == []
