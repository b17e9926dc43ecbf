"""A worker makes a part once, and says in its row why it could not; it never raises."""

import datetime
from pathlib import Path

import pytest

from pipeline.config import PipelineConfig, ScaleModelProblems, VLLMPolicy
from pipeline.plan import Plan, make_plan
from pipeline.records import FinishReason, ProgramVerdict, Role, Solution
from pipeline.workers import JoinParts, Row
from sandbox.protocol import Comparator, Isolation, Status, Verdict
from tests.scripted import VERSION, problem

CODE = "def main(): pass\nmain()\n"
PART: Row = {"part": 0, "error": "", "run": "r", "retry": False}


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
    row = JoinParts(plan, {0: Role.META})(PART)
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
