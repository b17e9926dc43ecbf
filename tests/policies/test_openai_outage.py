"""A service that is down is no prompt's fault: none is blamed, nothing paid is lost, and the stage
ends with its name. A prompt that is refused is left out. Real workers, a real server, no Ray."""

import asyncio
import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.attempts import Token
from pipeline.config import OpenAIPolicy, PipelineConfig, SamplingConfig, ScaleModelProblems
from pipeline.journal import Journal
from pipeline.part_file import PartSummary
from pipeline.plan import Plan, make_plan
from pipeline.policies import retries
from pipeline.quarantine import Failure
from pipeline.rounds import Rounds, StageFailed
from pipeline.workers import Row, SampleParts, new_row
from pipeline.workers.patience import Patience
from tests.policies import fault_server
from tests.policies.fault_server import Fault, FaultServer
from tests.policies.openai_world import KEY, config
from tests.scripted import problem
from tests.scripted_run import Told

SAMPLES, RETRIES = 3, 1
PART: Row = {"part": 0} | new_row(Token("r"))
DOWN = fault_server.error(503, "the model is overloaded")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(retries, "_BACKOFF", lambda state: 0.0)
    with FaultServer() as running:
        yield running


def plan_of(place: Path, policy: OpenAIPolicy) -> Plan:
    plan = make_plan(
        PipelineConfig(
            problems=ScaleModelProblems(),
            policy=policy,
            sampling=SamplingConfig(samples=SAMPLES),
            root=str(place / "store"),
        )
    )
    day = datetime.date(2024, 5, 1)
    plan.problems.write(
        0, [problem(name, statement=f"About {name}.", released_on=day) for name in ("p", "q")]
    )
    return plan


@pytest.fixture
def plan(server: FaultServer, tmp_path: Path) -> Plan:
    return plan_of(tmp_path, config(server, max_retries=RETRIES, requests_in_flight=1))


@pytest.fixture
def worker(plan: Plan) -> Iterator[SampleParts]:
    worker = SampleParts(plan)
    worker.patience = Patience(first_s=0.0)
    yield worker
    worker.policy.close()


def goes_down(server: FaultServer, fault: Fault, after: int = 0) -> Callable[[], None]:
    """After so many answers every call fails, until the function that is returned is called."""
    answer = server.call
    answers = iter(range(after))

    def call(path: str, body: dict[str, Any]) -> Fault:
        return fault if next(answers, None) is None else answer(path, body)

    def comes_back() -> None:
        server.call = answer  # type: ignore[method-assign]

    server.call = call  # type: ignore[method-assign]
    return comes_back


def summary(plan: Plan) -> PartSummary:
    found = plan.solutions.inspect(0)
    assert isinstance(found, PartSummary)
    return found


def test_an_outage_that_outlasts_the_retries_of_a_call_is_waited_for(
    worker: SampleParts, plan: Plan, server: FaultServer
) -> None:
    comes_back = goes_down(server, DOWN)

    class Waiting(Patience):
        def pause_s(self) -> float:
            comes_back()
            return 0.0

    worker.patience = Waiting()
    assert asyncio.run(worker(PART)) == PART
    assert (summary(plan).rows, summary(plan).quarantined) == (2 * SAMPLES, ())


@pytest.mark.parametrize(
    "fault",
    [DOWN, fault_server.error(429, "slow down"), Fault(), Fault(delay_s=1.0)],
    ids=["503", "429", "dropped connection", "timeout"],
)
def test_an_outage_that_lasts_blames_no_prompt_and_what_was_paid_is_kept(
    server: FaultServer, tmp_path: Path, fault: Fault
) -> None:
    plan = plan_of(
        tmp_path, config(server, max_retries=RETRIES, requests_in_flight=1, timeout_s=0.5)
    )
    worker = SampleParts(plan)
    worker.patience = Patience(first_s=0.0)
    comes_back = goes_down(server, fault, after=2)
    row = asyncio.run(worker(PART))
    assert row["failure"] == Failure.PASSING
    assert plan.solutions.inspect(0) is None
    assert len(Journal(plan.journal_directory)) == 2
    comes_back()
    before = len(server.calls)
    assert asyncio.run(worker(PART)) == PART
    assert len(server.calls) - before == 2 * SAMPLES - 2, "what was paid is not asked again"
    assert summary(plan).quarantined == ()
    worker.policy.close()


def test_a_service_that_stays_down_ends_the_stage_with_its_name(
    worker: SampleParts, plan: Plan, server: FaultServer
) -> None:
    goes_down(server, DOWN)
    rounds = Rounds([(plan.solutions, [0])], Told(), retry=False)
    working = iter(rounds)
    assert next(working) == [[0]]
    rounds.tell(asyncio.run(worker({"part": 0} | new_row(rounds.token))))
    told = r"PolicyUnavailable: request .*: 503 .*overloaded.*\(the last of 2 tries; the service"
    with pytest.raises(StageFailed, match=told):
        next(working)


def test_a_prompt_that_is_refused_is_left_out_by_name_and_the_others_are_kept(
    worker: SampleParts, plan: Plan, server: FaultServer
) -> None:
    answer = server.call

    def refusing(path: str, body: dict[str, Any]) -> Fault:
        if "About q." in body["input"]:
            return fault_server.error(400, "not this prompt", code="a_new_policy")
        return answer(path, body)

    server.call = refusing  # type: ignore[method-assign]
    assert asyncio.run(worker(PART)) == PART
    (left_out,) = summary(plan).quarantined
    assert left_out.problem_id == "q"
    assert "not this prompt" in left_out.told
    assert {solution.problem_id for solution in plan.solutions.read(0)} == {"p"}


def test_a_refused_key_is_told_at_once(
    worker: SampleParts, plan: Plan, server: FaultServer
) -> None:
    goes_down(server, fault_server.error(401, "who are you"))
    assert asyncio.run(worker(PART))["failure"] == Failure.LASTING
    assert plan.solutions.inspect(0) is None
