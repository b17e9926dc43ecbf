"""What is missing of some stages: once, and again when workers died for good in between, or failed
for reasons that pass. No Ray.

A poisonous problem takes a bounded number of workers with it until it is quarantined, but many of
them may take more than one actor has lives. Every round must get somewhere: make a part, or learn
of a death that is then not repeated. Parts only become fewer, and deaths that are charged to those
left are bounded, so the rounds come to an end.
"""

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from pipeline.attempts import Token, at_work, begun, deaths
from pipeline.lock import StageLock, stage_lock
from pipeline.progress import Observer, watched
from pipeline.quarantine import Failure
from pipeline.store import StageStore
from pipeline.survey import Survey

Work = Sequence[tuple[StageStore[Any], Sequence[int]]]
"""Stages, and which of their parts are wanted."""

_NAMED = 10

STILL_S = 240.0
"""A round ends where for so long no part was made and nobody but those who fail is at work: more
than an engine takes to load, in which nobody seems to be at work either."""

FRUITLESS = 3
"""Rounds in a row that may come to nothing, though somebody was at work when they ended."""


class StageFailed(Exception):
    """Some parts of a stage could not be made; the finished ones are kept."""


class Rounds:
    """Iterated over, they give the missing parts of each stage; who works on a round tells the row
    of each part that comes back, and where its actors `died`.

    `retry` gives quarantined problems another chance, in the first round. Iterating raises
    StageFailed after a round that came to nothing, and where a failure is not one that passes.
    """

    def __init__(self, work: Work, observer: Observer, *, retry: bool) -> None:
        self.surveys: list[tuple[Survey, Sequence[int]]] = [
            (Survey(stage), parts) for stage, parts in work
        ]
        self.retry = retry
        self.locks: list[StageLock] = []
        self.token = Token(secrets.token_hex(8), 0)
        self.give_up = False
        """Whether a part may lose all of its problems: others could be made, so they are to blame.
        """
        self._observer = observer
        self._retried: list[set[int]] = [set() for _ in work]
        self._told: set[str] = set()
        self._next = self._missing(retry)

    def __iter__(self) -> Iterator[list[list[int]]]:
        best, fruitless = self._standing(), 0
        while self.anything:
            self._begin()
            yield self._next
            if self._died is None and not self._failed:
                return
            self._stop_for_good(Failure.LASTING)
            was_at_work = bool(self._at_work() - self._failing)
            self._next = self._missing(retry=False)
            self._judge_parts_without_a_good_problem()
            now = self._standing()
            fruitless = 0 if now > best else fruitless + 1
            best = max(best, now)
            if fruitless >= (FRUITLESS if was_at_work else 1):
                self._stop_for_good(*Failure)
                error, why = self._died or (None, "")
                raise StageFailed(f"an actor failed: {why}") from error
            self._observer.note(f"going on in new actors: {self._why()}")

    @property
    def anything(self) -> bool:
        """Whether there is anything to do."""
        return any(self._next)

    @property
    def is_first(self) -> bool:
        """Whether nobody has worked on this before."""
        return self.token.round == 1

    def check_locks(self) -> None:
        """Raises StageLocked if another driver took a stage over."""
        for lock in self.locks:
            lock.check()

    def died(self, error: Exception, why: str) -> None:
        """The actors of this round died for good; there is another round if this got somewhere."""
        self._died = error, why

    def tell(self, row: Mapping[str, Any]) -> None:
        """A part came back from the last worker; there is another round over those that failed for
        reasons that pass."""
        if not row["error"]:
            self._still_since = time.monotonic()
            self._failing.clear()
            return
        self._failed.append((Failure(row["failure"]), row["stage"], row["error"]))
        if row["failure"] == Failure.PASSING:
            if not self._failing:
                self._observer.note(f"others go on, and this is tried again later: {row['error']}")
            self._failing.add(row["worker"])

    @property
    def is_stuck(self) -> bool:
        """Whether everybody fails, for reasons that were given time to pass."""
        if not self._failing or time.monotonic() - self._still_since < STILL_S:
            return False
        return self._at_work() <= self._failing

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

    def _begin(self) -> None:
        self.token = Token(self.token.run, self.token.round + 1)
        self._died: tuple[Exception, str] | None = None
        self._failed: list[tuple[Failure, str, str]] = []  # which kind, of which stage, told
        self._failing: set[str] = set()  # workers, since the last good part
        self._still_since = time.monotonic()

    def _why(self) -> str:
        return self._died[1] if self._died else self._failed[0][2]

    def _stop_for_good(self, *kinds: Failure) -> None:
        reasons = [told for kind, _, told in self._failed if kind in kinds]
        if reasons:
            raise StageFailed(
                f"{len(reasons)} parts could not be made (the others are kept; run again to "
                "resume):\n" + "\n".join(sorted(set(reasons))[:3])
            )

    def _judge_parts_without_a_good_problem(self) -> None:
        """Of a stage in which more parts are there than failed as a whole, those may lose all of
        their problems from now on. Raises StageFailed where it is not so."""
        failed = [stage for kind, stage, _ in self._failed if kind is Failure.EVERY_PROBLEM]
        for name in set(failed):
            pairs = zip(self.surveys, self._next, strict=True)
            of_stage = [(s, parts, left) for (s, parts), left in pairs if s.stage.name == name]
            there = sum(len(set(parts)) - len(left) for _, parts, left in of_stage)
            if self.give_up or there <= failed.count(name):
                self._stop_for_good(Failure.EVERY_PROBLEM)
        self.give_up = self.give_up or bool(failed)

    def _standing(self) -> tuple[int, bool, int]:
        """Grows with each round that gets somewhere, and is bounded."""
        pairs = zip(self.surveys, self._next, strict=True)
        charged = sum(deaths(survey.stage, left, self.token.run) for (survey, _), left in pairs)
        return -sum(map(len, self._next)), self.give_up, charged

    def _at_work(self) -> set[str]:
        pairs = zip(self.surveys, self._next, strict=True)
        return set[str]().union(
            *(at_work(survey.stage, left, self.token) for (survey, _), left in pairs)
        )

    def _missing(self, retry: bool) -> list[list[int]]:
        missing: list[list[int]] = []
        for (survey, parts), retried in zip(self.surveys, self._retried, strict=True):
            todo, damaged = survey.missing(parts)
            if retry:
                again = survey.missing(parts, retry_quarantined=True)[0]
                retried.update(set(again) - set(todo))
                todo = again
            else:  # those whose retry was cut short
                todo = sorted({*todo, *begun(survey.stage, retried)})
            missing.append(todo)
            for damage in damaged:
                if damage not in self._told:
                    self._told.add(damage)
                    self._observer.note(f"redone: {damage}")
        return missing


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
