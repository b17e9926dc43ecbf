"""The actors' insides: each makes one part, from the store to the store. No Ray here.

Ray Data hands a worker rows that name a part and carry an `error` text, empty while all is well. A
worker never raises: an exception would stop every other part of the stage, so it travels to the
driver as text and is told when all that could be done is done.
"""

import traceback
from collections.abc import Callable, Iterable
from typing import Any

from pipeline import examples, execution, rollouts, sampling
from pipeline.config import ArmConfig, PolicyConfig
from pipeline.functions import split_steps
from pipeline.plan import Plan
from pipeline.policies import open_policy
from pipeline.prm.scoring import Scorer
from pipeline.records import (
    Completion,
    Example,
    ProgramVerdict,
    Role,
    Rollout,
    ScoredSolution,
    Solution,
    Step,
    StepTruth,
)
from pipeline.scale_model.truth import complete_with_reference
from pipeline.store import PartSummary, StageStore
from sandbox.actor import SandboxActor

Row = dict[str, Any]


Make = Callable[[int], Iterable[Any]]
"""The rows of one part, by its number. May raise anything."""


class PartWorker:
    """Base of all workers: makes a row's part of one or more stages, or says in the row why not.

    A part that is already there and agrees with its inputs is left alone, so that a retry after a
    crash, or a part that only passes through, costs nothing.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def stages(self, row: Row) -> list[tuple[StageStore[Any], Make]]:
        """The stages that this worker writes for a row's part, in order, and how."""
        raise NotImplementedError

    def __call__(self, row: Row) -> Row:
        try:
            if not row["error"]:
                for stage, make in self.stages(row):
                    if not isinstance(stage.inspect(row["part"]), PartSummary):
                        stage.write(row["part"], make(row["part"]))
        except Exception as error:  # noqa: BLE001 - whatever it is, the driver tells it
            return row | {"error": _told(error)}
        return row


class PolicyWorker:
    """Base of the workers that ask a policy: many parts at once on one event loop."""

    def __init__(self, plan: Plan, policy: PolicyConfig, stage: StageStore[Any]) -> None:
        self.plan = plan
        self.policy = open_policy(policy, plan.journal_directory)
        self.style = policy.prompt
        self.stage = stage

    async def ask(self, part: int) -> Iterable[Any]:
        """The rows of one part. May raise anything."""
        raise NotImplementedError

    async def __call__(self, row: Row) -> Row:
        try:
            if not isinstance(self.stage.inspect(row["part"]), PartSummary):
                self.stage.write(row["part"], await self.ask(row["part"]))
        except Exception as error:  # noqa: BLE001 - see PartWorker
            return row | {"error": _told(error)}
        return row


class SampleParts(PolicyWorker):
    """Problems -> solutions."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, plan.sampling_policy(), plan.solutions)

    async def ask(self, part: int) -> list[Solution]:
        return await sampling.sample_solutions(
            self.policy,
            self.plan.sampling_version(),
            self.plan.problems.read(part),
            self.plan.config.sampling.samples,
            self.style,
        )


class CompleteParts(PolicyWorker):
    """Function prefixes -> completions."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, plan.rollout_policy(), plan.completions)

    async def ask(self, part: int) -> list[Completion]:
        return await rollouts.complete_prefixes(
            self.policy,
            self.plan.rollout_version(),
            self.plan.problems.read(part),
            self.plan.solutions.read(part),
            self.plan.config.rollouts.samples,
            self.style,
        )


class SandboxWorker(PartWorker):
    """Base of the workers that execute programs: each holds one sandbox slot."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.memory_mb = plan.config.sandbox.memory_mb
        self.sandbox = SandboxActor(plan.config.sandbox.isolation, plan.config.sandbox.image)


class JudgeSolutionParts(SandboxWorker):
    """Solutions -> verdicts."""

    def stages(self, row: Row) -> list[tuple[StageStore[Any], Make]]:
        return [(self.plan.verdicts, self.verdicts)]

    def verdicts(self, part: int) -> list[ProgramVerdict]:
        return execution.judge_solutions(
            self.sandbox.judge_all,
            self.sandbox.isolation,
            self.plan.problems.read(part),
            self.plan.solutions.read(part),
            self.memory_mb,
        )


class JudgeRolloutParts(SandboxWorker):
    """Completions -> rollouts, and where references are known, prefixes -> truths."""

    def stages(self, row: Row) -> list[tuple[StageStore[Any], Make]]:
        truths = [(self.plan.truths, self.truths)] if self.plan.truths is not None else []
        return [(self.plan.rollouts, self.rollouts), *truths]

    def rollouts(self, part: int) -> list[Rollout]:
        return execution.judge_rollouts(
            self.sandbox.judge_all,
            self.plan.problems.read(part),
            self.plan.completions.read(part),
            self.memory_mb,
        )

    def truths(self, part: int) -> list[StepTruth]:
        solutions = self.plan.solutions.read(part)
        return execution.judge_truth(
            self.sandbox.judge_all,
            complete_with_reference,
            self.plan.problems.read(part),
            _steps_of(solutions),
            solutions,
            self.memory_mb,
        )


class JoinParts(PartWorker):
    """All that is known of a part's solutions -> examples."""

    def __init__(self, plan: Plan, roles: dict[int, Role]) -> None:
        super().__init__(plan)
        self.roles = roles

    def stages(self, row: Row) -> list[tuple[StageStore[Any], Make]]:
        return [(self.plan.examples, self.examples)]

    def examples(self, part: int) -> list[Example]:
        plan, role = self.plan, self.roles[part]
        solutions = plan.solutions.read(part)
        labelled = role in plan.config.rollouts.roles
        return examples.build_examples(
            role,
            plan.problems.read(part),
            solutions,
            plan.verdicts.read(part),
            _steps_of(solutions),
            rollouts.count_labels(plan.rollouts.read(part)) if labelled else (),
            plan.truths.read(part) if plan.truths and labelled else None,
        )


class ScoreParts(PartWorker):
    """Examples -> PRM scores of the arm that the row names; one model is held at a time."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.arms = {arm.name: arm for arm in plan.config.training.arms}
        self.loaded: tuple[str, Scorer] | None = None

    def stages(self, row: Row) -> list[tuple[StageStore[Any], Make]]:
        arm = self.arms[row["arm"]]
        return [(self.plan.scores(arm), lambda part: self.scores(arm, part))]

    def scores(self, arm: ArmConfig, part: int) -> list[ScoredSolution]:
        if self.loaded is None or self.loaded[0] != arm.name:
            self.loaded = None  # before the next is loaded: two may not fit
            self.loaded = (arm.name, Scorer(self.plan.prm_model(arm)))
        return self.loaded[1].score(self.plan.examples.read(part))


def _steps_of(solutions: Iterable[Solution]) -> dict[str, list[Step]]:
    return {s.solution_id: split_steps(s.code, s.solution_id) for s in solutions}


def _told(error: Exception) -> str:
    """The error for a person: its own words, and where it happened."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
