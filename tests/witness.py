"""What the workers of a run did and when, told by themselves: one file for each process, to which
every event is appended at once, so that SIGKILL loses none."""

import atexit
import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path


class What(StrEnum):
    STARTED = "started"  # a worker
    ENDED = "ended"  # by itself: nobody killed it
    BEGUN = "begun"  # a slice of a part
    MADE = "made"  # that slice is there
    ASKED = "asked"  # a call that is paid for
    KEPT = "kept"  # its answer is in the journal


@dataclass(frozen=True, slots=True)
class Event:
    """`at` is in seconds since the epoch; `about` names the slice or the call."""

    at: float
    what: What
    about: str
    worker: str
    pid: int
    node: str


class Witness:
    """Tells of one worker, in `<place>/witness/`."""

    def __init__(self, place: Path, worker: str, node: str) -> None:
        self._worker, self._pid, self._node = worker, os.getpid(), node
        (place / "witness").mkdir(exist_ok=True)
        path = place / "witness" / f"{self._pid}-{time.time_ns()}.jsonl"
        self._file = path.open("ab", buffering=0)
        self.tell(What.STARTED)
        atexit.register(self.tell, What.ENDED)

    def tell(self, what: What, about: str = "") -> None:
        event = Event(time.time(), what, about, self._worker, self._pid, self._node)
        self._file.write(json.dumps(asdict(event)).encode() + b"\n")


def events(place: Path) -> list[Event]:
    """All that was told so far, in the order of time."""
    found: list[Event] = []
    for path in (place / "witness").glob("*.jsonl"):
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                fields = json.loads(line)
                found.append(Event(**fields | {"what": What(fields["what"])}))
    return sorted(found, key=lambda event: event.at)


def unfinished(told: Iterable[Event], begin: What, end: What) -> list[Event]:
    """The beginnings that the same process told no end of."""
    told = list(told)
    ended = {(event.pid, event.about) for event in told if event.what is end}
    return [e for e in told if e.what is begin and (e.pid, e.about) not in ended]
