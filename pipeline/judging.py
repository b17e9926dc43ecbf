"""Verdicts for recorded programs, in parts that are kept: several sandbox slots, no Ray.

What an earlier run had stored is kept, but for programs that the sandbox failed on (INFRA): they
are tried again. How the slots share the work is in `pipeline.judging_queue`.
"""

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline import schemas
from pipeline.execution import no_program, to_program
from pipeline.files import read_bytes, tree
from pipeline.judging_queue import Judge, JudgingQueue, OpenSlot, UnfinishedPart
from pipeline.part_file import DamagedPart, PartSummary, digest
from pipeline.recorded import RecordedProgram
from pipeline.records import Problem, ProgramVerdict, content_hash
from pipeline.store import StageStore, fingerprint
from sandbox.checks import checks_of
from sandbox.protocol import Isolation, Status, Verdict

POLL_S = 0.2
PATIENCE_S = 5.0
"""For the programs under way when a run is stopped; where Kubernetes stops it, it kills 30 s later.
"""
_PROGRAMS_PER_PART = range(16, 1025)
_PARTS = 500  # about so many, as far as the bounds above allow


class OtherVerdicts(Exception):
    """The folder holds verdicts that were made differently."""


_LISTED = 20


class CannotJudge(ValueError):
    """Problems whose tests cannot decide anything; `reasons` has all of them by id."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        told = [f"problem {name}: {why}" for name, why in self.reasons.items()]
        if len(told) > _LISTED:
            told[_LISTED:] = [f"and {len(told) - _LISTED:,} problems more"]
        super().__init__("\n  ".join(told))


@dataclass(frozen=True)
class Conditions:
    """What verdicts depend on beside problems and programs."""

    isolation: Isolation
    image: str
    memory_mb: int  # of one test


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the work is."""

    done: int
    total: int
    statuses: Mapping[Status, int]


class Judging:
    """The verdicts of `programs` below `root`, a folder or a URI. Raises OtherVerdicts, and
    CannotJudge."""

    def __init__(
        self,
        root: str,
        problems: Mapping[str, Problem],
        programs: Sequence[RecordedProgram],
        conditions: Conditions,
    ) -> None:
        self._problems = problems
        self._conditions = conditions
        self.parts = _parts(programs)
        shaped_by = _shaped_by(problems, programs, conditions)
        self.stage = StageStore(
            root,
            "verdicts",
            fingerprint(stage="judge", schema=schemas.PROGRAM_VERDICT.version, **shaped_by),
            schemas.PROGRAM_VERDICT,
        )
        _refuse_others(self.stage, shaped_by)
        self._check_tests(programs)
        self.shaped_by = shaped_by
        self.damaged: list[str] = []  # parts that must be made again, and why
        self._open = [part for part in map(self._resume, range(len(self.parts))) if part.todo]
        missing = sum(len(part.todo) for part in self._open)
        self.kept = len(programs) - missing
        if self.kept and (note := self.stage.note()) is not None:
            self.shaped_by["interpreter"] = note["shaped_by"].get("interpreter")
        self._total = len(programs)

    def run(self, slots: Sequence[OpenSlot]) -> Iterator[Standing]:
        """Judge what is missing, with no more slots than there is work for; tells now and then how
        far it is.

        Raises what a slot raises, once every slot has stopped, and OtherVerdicts for a slot that
        runs programs on another interpreter than the verdicts that are there. What was judged is
        kept, also where the caller stops (by closing this generator).
        """
        self.stage.describe(len(self.parts), self.shaped_by)
        queue = JudgingQueue(self._open, self._judge, self._admit, self.stage)
        threads = [
            threading.Thread(target=queue.serve, args=(slot,), name=f"slot-{n}", daemon=True)
            for n, slot in enumerate(slots[: queue.waiting])
        ]
        for thread in threads:
            thread.start()
        try:
            while alive := [thread for thread in threads if thread.is_alive()]:
                yield self._standing(queue)
                alive[0].join(POLL_S)
        finally:
            queue.stop()
            deadline = time.monotonic() + PATIENCE_S
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
            queue.keep()
        if queue.error is not None:
            raise queue.error
        yield self._standing(queue)

    def verdicts(self) -> Iterator[ProgramVerdict]:
        """All that is stored, by problem and program."""
        for index in range(len(self.parts)):
            yield from self.stage.read(index)

    def _standing(self, queue: JudgingQueue) -> Standing:
        statuses = queue.statuses()
        return Standing(self.kept + sum(statuses.values()), self._total, statuses)

    def _check_tests(self, programs: Iterable[RecordedProgram]) -> None:
        refused: dict[str, str] = {}
        for problem_id in dict.fromkeys(program.problem_id for program in programs):
            problem = self._problems[problem_id]
            try:
                checks_of(to_program(problem, "", self._conditions.memory_mb))
            except ValueError as error:
                refused[problem_id] = str(error)
        if refused:
            raise CannotJudge(refused)

    def _admit(self, interpreter: str) -> None:
        """Let a slot take part. One call at a time."""
        before = self.shaped_by.get("interpreter")
        if before is None:
            self.shaped_by["interpreter"] = interpreter
            self.stage.describe(len(self.parts), self.shaped_by)
        elif interpreter != before:
            raise OtherVerdicts(
                f"{self.stage.directory}: holds verdicts of programs that ran on {before}; this "
                f"slot runs them on {interpreter}. They are never mixed: choose another --out, or "
                "give every sandbox the same image"
            )

    def _resume(self, index: int) -> UnfinishedPart:
        """What is stored of a part, and what is left to do."""
        part = UnfinishedPart(index)
        found = self.stage.inspect(index)
        if isinstance(found, DamagedPart):
            self.damaged.append(str(found))
        if isinstance(found, PartSummary):
            stored = self.stage.read(index)
            part.rows = [row for row in stored if row.verdict.status is not Status.INFRA]
        kept = {(row.problem_id, row.program_id) for row in part.rows}
        part.todo = [p for p in self.parts[index] if (p.problem_id, p.program_id) not in kept]
        return part

    def _judge(self, judge: Judge, recorded: RecordedProgram) -> Verdict:
        problem, conditions = self._problems[recorded.problem_id], self._conditions
        if not recorded.code.strip():
            return no_program(problem, conditions.isolation)
        verdict = judge(to_program(problem, recorded.code, conditions.memory_mb))
        if verdict.isolation is not conditions.isolation:
            raise OtherVerdicts(
                f"a slot judged with isolation {verdict.isolation}, not {conditions.isolation}"
            )
        return verdict


def _parts(programs: Sequence[RecordedProgram]) -> list[Sequence[RecordedProgram]]:
    size = max(_PROGRAMS_PER_PART[0], min(_PROGRAMS_PER_PART[-1], len(programs) // _PARTS))
    return [programs[at : at + size] for at in range(0, len(programs), size)]


def _shaped_by(
    problems: Mapping[str, Problem], programs: Sequence[RecordedProgram], conditions: Conditions
) -> dict[str, object]:
    used = [problems[name] for name in dict.fromkeys(program.problem_id for program in programs)]
    return {
        "isolation": conditions.isolation.value,
        "image": conditions.image if conditions.isolation is Isolation.DOCKER else None,
        "memory_mb": conditions.memory_mb,
        "comparator": sorted({problem.comparator.value for problem in used}),
        "time_limit_s": sorted({problem.time_limit_s for problem in used}),
        "problems": digest(schemas.PROBLEM.to_table(used), schemas.PROBLEM),
        "programs": content_hash(*((p.problem_id, p.program_id, p.code) for p in programs)),
    }


def _refuse_others(stage: StageStore[ProgramVerdict], shaped_by: Mapping[str, object]) -> None:
    """One folder holds the verdicts of one judging."""
    folder = stage.directory.rpartition("/")[0]
    for name in sorted(tree(folder)):
        other, _, file = name.partition("/")
        if file != "stage.json" or other == stage.fingerprint:
            continue
        there = json.loads(read_bytes(f"{folder}/{name}") or b"{}").get("shaped_by", {})
        others = [
            f"{key} was {there.get(key)!r}, is {value!r}"
            for key, value in shaped_by.items()
            if there.get(key) != value
        ]
        raise OtherVerdicts(
            f"{folder}/{other}: holds verdicts that were made differently "
            f"({'; '.join(others) or 'by another version'}). They are never mixed: choose another "
            "--out, or delete that folder"
        )
