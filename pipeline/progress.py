"""What a run tells about itself while it works. Stages report facts; a front end shows them."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.files import StoreError
from pipeline.store import DamagedPart, StageStore

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
    rows: dict[tuple[StageStore[Any], int], int] = {}

    def look() -> None:
        found: dict[str, Progress] = {}
        for stage, indices in watched_parts:
            wanted = set(indices)
            for index in wanted.intersection(stage.done()):
                # A damaged part has no readable footer; it is redone, then it counts.
                with suppress(DamagedPart):
                    if (stage, index) not in rows:
                        rows[stage, index] = stage.count_rows(index)
            counts = [rows[stage, index] for index in wanted if (stage, index) in rows]
            so_far = found.get(stage.name, Progress(stage.name, 0, 0, "parts"))
            found[stage.name] = Progress(
                stage.name,
                so_far.done + len(counts),
                so_far.total + len(wanted),
                "parts",
                so_far.rows + sum(counts),
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
