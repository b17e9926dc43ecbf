"""The worker that joins all that is known of a part's solutions."""

from typing import Any

from pipeline import examples, rollouts
from pipeline.plan import Plan
from pipeline.quarantine import Slice
from pipeline.records import Example, Role
from pipeline.store import StageStore
from pipeline.workers.making import Make, PartWorker, Row
from pipeline.workers.reading import given_up, split_all, step_labels
from sandbox.protocol import Status


class JoinParts(PartWorker):
    """All that is known of a part's solutions -> examples."""

    def __init__(self, plan: Plan, roles: dict[int, Role]) -> None:
        super().__init__(plan)
        self.roles = roles

    def stages(self, row: Row) -> list[tuple[StageStore[Any], Make]]:
        return [(self.plan.examples, self.examples)]

    def examples(self, piece: Slice) -> list[Example]:
        plan, part, role = self.plan, piece.part, self.roles[piece.part]
        left_out = self.left_out(part)
        solutions = [s for s in piece.read(plan.solutions) if s.problem_id not in left_out]
        steps_of, verdicts = split_all(solutions), plan.verdicts.read(part)
        labelled = role in plan.config.rollouts.roles
        labels = step_labels(plan.waves, part) if labelled else []
        if labelled and plan.config.rollouts.own_ending:
            passed = {v.program_id for v in verdicts if v.verdict.status is Status.AC}
            labels = rollouts.with_own_endings(labels, steps_of, passed)
        return examples.build_examples(
            role,
            plan.problems.read(part),
            solutions,
            verdicts,
            steps_of,
            labels,
            plan.truths.read(part) if plan.truths and labelled else None,
        )

    def left_out(self, part: int) -> set[str]:
        """The problems of which something is missing: a stage before this had to give them up."""
        stages: list[StageStore[Any]] = [self.plan.verdicts]
        if self.roles[part] in self.plan.config.rollouts.roles:
            stages += [stage for wave in self.plan.waves for stage in wave.stages]
            stages += [self.plan.truths] if self.plan.truths else []
        return given_up(stages, part)
