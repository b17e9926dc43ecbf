"""How a worker makes a part: slice by slice, and whatever goes wrong becomes the row's error."""

import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pipeline.attempts import UNPLACED, Place, Token
from pipeline.part_file import Quarantined
from pipeline.plan import Plan
from pipeline.quarantine import Failure, Slice, Tries, failure_of
from pipeline.store import StageStore
from pipeline.workers.patience import TRIES, Patience
from sandbox.owner import this_process

Row = dict[str, Any]
"""Names a part on its way through the workers. See `new_row` and `failed`."""

Make = Callable[[Slice], Iterable[Any]]
"""The rows of a part, or of one problem of it. May raise anything."""


def new_row(token: Token, *, retry: bool = False, give_up: bool = False) -> Row:
    """All of a row but its `part`. `run` and `round` name the round to its workers; `retry`:
    quarantined problems get another chance; `give_up`: a part may lose all of its problems."""
    common = {"run": token.run, "round": token.round, "retry": retry, "give_up": give_up}
    return common | {"error": "", "failure": "", "stage": "", "worker": ""}


def failed(row: Row, error: Exception, stage: str) -> Row:
    """The row of a part that could not be made: what went wrong, of which kind it is, where."""
    kind = failure_of(error).value
    return row | {"error": told(error), "failure": kind, "stage": stage, "worker": this_process()}


class PartWorker:
    """Base of all workers: makes a row's part of one or more stages, or says in the row why not.

    A part that is already there and agrees with its inputs is left alone, so that a retry after a
    crash, or a part that only passes through, costs nothing.
    """

    place: Place = UNPLACED

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.patience = Patience()

    def stages(self, row: Row) -> list[tuple[StageStore[Any], Make]]:
        """The stages that this worker writes for a row's part, in order, and how."""
        raise NotImplementedError

    def __call__(self, row: Row) -> Row:
        if row["error"]:
            return row
        for stage, make in self.stages(row):
            tried = self._try(row, stage, make)
            for _ in range(TRIES - 1):
                if tried["failure"] != Failure.PASSING:
                    break
                time.sleep(self.patience.pause_s())
                tried = self._try(row, stage, make)
            if tried["error"]:
                return tried
        self.patience.relieve()
        return row

    def blamed(self, piece: Slice, rows: Sequence[Any]) -> Sequence[Quarantined]:
        """The problems whose rows could be made in name only."""
        return ()

    def _try(self, row: Row, stage: StageStore[Any], make: Make) -> Row:
        try:
            self._make(row, stage, make)
        except Exception as error:  # noqa: BLE001 - whatever it is, the driver tells it
            return failed(row, error, stage.name)
        return row

    def _make(self, row: Row, stage: StageStore[Any], make: Make) -> None:
        tries = tries_of(self.plan, row, stage, self.place, self.blamed)
        while (piece := tries.next()) is not None:
            tries.begin(piece)
            try:
                rows = list(make(piece))
            except Exception as error:  # noqa: BLE001 - `failed` raises what is not the rows' fault
                tries.failed(piece, error)
            else:
                tries.made(piece, rows)


def tries_of(
    plan: Plan,
    row: Row,
    stage: StageStore[Any],
    place: Place,
    blamed: Callable[[Slice, Sequence[Any]], Sequence[Quarantined]] | None = None,
) -> Tries:
    return Tries(
        stage,
        row["part"],
        Token(row["run"], row["round"]),
        lambda: [problem.problem_id for problem in plan.problems.read(row["part"])],
        place=place,
        retry=row["retry"],
        give_up=row["give_up"],
        blamed=blamed,
    )


def told(error: Exception) -> str:
    """The error for a person: its own words, and where it happened."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
