"""What a run tells about itself while it works. Stages report facts; a front end shows them."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.store import StageStore

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
    observer: Observer, watched_parts: Sequence[tuple[StageStore[Any], Sequence[int]]]
) -> Iterator[None]:
    """Report the parts of the given stages as they appear in the store, from files alone: whoever
    writes them, on whichever machine, needs no way to report."""
    stopped = threading.Event()
    rows: dict[tuple[str, int], int] = {}

    def look() -> None:
        for stage, indices in watched_parts:
            wanted = set(indices)
            done = [index for index in stage.done() if index in wanted]
            for index in done:
                if (stage.name, index) not in rows:
                    rows[stage.name, index] = stage.count_rows(index)
            total_rows = sum(rows[stage.name, index] for index in done)
            observer.progress(Progress(stage.name, len(done), len(wanted), "parts", total_rows))

    def watch() -> None:
        while not stopped.wait(POLL_S):
            look()

    look()
    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        look()
