"""The notes that workers leave of what they are making: who is at it, and who died with it.

A part that is being made has a note in its stage's `attempts` folder, until it is there. They are
what is charged to a problem (see `pipeline.quarantine`), and what tells a round that somebody is at
work (see `pipeline.rounds`).
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pipeline.files import listing, read_bytes, write_atomically
from pipeline.store import StageStore
from sandbox.owner import is_alive_here


@dataclass(frozen=True, slots=True)
class Token:
    """Names a round of a run of the driver to its workers."""

    run: str
    round: int = 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker is. `is_lost`: whether a node is known to have left the cluster."""

    node: str = ""
    is_lost: Callable[[str], bool] = lambda node: False


UNPLACED = Place()
"""Of a worker on no cluster: no node is known to be lost."""


@dataclass(frozen=True, slots=True)
class Note:
    """What is on disk while a part is made: deaths so far, and what is under way."""

    run: str
    round: int = 0
    owner: str = ""
    node: str = ""
    whole: int = 0
    alone: dict[str, int] = field(default_factory=dict[str, int])
    under_way: str | None = None
    """A problem, "" for the whole part, None between two tries."""

    def charged(self, token: Token, place: Place) -> "Note":
        """The note of another worker: where that one died, what was under way is to blame."""
        blameless = (
            self.round != token.round
            or (self.owner and is_alive_here(self.owner))
            or (self.node and place.is_lost(self.node))
        )
        match self.under_way:
            case None:
                return self
            case _ if blameless:
                return replace(self, under_way=None)
            case "":
                return replace(self, whole=self.whole + 1, under_way=None)
            case problem_id:
                deaths = self.alone | {problem_id: self.alone.get(problem_id, 0) + 1}
                return replace(self, alone=deaths, under_way=None)


def begun(stage: StageStore[Any], parts: Iterable[int]) -> set[int]:
    """The parts whose tries did not end."""
    there = listing(attempts_of(stage))
    return {part for part in parts if _name(part) in there}


def deaths(stage: StageStore[Any], parts: Iterable[int], run: str) -> int:
    """How many deaths of workers were charged to parts that are not made yet, in this run. Bounded;
    where they do not grow, nothing is gained by trying once more."""
    notes = _notes(stage, parts)
    return sum(note.whole + sum(note.alone.values()) for note in notes if note.run == run)


def at_work(stage: StageStore[Any], parts: Iterable[int], token: Token) -> set[str]:
    """The processes that say they make one of the parts in this round."""
    return {
        note.owner
        for note in _notes(stage, parts)
        if note.under_way is not None and Token(note.run, note.round) == token
    }


def _notes(stage: StageStore[Any], parts: Iterable[int]) -> list[Note]:
    read = [read_note(note_path(stage, part)) for part in begun(stage, parts)]
    return [note for note in read if note is not None]


def attempts_of(stage: StageStore[Any]) -> str:
    return f"{stage.directory}/attempts"


def note_path(stage: StageStore[Any], part: int) -> str:
    return f"{attempts_of(stage)}/{_name(part)}"


def save_note(path: str, note: Note) -> None:
    # A worker's death leaves the page cache alone: nothing to sync.
    write_atomically(path, json.dumps(asdict(note)).encode(), durable=False)


def _name(part: int) -> str:
    return f"part-{part:05d}.json"


def read_note(path: str) -> Note | None:
    """None where there is none, or none that we wrote."""
    data = read_bytes(path)
    try:
        return None if data is None else Note(**json.loads(data))
    except (ValueError, TypeError):
        return None
