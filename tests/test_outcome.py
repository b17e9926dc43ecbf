"""What a report says of a run is counted in the store."""

import dataclasses
import datetime
import json
from pathlib import Path

import pytest

from pipeline.config import PipelineConfig, ScaleModelProblems, VLLMPolicy
from pipeline.outcome import run_facts, stopped_corrections
from pipeline.part_file import DamagedPart
from pipeline.plan import Plan, make_plan
from pipeline.prm.results import Outcome
from pipeline.records import FinishReason, ProgramVerdict, Role, Rollout, Solution
from sandbox.protocol import Comparator, Isolation, Status, Verdict
from tests.scripted import VERSION, problem

CODE = "def main(): pass\nmain()\n"


STATUSES = [Status.AC, Status.AC, Status.WA, Status.TLE, Status.INFRA, None]


@pytest.fixture
def rolled_out(tmp_path: Path) -> Plan:
    """One training problem with a solution and six rollouts."""
    plan = make_plan(
        PipelineConfig(
            problems=ScaleModelProblems(),
            policy=VLLMPolicy(model="somewhere", gpus=0),
            root=str(tmp_path / "store"),
        )
    )
    plan.problems.write(0, [problem(released_on=datetime.date(2024, 5, 1))])
    plan.solutions.write(
        0, [Solution("s", "p", VERSION, 0, CODE, CODE, FinishReason.STOP, 1, 1, 0, 0.0)]
    )
    verdict = Verdict(Status.AC, 1, 1, 1, None, "", 0.1, 0.1, 9.0, Isolation.DOCKER, Comparator.LCB)
    plan.verdicts.write(0, [ProgramVerdict("s", "p", verdict)])
    plan.rollouts.write(
        0,
        [Rollout("t", i, "", "", FinishReason.STOP, 0, of) for i, of in enumerate(STATUSES)],
    )
    return plan


def test_every_rollout_is_rejected_failed_by_the_sandbox_or_a_trial(rolled_out: Plan) -> None:
    facts = run_facts(rolled_out, {0: Role.TRAIN})
    assert {name: count for name, count in facts.counts.items() if "rollout" in name} == {
        "rollouts": 6,
        "rollouts that count (trials)": 4,
        "rollouts that passed": 2,
        "rollouts rejected": 1,
    }
    assert facts.counts["infrastructure failures"] == 1
    assert facts.verdicts == {Isolation.DOCKER: 1 + 5}


def test_rollouts_are_counted_without_reading_them(rolled_out: Plan) -> None:
    before = run_facts(rolled_out, {0: Role.TRAIN})
    path = Path(rolled_out.rollouts.path(0))
    data = bytearray(path.read_bytes())
    rows_at = len(data) // 4
    data[rows_at : rows_at + 8] = bytes(8)
    path.write_bytes(data)
    with pytest.raises(DamagedPart):
        rolled_out.rollouts.read(0)
    assert run_facts(rolled_out, {0: Role.TRAIN}).counts == before.counts


def test_an_arm_whose_labels_drifted_is_told_at_the_end_of_a_run(tmp_path: Path) -> None:
    plan = make_plan(
        PipelineConfig(
            problems=ScaleModelProblems(),
            policy=VLLMPolicy(model="somewhere", gpus=0),
            root=str(tmp_path / "store"),
        )
    )
    for arm, stopped in zip(plan.config.training.arms, (None, 40, None), strict=False):
        ended = Outcome("fingerprint", 90, 100, 0, stopped)
        path = Path(plan.prm_directory(arm), "done.json")
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(dataclasses.asdict(ended)))
    (told,) = stopped_corrections(plan)
    assert told.startswith("prm_soft: correction stopped at optimizer step 40 of 90")
