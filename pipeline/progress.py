"""What a run tells about itself while it works. Stages report facts; a front end shows them."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from pipeline.files import StoreError
from pipeline.survey import Survey

POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a piece of work is: `done` of `total` units, which gave so many `rows`."""

    work: str
    done: int
    total: int
    unit: str
    rows: int = 0
    detail: str = ""


class Observer(Protocol):
    """Who watches a run."""

    def stage(self, title: str) -> None:
        """A stage begins."""

    def progress(self, progress: Progress) -> None:
        """A piece of work of this stage went on."""

    def note(self, text: str) -> None:
        """Something that a person should read."""


@contextmanager
def watched(
    observer: Observer, watched_parts: Sequence[tuple[Survey, Sequence[int]]]
) -> Iterator[None]:
    """Report the parts of the given stages as they appear in the store, from files alone: whoever
    writes them, on whichever machine, needs no way to report."""
    stopped = threading.Event()

    def look() -> None:
        found: dict[str, Progress] = {}
        for survey, indices in watched_parts:
            name, there = survey.stage.name, survey.summaries(indices)
            so_far = found.get(name, Progress(name, 0, 0, "parts"))
            found[name] = Progress(
                name,
                so_far.done + len(there),
                so_far.total + len(set(indices)),
                "parts",
                so_far.rows + sum(part.rows for part in there.values()),
            )
        for progress in found.values():
            observer.progress(progress)

    def look_if_possible() -> None:
        # What is wrong with the files is told by those who work on them.
        with suppress(OSError, StoreError):
            look()

    def watch() -> None:
        while not stopped.wait(POLL_S):
            look_if_possible()

    look_if_possible()
    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        look_if_possible()
