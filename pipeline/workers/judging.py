"""The workers that execute programs: each holds one sandbox slot."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pipeline import execution
from pipeline.part_file import Quarantined, QuarantineReason
from pipeline.plan import Plan
from pipeline.quarantine import Slice
from pipeline.records import Completion, ProgramVerdict, Rollout, StepTruth
from pipeline.scale_model.truth import complete_with_reference
from pipeline.store import StageStore
from pipeline.workers.making import Make, PartWorker, Row
from pipeline.workers.reading import split_all
from sandbox.actor import SandboxActor
from sandbox.protocol import Program, Status, Verdict
from sandbox.transport import SandboxUnavailable


class SandboxWorker(PartWorker):
    """Base of the workers that execute programs: each holds one sandbox slot.

    One that has no sandbox at its start has its parts tell so, and opens one with the next try. An
    actor that died instead would be replaced on the same bad node, where the free slots are, until
    Ray ends the stage for all nodes.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.memory_mb = plan.config.sandbox.memory_mb
        self._sandbox: SandboxActor | None = None
        with suppress(SandboxUnavailable):
            self._sandbox = self.sandbox

    @property
    def sandbox(self) -> SandboxActor:
        """Raises SandboxUnavailable."""
        if self._sandbox is None:
            config = self.plan.config.sandbox
            self._sandbox = SandboxActor(config.isolation, config.image)
        return self._sandbox

    def judge_all(self, programs: Sequence[Program]) -> list[Verdict]:
        """The sandbox's verdicts. Programs that it failed on are judged once more after the
        others, one by one: a container that was brought down by a neighbour is not their fault.
        Equal ones are one program here too, or each would bring down as many containers again."""
        verdicts = dict(zip(programs, self.sandbox.judge_all(programs), strict=True))
        for program, verdict in verdicts.items():
            if verdict.status is Status.INFRA:
                verdicts[program] = self.sandbox.judge(program)
        return [verdicts[program] for program in programs]

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
            split_all(solutions),
            solutions,
            self.memory_mb,
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
