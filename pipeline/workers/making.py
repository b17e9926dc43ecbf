"""How a worker makes a part: slice by slice, and whatever goes wrong becomes the row's error."""

import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pipeline.part_file import Quarantined
from pipeline.plan import Plan
from pipeline.quarantine import Slice, Tries
from pipeline.store import StageStore

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
            return row | {"error": told(error)}
        return row

    def blamed(self, piece: Slice, rows: Sequence[Any]) -> Sequence[Quarantined]:
        """The problems whose rows could be made in name only."""
        return ()

    def _make(self, row: Row, stage: StageStore[Any], make: Make) -> None:
        tries = tries_of(self.plan, row, stage, self.blamed)
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


def told(error: Exception) -> str:
    """The error for a person: its own words, and where it happened."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
