"""A worker makes a part once, and says in its row why it could not; it never raises."""

import asyncio
import datetime
from collections.abc import Iterable
from pathlib import Path

import pytest

from pipeline.attempts import Token
from pipeline.config import PipelineConfig, ScaleModelProblems, VLLMPolicy
from pipeline.plan import Plan, make_plan
from pipeline.policies.protocol import PolicyError, PolicyUnavailable
from pipeline.quarantine import Failure, Slice
from pipeline.records import FinishReason, ProgramVerdict, Role, Solution
from pipeline.turns import Turns
from pipeline.workers import JoinParts, JudgeSolutionParts, PolicyWorker, Row, new_row
from pipeline.workers.patience import LONGEST_S, TRIES, Patience
from sandbox.protocol import Comparator, Isolation, Status, Verdict
from tests.scripted import VERSION, problem

CODE = "def main(): pass\nmain()\n"
PART: Row = {"part": 0} | new_row(Token("r"))


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """One meta problem, sampled and executed: what is left is to join it."""
    config = PipelineConfig(
        problems=ScaleModelProblems(),
        policy=VLLMPolicy(model="somewhere", gpus=0),
        root=str(tmp_path / "store"),
    )
    plan = make_plan(config)
    plan.problems.write(0, [problem(released_on=datetime.date(2024, 5, 1))])
    solution = Solution(
        "s", "p", VERSION, 0, CODE, CODE, FinishReason.STOP, 1, 1, 0, 0.0
    )  # fmt: skip
    plan.solutions.write(0, [solution])
    verdict = Verdict(Status.AC, 1, 1, 1, None, "", 0.1, 0.1, 9.0, Isolation.DOCKER, Comparator.LCB)
    plan.verdicts.write(0, [ProgramVerdict("s", "p", verdict)])
    return plan


def test_a_worker_makes_its_part(plan: Plan) -> None:
    assert JoinParts(plan, {0: Role.META})(PART) == PART
    (example,) = plan.examples.read(0)
    assert (example.solution_id, example.final_label) == ("s", True)


def test_a_part_that_is_there_is_left_alone(plan: Plan) -> None:
    worker = JoinParts(plan, {0: Role.META})
    worker(PART)
    before = Path(plan.examples.path(0)).stat().st_mtime_ns
    assert worker(PART) == PART
    assert Path(plan.examples.path(0)).stat().st_mtime_ns == before


def test_a_part_whose_input_came_out_different_is_made_again(plan: Plan) -> None:
    worker = JoinParts(plan, {0: Role.META})
    worker(PART)
    (verdict,) = plan.verdicts.read(0)
    failed = Verdict(Status.WA, 0, 1, 1, 0, "", 0.1, 0.1, 9.0, Isolation.DOCKER, Comparator.LCB)
    plan.verdicts.write(0, [ProgramVerdict(verdict.program_id, "p", failed)])
    worker(PART)
    assert plan.examples.read(0)[0].final_label is False


def test_a_write_that_fails_becomes_the_rows_error_and_leaves_nothing(plan: Plan) -> None:
    directory = Path(plan.examples.directory)
    directory.parent.mkdir(parents=True)
    directory.write_text("a file where the stage's folder should be")
    worker = JoinParts(plan, {0: Role.META})
    worker.patience = Patience(first_s=0.0)
    row = worker(PART)
    assert plan.examples.directory in row["error"]
    assert "cannot be written" in row["error"]
    assert plan.examples.inspect(0) is None


def test_a_missing_input_becomes_the_rows_error(plan: Plan) -> None:
    Path(plan.verdicts.path(0)).unlink()
    row = JoinParts(plan, {0: Role.META})(PART)
    assert "verdicts" in row["error"]
    assert "no such part" in row["error"]


def test_a_row_that_failed_before_is_handed_on_untouched(plan: Plan) -> None:
    failed: Row = PART | {"error": "the policy gave up"}
    assert JoinParts(plan, {0: Role.META})(failed) == failed
    assert plan.examples.inspect(0) is None


# --- what may pass -------------------------------------------------------------------------------


class Asking(PolicyWorker):
    """Raises the given errors, one for each try, then has the solution that is there."""

    def __init__(self, plan: Plan, *errors: Exception) -> None:
        self.plan, self.stage = plan, plan.solutions
        self.turns, self.patience = Turns(), Patience(first_s=0.0)
        self.errors = list(errors)
        self.tries = 0

    async def ask(self, piece: Slice) -> Iterable[Solution]:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)
        return [Solution("s", "p", VERSION, 0, CODE, CODE, FinishReason.STOP, 1, 1, 0, 0.0)]


@pytest.fixture
def unsampled(plan: Plan) -> Plan:
    Path(plan.solutions.path(0)).unlink()
    return plan


def test_what_passes_while_the_worker_waits_costs_no_part(unsampled: Plan) -> None:
    worker = Asking(unsampled, PolicyUnavailable("no engine"), OSError("503 Slow Down"))
    assert asyncio.run(worker(PART)) == PART
    assert len(unsampled.solutions.read(0)) == 1


def test_what_does_not_pass_is_handed_back_as_what_another_worker_may_make(
    unsampled: Plan,
) -> None:
    worker = Asking(unsampled, *[PolicyUnavailable("no engine")] * TRIES)
    row = asyncio.run(worker(PART))
    assert (row["failure"], row["stage"]) == (Failure.PASSING, "solutions")
    assert "no engine" in row["error"]
    assert unsampled.solutions.inspect(0) is None


def test_what_no_retry_mends_is_told_at_once(unsampled: Plan) -> None:
    worker = Asking(unsampled, PolicyError("the key was refused"))
    row = asyncio.run(worker(PART))
    assert (row["failure"], worker.tries) == (Failure.LASTING, 1)


def test_a_worker_waits_longer_with_each_failure_until_one_try_goes_well() -> None:
    patience = Patience(first_s=5.0)
    assert [patience.pause_s() for _ in range(3)] == [5.0, 10.0, 20.0]
    assert [patience.pause_s() for _ in range(2000)][-1] == LONGEST_S
    patience.relieve()
    assert patience.pause_s() == 5.0


def test_a_worker_without_a_sandbox_lives_and_says_so_in_its_rows(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An actor that died of it would be replaced on the same node, again and again."""
    Path(plan.verdicts.path(0)).unlink()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody-listens")
    worker = JudgeSolutionParts(plan)
    worker.patience = Patience(first_s=0.0)
    row = worker(PART)
    assert (row["failure"], row["stage"]) == (Failure.PASSING, "verdicts")
    assert "nobody-listens" in row["error"]
