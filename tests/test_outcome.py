"""What a report says of a run is counted in the store."""

import datetime
from pathlib import Path

from pipeline.config import PipelineConfig, ScaleModelProblems, VLLMPolicy
from pipeline.outcome import run_facts
from pipeline.plan import make_plan
from pipeline.records import FinishReason, ProgramVerdict, Role, Rollout, Solution
from sandbox.protocol import Comparator, Isolation, Status, Verdict
from tests.scripted import VERSION, problem

CODE = "def main(): pass\nmain()\n"


def test_every_rollout_is_rejected_failed_by_the_sandbox_or_a_trial(tmp_path: Path) -> None:
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
    statuses = [Status.AC, Status.AC, Status.WA, Status.TLE, Status.INFRA, None]
    plan.rollouts.write(
        0,
        [Rollout("t", i, "", "", FinishReason.STOP, 0, of) for i, of in enumerate(statuses)],
    )
    facts = run_facts(plan, {0: Role.TRAIN})
    assert {name: count for name, count in facts.counts.items() if "rollout" in name} == {
        "rollouts": 6,
        "rollouts that count (trials)": 4,
        "rollouts that passed": 2,
        "rollouts rejected": 1,
    }
    assert facts.counts["infrastructure failures"] == 1
    assert facts.verdicts == {Isolation.DOCKER: 1 + 5}
