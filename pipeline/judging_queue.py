"""Programs that wait for a verdict, and the sandbox slots that take them: threads, no Ray.

Slots are handed in as context managers that give a judge: sandboxes of this machine or actors of a
cluster. Each slot takes one program after another from one queue, in the order of the parts, so a
slow program holds up nothing but its own slot. A part is stored when its last program is judged,
or when the run is stopped.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.recorded import RecordedProgram
from pipeline.records import ProgramVerdict
from pipeline.store import StageStore
from sandbox.protocol import Program, Status, Verdict

Judge = Callable[[Program], Verdict]


class Slot(NamedTuple):
    """An open slot."""

    judge: Judge
    interpreter: str  # what it runs programs on, see `Sandbox.interpreter`


OpenSlot = Callable[[], AbstractContextManager[Slot]]


@dataclass(slots=True)
class UnfinishedPart:
    """A part that is being made: rows that are there, programs that are not judged yet."""

    index: int
    rows: list[ProgramVerdict] = field(default_factory=list)
    todo: list[RecordedProgram] = field(default_factory=list)


class JudgingQueue:
    """One queue for all slots; parts are stored as they get full."""

    def __init__(
        self,
        parts: Sequence[UnfinishedPart],
        judge: Callable[[Judge, RecordedProgram], Verdict],
        admit: Callable[[str], None],
        stage: StageStore[ProgramVerdict],
    ) -> None:
        self.error: BaseException | None = None
        self._judge = judge
        self._admit = admit
        self._stage = stage
        self._lock = threading.Lock()
        self._statuses: Counter[Status] = Counter()
        left = {part.index: _same_code(part.todo) for part in parts}
        self._waiting = deque((part, group) for part in parts for group in left[part.index])
        self._unjudged = {index: len(groups) for index, groups in left.items()}
        self._unstored: dict[int, UnfinishedPart] = {}  # have verdicts that are nowhere else

    def serve(self, open_slot: OpenSlot) -> None:
        """Judge until nothing is left or something went wrong."""
        try:
            if not self._waiting:
                return
            with open_slot() as slot:
                with self._lock:
                    self._admit(slot.interpreter)
                while (work := self._next()) is not None:
                    part, group = work
                    self._count(part, group, self._judge(slot.judge, group[0]))
        except BaseException as error:  # noqa: BLE001 - the thread that waits raises it
            with self._lock:
                self.error = self.error or error
            self.stop()

    @property
    def waiting(self) -> int:
        """Executions that no slot has taken yet."""
        with self._lock:
            return len(self._waiting)

    def stop(self) -> None:
        with self._lock:
            self._waiting.clear()

    def keep(self) -> None:
        """Store the parts that are not full."""
        with self._lock:
            parts = list(self._unstored.values())
        for part in parts:
            self._store(part)

    def statuses(self) -> Counter[Status]:
        with self._lock:
            return self._statuses.copy()

    def _next(self) -> tuple[UnfinishedPart, list[RecordedProgram]] | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def _count(self, part: UnfinishedPart, group: list[RecordedProgram], verdict: Verdict) -> None:
        with self._lock:
            part.rows += [ProgramVerdict(p.program_id, p.problem_id, verdict) for p in group]
            self._statuses[verdict.status] += len(group)
            self._unjudged[part.index] -= 1
            self._unstored[part.index] = part
            is_full = not self._unjudged[part.index]
        if is_full:
            self._store(part)

    def _store(self, part: UnfinishedPart) -> None:
        with self._lock:
            rows = list(part.rows)
        self._stage.write(part.index, rows)
        with self._lock:
            if len(part.rows) == len(rows):
                self._unstored.pop(part.index, None)


def _same_code(programs: Iterable[RecordedProgram]) -> list[list[RecordedProgram]]:
    """Programs of one problem that are the same to the letter are executed once."""
    groups: dict[tuple[str, str], list[RecordedProgram]] = {}
    for program in programs:
        groups.setdefault((program.problem_id, program.code), []).append(program)
    return list(groups.values())
