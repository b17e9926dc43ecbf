"""What a run tells about itself while it works. Stages report facts; a front end shows them."""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.files import StoreError
from pipeline.part_file import Tally
from pipeline.survey import Survey

POLL_S = 0.5
SHARE = 0.05
"""Of the driver's time, at most so much goes into looking: a look costs what the parts are many."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a piece of work is: `done` of `total` units, which gave so many `rows`."""

    work: str
    done: int
    total: int
    unit: str
    rows: int = 0
    detail: str = ""
    figures: Mapping[str, float] = field(default_factory=dict[str, float])
    """What else is measured, for curves: losses, tokens, dollars, outcomes by kind."""


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
                figures=_figures(part.tally for part in there.values()),
            )
        for progress in found.values():
            observer.progress(progress)

    def look_if_possible() -> None:
        # What is wrong with the files is told by those who work on them.
        with suppress(OSError, StoreError):
            look()

    def watch() -> None:
        took = 0.0
        while not stopped.wait(max(POLL_S, took / SHARE)):
            started = time.monotonic()
            look_if_possible()
            took = time.monotonic() - started

    look_if_possible()
    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        look_if_possible()


def _figures(tallies: Iterable[Tally]) -> dict[str, float]:
    figures = Counter[str]()
    for tally in tallies:
        figures.update(tally.sums)  # pyright: ignore[reportArgumentType] (it adds floats as well)
        figures.update({f"outcomes/{kind}": count for kind, count in tally.counts.items()})
    return {name: float(value) for name, value in figures.items()}
