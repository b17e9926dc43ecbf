"""The actors' insides: each makes one part, from the store to the store. No Ray here.

Ray Data hands a worker rows that name a part and carry an `error` text, empty while all is well. A
worker never raises: an exception would stop every other part of the stage, so it travels to the
driver as text and is told when all that could be done is done.
"""

import asyncio
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pipeline import examples, execution, rollouts, sampling
from pipeline.config import ArmConfig, PolicyConfig
from pipeline.early_stop import decided_steps, stopping_region
from pipeline.functions import split_steps
from pipeline.plan import Plan, Wave
from pipeline.policies import open_policy
from pipeline.quarantine import Slice, Tries
from pipeline.records import (
    Completion,
    Example,
    ProgramVerdict,
    Role,
    Rollout,
    ScoredSolution,
    Solution,
    Step,
    StepLabel,
    StepTruth,
)
from pipeline.scale_model.truth import complete_with_reference
from pipeline.store import Quarantined, QuarantineReason, StageStore
from sandbox.actor import SandboxActor
from sandbox.protocol import Program, Status, Verdict

if TYPE_CHECKING:
    from pipeline.prm.scoring import Scorer

Row = dict[str, Any]
"""`part`; `error`, empty while all is well; `run`, which names the run of the driver; `retry`:
whether quarantined problems get another chance."""

Make = Callable[[Slice], Iterable[Any]]
"""The rows of a part, or of one problem of it. May raise anything."""


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
                    self._make(row, stage, make)
        except Exception as error:  # noqa: BLE001 - whatever it is, the driver tells it
            return row | {"error": _told(error)}
        return row

    def blamed(self, piece: Slice, rows: Sequence[Any]) -> Sequence[Quarantined]:
        """The problems whose rows could be made in name only."""
        return ()

    def _make(self, row: Row, stage: StageStore[Any], make: Make) -> None:
        tries = _tries(self.plan, row, stage, self.blamed)
        while (piece := tries.next()) is not None:
            tries.begin(piece)
            try:
                rows = list(make(piece))
            except Exception as error:  # noqa: BLE001 - `failed` raises what is not the rows' fault
                tries.failed(piece, error)
            else:
                tries.made(piece, rows)


class PolicyWorker:
    """Base of the workers that ask a policy: many parts at once on one event loop."""

    def __init__(self, plan: Plan, policy: PolicyConfig, stage: StageStore[Any]) -> None:
        self.plan = plan
        self.policy = open_policy(policy, plan.journal_directory)
        self.style = policy.prompt
        self.stage = stage
        self.turns = Turns()

    async def ask(self, piece: Slice) -> Iterable[Any]:
        """The rows of a part, or of one problem of it. May raise anything."""
        raise NotImplementedError

    async def __call__(self, row: Row) -> Row:
        try:
            tries = _tries(self.plan, row, self.stage)
            while (piece := tries.next()) is not None:
                async with self.turns.alone() if piece.alone else self.turns.shared():
                    tries.begin(piece)
                    try:
                        rows = await self.ask(piece)
                    except Exception as error:  # noqa: BLE001 - see PartWorker
                        tries.failed(piece, error)
                    else:
                        tries.made(piece, rows)
        except Exception as error:  # noqa: BLE001 - see PartWorker
            return row | {"error": _told(error)}
        return row


class Turns:
    """Parts made whole share a worker; a problem that may kill it is tried alone, so that no other
    is blamed. Whoever waits to be alone goes before those who come later."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._sharing = 0
        self._waiting_to_be_alone = 0
        self._taken = False

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._taken and not self._waiting_to_be_alone)
            self._sharing += 1
        try:
            yield
        finally:
            async with self._changed:
                self._sharing -= 1
                self._changed.notify_all()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with self._changed:
            self._waiting_to_be_alone += 1
            try:
                await self._changed.wait_for(lambda: not self._taken and not self._sharing)
                self._taken = True
            finally:
                self._waiting_to_be_alone -= 1
        try:
            yield
        finally:
            async with self._changed:
                self._taken = False
                self._changed.notify_all()


class SampleParts(PolicyWorker):
    """Problems -> solutions."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, plan.sampling_policy(), plan.solutions)

    async def ask(self, piece: Slice) -> list[Solution]:
        return await sampling.sample_solutions(
            self.policy,
            self.plan.sampling_version(),
            piece.read(self.plan.problems),
            self.plan.config.sampling.samples,
            self.style,
        )


class CompleteParts(PolicyWorker):
    """Function prefixes -> completions, of one wave."""

    def __init__(self, plan: Plan, wave: int) -> None:
        super().__init__(plan, plan.rollout_policy(), plan.waves[wave].completions)
        self.wave = wave
        rule, samples = plan.config.rollouts.early_stop, plan.config.rollouts.samples
        self.region = stopping_region(samples, rule) if rule is not None else frozenset()

    async def ask(self, piece: Slice) -> list[Completion]:
        left_out = _given_up(self.earlier, piece.part)
        return await rollouts.complete_prefixes(
            self.policy,
            self.plan.rollout_version(),
            piece.read(self.plan.problems),
            [s for s in piece.read(self.plan.solutions) if s.problem_id not in left_out],
            self.plan.waves[self.wave].indices,
            self.style,
            self.decided(piece.part),
        )

    @property
    def earlier(self) -> list[StageStore[Any]]:
        return [stage for wave in self.plan.waves[: self.wave] for stage in wave.stages]

    def decided(self, part: int) -> set[str]:
        """The steps that the waves before this one left nothing to ask of."""
        return decided_steps(_labels(self.plan.waves[: self.wave], part), self.region)


class SandboxWorker(PartWorker):
    """Base of the workers that execute programs: each holds one sandbox slot."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.memory_mb = plan.config.sandbox.memory_mb
        self.sandbox = SandboxActor(plan.config.sandbox.isolation, plan.config.sandbox.image)

    def judge_all(self, programs: Sequence[Program]) -> list[Verdict]:
        """The sandbox's verdicts. Programs that it failed on are judged once more after the
        others, one by one: a container that was brought down by a neighbour is not their fault."""
        verdicts = self.sandbox.judge_all(programs)
        return [
            self.sandbox.judge(program) if verdict.status is Status.INFRA else verdict
            for program, verdict in zip(programs, verdicts, strict=True)
        ]

    def blamed(self, piece: Slice, rows: Sequence[Any]) -> Sequence[Quarantined]:
        failed = [row for row in rows if _status(row) is Status.INFRA]
        if not failed:
            return ()
        problem_of = {c.step_id: c.problem_id for c in self._completions(piece.part, failed)}
        counts = Counter(
            row.problem_id if isinstance(row, ProgramVerdict) else problem_of[row.step_id]
            for row in failed
        )
        return [
            Quarantined(
                problem_id,
                QuarantineReason.INFRA,
                f"the sandbox failed on {count} of its programs; they are no labels",
            )
            for problem_id, count in sorted(counts.items())
        ]

    def _completions(self, part: int, failed: Sequence[Any]) -> Sequence[Completion]:
        if all(isinstance(row, ProgramVerdict) for row in failed):
            return ()
        return self.plan.completions.read(part)


class JudgeSolutionParts(SandboxWorker):
    """Solutions -> verdicts."""

    def stages(self, row: Row) -> list[tuple[StageStore[Any], Make]]:
        return [(self.plan.verdicts, self.verdicts)]

    def verdicts(self, piece: Slice) -> list[ProgramVerdict]:
        return execution.judge_solutions(
            self.judge_all,
            self.sandbox.isolation,
            piece.read(self.plan.problems),
            piece.read(self.plan.solutions),
            self.memory_mb,
        )


class JudgeRolloutParts(SandboxWorker):
    """Completions -> rollouts, of one wave; beside the first, where references are known, prefixes
    -> truths."""

    def __init__(self, plan: Plan, wave: int) -> None:
        super().__init__(plan)
        self.wave = plan.waves[wave]
        self.truths_stage = plan.truths if wave == 0 else None

    def stages(self, row: Row) -> list[tuple[StageStore[Any], Make]]:
        truths = [(self.truths_stage, self.truths)] if self.truths_stage is not None else []
        return [(self.wave.rollouts, self.rollouts), *truths]

    def rollouts(self, piece: Slice) -> list[Rollout]:
        return execution.judge_rollouts(
            self.judge_all,
            piece.read(self.plan.problems),
            piece.read(self.wave.completions),
            self.memory_mb,
        )

    def truths(self, piece: Slice) -> list[StepTruth]:
        solutions = piece.read(self.plan.solutions)
        return execution.judge_truth(
            self.judge_all,
            complete_with_reference,
            piece.read(self.plan.problems),
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

    def examples(self, piece: Slice) -> list[Example]:
        plan, part, role = self.plan, piece.part, self.roles[piece.part]
        left_out = self.left_out(part)
        solutions = [s for s in piece.read(plan.solutions) if s.problem_id not in left_out]
        steps_of, verdicts = _steps_of(solutions), plan.verdicts.read(part)
        labelled = role in plan.config.rollouts.roles
        labels = _labels(plan.waves, part) if labelled else []
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
        return _given_up(stages, part)


class ScoreParts(PartWorker):
    """Examples -> PRM scores of the arm that the row names; one model is held at a time."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.arms = {arm.name: arm for arm in plan.config.training.arms}
        self.loaded: tuple[str, Scorer] | None = None

    def stages(self, row: Row) -> list[tuple[StageStore[Any], Make]]:
        arm = self.arms[row["arm"]]
        return [(self.plan.scores(arm), lambda piece: self.scores(arm, piece))]

    def scores(self, arm: ArmConfig, piece: Slice) -> list[ScoredSolution]:
        # torch and transformers take seconds to import, which the other workers start without.
        from pipeline.prm.scoring import Scorer

        if self.loaded is None or self.loaded[0] != arm.name:
            self.loaded = None  # before the next is loaded: two may not fit
            self.loaded = (arm.name, Scorer(self.plan.prm_model(arm)))
        return self.loaded[1].score(piece.read(self.plan.examples))


def _tries(
    plan: Plan,
    row: Row,
    stage: StageStore[Any],
    blamed: Callable[[Slice, Sequence[Any]], Sequence[Quarantined]] | None = None,
) -> Tries:
    return Tries(
        stage,
        row["part"],
        row["run"],
        lambda: [problem.problem_id for problem in plan.problems.read(row["part"])],
        retry=row["retry"],
        blamed=blamed,
    )


def _status(row: Any) -> Status | None:
    """How executing a row's program ended; None where a row is about no single execution."""
    match row:
        case ProgramVerdict():
            return row.verdict.status
        case Rollout():
            return row.status
        case _:
            return None


def _labels(waves: Iterable[Wave], part: int) -> list[StepLabel]:
    return rollouts.count_labels(row for wave in waves for row in wave.rollouts.read(part))


def _given_up(stages: Iterable[StageStore[Any]], part: int) -> set[str]:
    """The problems whose rows one of the stages had to leave out."""
    return {
        entry.problem_id
        for stage in stages
        for entry in stage.quarantined(part)
        if entry.reason is not QuarantineReason.INFRA
    }


def _steps_of(solutions: Iterable[Solution]) -> dict[str, list[Step]]:
    return {s.solution_id: split_steps(s.code, s.solution_id) for s in solutions}


def _told(error: Exception) -> str:
    """The error for a person: its own words, and where it happened."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
