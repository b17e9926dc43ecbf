"""Work that waits instead of computing, for benchmarks of the flow around it.

The flow, its actors, Ray and the store are real. A policy's part takes `ANSWER_S` on average, half
of that to one and a half times it, as answers do (all alike, they would all end at once); a
sandbox's takes `JUDGE_S` (environment variables, seconds). Both give light rows: what CPU time a
part takes is the flow's.
"""

import asyncio
import dataclasses
import os
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import flow
from pipeline.cluster import Cluster
from pipeline.config import PipelineConfig
from pipeline.plan import Plan, make_plan
from pipeline.quarantine import Slice
from pipeline.records import FinishReason, ProgramVerdict, Role, Solution
from pipeline.store import StageStore
from pipeline.turns import Turns
from pipeline.workers import PolicyWorker
from pipeline.workers.making import Make, PartWorker, Row
from pipeline.workers.patience import Patience
from sandbox.protocol import Comparator, Isolation, Status, Verdict
from tests import scripted_run
from tests.scripted import VERSION, problem

_AC = Verdict(Status.AC, 2, 2, 2, None, "", 0.1, 0.1, 9.0, Isolation.NONE, Comparator.LCB)


class WaitingSampleParts(PolicyWorker):
    """Problems -> solutions, after a while; all samples of a part are waited for at once."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.stage = plan, plan.solutions
        self.turns, self.patience = Turns(), Patience()

    async def ask(self, piece: Slice) -> list[Solution]:
        problems = piece.read(self.plan.problems)
        share = random.Random(problems[0].problem_id).uniform(0.5, 1.5)
        await asyncio.sleep(share * float(os.environ["ANSWER_S"]))
        return [
            Solution(f"{each.problem_id}-{index}", each.problem_id, VERSION, index, "", "",
                     FinishReason.STOP, 9, 30, 0, 0.0)
            for each in problems
            for index in range(self.plan.config.sampling.samples)
        ]  # fmt: skip


class WaitingJudgeParts(PartWorker):
    """Solutions -> verdicts, after a while."""

    def stages(self, row: Row) -> list[tuple[StageStore[Any], Make]]:
        return [(self.plan.verdicts, self.verdicts)]

    def verdicts(self, piece: Slice) -> list[ProgramVerdict]:
        time.sleep(float(os.environ["JUDGE_S"]))
        return [
            ProgramVerdict(solution.solution_id, solution.problem_id, _AC)
            for solution in piece.read(self.plan.solutions)
        ]


def lay(config: PipelineConfig, parts: int, per_part: int) -> tuple[Plan, dict[int, Role]]:
    """A plan whose problems are there: `parts` parts of `per_part` each."""
    scripted_run.write_problems(Path(config.output).parent, [])  # the config names the file
    plan = make_plan(config)
    one = problem()
    for part in range(parts):
        rows = [
            dataclasses.replace(one, problem_id=f"p{part:06d}-{number:03d}")
            for number in range(per_part)
        ]
        plan.problems.write(part, rows)
    return plan, dict.fromkeys(range(parts), Role.TRAIN)


def run(plan: Plan, roles: Mapping[int, Role]) -> None:
    """`flow.sample`, with workers that wait, in the Ray that has been started."""
    flow.SampleParts = WaitingSampleParts  # pyright: ignore[reportPrivateImportUsage]
    flow.JudgeSolutionParts = WaitingJudgeParts  # pyright: ignore[reportPrivateImportUsage]
    told = scripted_run.Told()
    with Cluster(plan.config, told) as cluster:
        flow.sample(cluster, plan, dict(roles), told)
