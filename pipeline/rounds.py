"""What is missing of some stages: once, and again when workers died for good in between. No Ray.

A poisonous problem takes a bounded number of workers with it until it is quarantined, but many of
them may take more than one actor has lives. Every round must get somewhere: make a part, or learn
of a death that is then not repeated.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from pipeline.lock import StageLock, stage_lock
from pipeline.progress import Observer, watched
from pipeline.quarantine import deaths
from pipeline.store import StageStore
from pipeline.survey import Survey

Work = Sequence[tuple[StageStore[Any], Sequence[int]]]
"""Stages, and which of their parts are wanted."""

_NAMED = 10


class StageFailed(Exception):
    """Some parts of a stage could not be made; the finished ones are kept."""


class Rounds:
    """Iterated over, they give the missing parts of each stage; who works on a round says so where
    its actors `died`.

    `retry` gives quarantined problems another chance, in the first round. Iterating raises
    StageFailed after a round that came to nothing.
    """

    def __init__(self, work: Work, observer: Observer, *, retry: bool) -> None:
        self.surveys: list[tuple[Survey, Sequence[int]]] = [
            (Survey(stage), parts) for stage, parts in work
        ]
        self.retry = retry
        self.locks: list[StageLock] = []
        self._observer = observer
        self._retried: list[set[int]] = [set() for _ in work]
        self._told: set[str] = set()
        self._died: tuple[Exception, str] | None = None
        self._next = self._missing(retry)

    def __iter__(self) -> Iterator[list[list[int]]]:
        while self.anything:
            before = self._next, self._deaths()
            yield self._next
            if (died := self._take_death()) is None:
                return
            error, why = died
            self._next = self._missing(retry=False)
            if (self._next, self._deaths()) == before:
                raise StageFailed(f"an actor failed: {why}") from error
            self._observer.note(f"going on in new actors: {why}")

    @property
    def anything(self) -> bool:
        """Whether there is anything to do."""
        return any(self._next)

    def check_locks(self) -> None:
        """Raises StageLocked if another driver took a stage over."""
        for lock in self.locks:
            lock.check()

    def died(self, error: Exception, why: str) -> None:
        """The actors of this round died for good; there is another round if this got somewhere."""
        self._died = error, why

    def tell_quarantined(self) -> None:
        """Name the problems that the stages had to give up."""
        for survey, parts in self.surveys:
            named = [
                f"quarantined in {survey.stage.name}: problem {entry.problem_id}: {entry.told}"
                for part in survey.summaries(parts).values()
                for entry in part.quarantined
            ]
            for line in named[:_NAMED]:
                self._observer.note(line)
            if len(named) > _NAMED:
                self._observer.note(f"... and {len(named) - _NAMED} more: see jobs.status")

    def _take_death(self) -> tuple[Exception, str] | None:
        died, self._died = self._died, None
        return died

    def _missing(self, retry: bool) -> list[list[int]]:
        missing: list[list[int]] = []
        for (survey, parts), retried in zip(self.surveys, self._retried, strict=True):
            todo, damaged = survey.missing(parts)
            if retry:
                again = survey.missing(parts, retry_quarantined=True)[0]
                retried.update(set(again) - set(todo))
                todo = again
            else:  # those whose retry was cut short
                todo = sorted({*todo, *deaths(survey.stage, retried)})
            missing.append(todo)
            for damage in damaged:
                if damage not in self._told:
                    self._told.add(damage)
                    self._observer.note(f"redone: {damage}")
        return missing

    def _deaths(self) -> list[dict[int, bytes]]:
        pairs = zip(self.surveys, self._next, strict=True)
        return [deaths(survey.stage, missing) for (survey, _), missing in pairs]


@contextmanager
def working_on(work: Work, observer: Observer, retry: bool) -> Iterator[Rounds]:
    """Lock the stages, say which of their parts are missing, and report them as they come."""
    rounds = Rounds(work, observer, retry=retry)
    with ExitStack() as stack:
        if rounds.anything:  # a part made again takes those of the later stages along
            for survey, _ in rounds.surveys:
                rounds.locks.append(stack.enter_context(stage_lock(survey.stage.directory)))
        try:
            with watched(observer, rounds.surveys):
                yield rounds
        finally:
            for survey, _ in rounds.surveys:
                survey.save()
        rounds.tell_quarantined()
