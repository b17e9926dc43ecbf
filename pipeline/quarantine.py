"""Problems that break their worker every time: found in bounded tries, named, and left out.

A part is first made whole. A worker that dies with it leaves a note of the try behind, so whoever
makes the part next, in whichever process, knows. After WHOLE_TRIES deaths, or an exception that is
about the rows, the part is made problem by problem, each kept as soon as it is made. A problem that
takes ALONE_TRIES more workers with it, or raises ALONE_TRIES times, is quarantined: its rows are
left out of the part, and the part's footer says which problem and why.

Deaths count within one run of the driver only: an earlier run's workers may have died with it. So
no problem is quarantined for a driver that was killed, and a poisonous one costs at most
WHOLE_TRIES + ALONE_TRIES workers per run. Nor does a death count that is none, or another's fault:

- of a round that was ended (see `pipeline.rounds`), which leaves parts that healthy workers made;
- of a worker that is still alive, as far as can be told from here;
- of a worker whose node is lost.

A node that dies later than the worker's next life begins is the one that slips through; that it
does so in all four tries of one problem is what the bound trusts not to happen.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from pipeline.attempts import (
    UNPLACED,
    Note,
    Place,
    Token,
    attempts_of,
    note_path,
    read_note,
    save_note,
)
from pipeline.files import StoreError, delete
from pipeline.journal import JournalError
from pipeline.part_file import (
    DamagedPart,
    PartSummary,
    Quarantined,
    QuarantineReason,
    read_table,
    write_rows,
)
from pipeline.policies.protocol import PolicyError, PolicyUnavailable
from pipeline.records import content_hash
from pipeline.store import StageStore
from sandbox.owner import this_process
from sandbox.transport import SandboxUnavailable

WHOLE_TRIES = 2
ALONE_TRIES = 2

NOT_THE_ROWS = (PolicyError, StoreError, JournalError, SandboxUnavailable, OSError, ImportError)
"""Failures of the world around a part: its problems are not tried one by one because of them."""


class EveryProblemFails(Exception):
    """All problems of a part fail: unless other parts could be made, the fault is not theirs."""


class Failure(StrEnum):
    """What may come of a part that could not be made."""

    LASTING = "lasting"  # a refused key, a spent budget, a missing file: nothing mends it meanwhile
    PASSING = "passing"  # of this node or this minute: another worker may make it
    EVERY_PROBLEM = "every problem"  # and whether the problems are to blame, other parts tell


def failure_of(error: Exception) -> Failure:
    match error:
        case EveryProblemFails():
            return Failure.EVERY_PROBLEM
        case DamagedPart():  # an input that is not there: who waits for it waits in vain
            return Failure.LASTING
        case SandboxUnavailable() | PolicyUnavailable() | StoreError() | OSError():
            return Failure.PASSING
        case _:
            return Failure.LASTING


@dataclass(frozen=True, slots=True)
class Slice:
    """What is made at once: a whole part, or one problem of it."""

    part: int
    problem_id: str | None = None

    @property
    def alone(self) -> bool:
        return self.problem_id is not None

    def read(self, stage: StageStore[Any]) -> list[Any]:
        """The slice's rows of a stage; rows that do not name their problem are given whole."""
        rows = stage.read(self.part)
        if self.problem_id is None:
            return rows
        return [r for r in rows if getattr(r, "problem_id", self.problem_id) == self.problem_id]


class Tries:
    """Makes one part of a stage, slice by slice:

        tries = Tries(stage, part, token, problem_ids)
        while (piece := tries.next()) is not None:
            tries.begin(piece)
            try:
                rows = make(piece)
            except Exception as error:
                tries.failed(piece, error)
            else:
                tries.made(piece, rows)

    All but `__init__` raise StoreError where the store cannot be written, `next` also
    EveryProblemFails. `problem_ids` is asked only when the part has to be taken apart. `retry`:
    give the quarantined problems of a part that is there another chance, and keep its other rows.
    `give_up`: leave all of its problems out of a part, if they all fail. `blamed` names the
    problems whose rows, though made, the sandbox failed on.
    """

    def __init__(
        self,
        stage: StageStore[Any],
        part: int,
        token: Token,
        problem_ids: Callable[[], Sequence[str]],
        *,
        place: Place = UNPLACED,
        retry: bool = False,
        give_up: bool = False,
        blamed: Callable[[Slice, Sequence[Any]], Sequence[Quarantined]] | None = None,
    ) -> None:
        self._stage, self._part, self._problem_ids = stage, part, problem_ids
        self._blamed, self._give_up = blamed, give_up
        self._directory = attempts_of(stage)
        self._path = note_path(stage, part)
        note = read_note(self._path)
        note = note.charged(token, place) if note and note.run == token.run else Note(token.run)
        self._note = replace(note, round=token.round, owner=this_process(), node=place.node)
        self._raised: dict[str, list[Exception]] = {}
        self._quarantined: dict[str, Quarantined] = {}
        self._kept: list[Any] = []
        self._todo: list[str] | None = None  # None: the part is made whole
        self._finished = False
        there = stage.inspect(part)
        if isinstance(there, PartSummary):
            if not retry or not there.quarantined:
                self._finished = True
                return
            self._kept = stage.read(part)
            self._todo = [entry.problem_id for entry in there.quarantined]
        elif self._note.whole >= WHOLE_TRIES:
            self._todo = list(problem_ids())

    def next(self) -> Slice | None:
        """What to make now; None when the part is there."""
        if self._finished:
            return None
        if self._todo is None:
            return Slice(self._part)
        while self._todo:
            problem_id = self._todo[0]
            deaths = self._note.alone.get(problem_id, 0)
            if deaths >= ALONE_TRIES:
                told = f"its worker died {deaths} times, with nothing else at work in it"
                self._quarantine(problem_id, QuarantineReason.CRASH, told)
            elif not self._recover(problem_id):
                return Slice(self._part, problem_id)
            self._todo.pop(0)
        self._write()
        return None

    def begin(self, piece: Slice) -> None:
        """Leave a note of what is tried, for the one who comes after a death."""
        self._save(replace(self._note, under_way=piece.problem_id or ""))

    def made(self, piece: Slice, rows: Iterable[Any]) -> None:
        rows = list(rows)
        blamed = self._blamed(piece, rows) if self._blamed else ()
        self._quarantined |= {entry.problem_id: entry for entry in blamed}
        self._kept += rows
        if piece.problem_id is None:
            self._write()
            return
        assert self._todo is not None
        self._todo.pop(0)
        if self._todo:
            write_rows(self._kept_path(piece.problem_id), rows, self._stage.schema)
            self._save(replace(self._note, under_way=None))

    def failed(self, piece: Slice, error: Exception) -> None:
        """Making the piece raised. Raises the error again where it is not about the rows."""
        self._save(replace(self._note, under_way=None))
        if isinstance(error, NOT_THE_ROWS):
            raise error
        if piece.problem_id is None:
            self._todo = list(self._problem_ids())
            return
        raised = self._raised.setdefault(piece.problem_id, [])
        raised.append(error)
        if len(raised) >= ALONE_TRIES:
            told = f"{type(error).__name__}: {error}"
            self._quarantine(piece.problem_id, QuarantineReason.ERROR, told)
            assert self._todo is not None
            self._todo.pop(0)

    def _quarantine(self, problem_id: str, reason: QuarantineReason, told: str) -> None:
        self._quarantined[problem_id] = Quarantined(problem_id, reason, told)

    def _recover(self, problem_id: str) -> bool:
        """Take the rows of a problem that was made before a worker died with another."""
        with suppress(DamagedPart):
            table = read_table(self._kept_path(problem_id), self._stage.schema)
            self._kept += self._stage.schema.from_table(table)
            return True
        return False

    def _kept_path(self, problem_id: str) -> str:
        inputs = sorted(self._stage.input_digests(self._part).items())
        return f"{self._directory}/part-{self._part:05d}-{content_hash(problem_id, inputs)}.arrow"

    def _write(self) -> None:
        problem_ids = list(self._problem_ids()) if self._quarantined else []
        left_out = [q for q in self._quarantined.values() if q.reason is not QuarantineReason.INFRA]
        if not self._give_up and len(problem_ids) > 1 and len(left_out) == len(problem_ids):
            raise EveryProblemFails(
                f"part {self._part} of {self._stage.name}: all of its {len(problem_ids)} problems "
                f"fail, the first: {left_out[0].told}"
            )
        key = self._stage.schema.key
        rows = {tuple(getattr(row, name) for name in key): row for row in self._kept}
        self._stage.write(self._part, rows.values(), tuple(self._quarantined.values()))
        self._finished = True
        delete(self._path)
        if self._todo is not None:
            for problem_id in self._problem_ids():
                delete(self._kept_path(problem_id))

    def _save(self, note: Note) -> None:
        self._note = note
        save_note(self._path, note)
