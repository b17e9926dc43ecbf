"""An OpenAI model through the Batch API: half the price, answers within 24 hours.

All that a caller asks for goes into as few batches as the limits allow, so ask for everything at
once: a stage's parts then find their answers in the journal. The way of a batch:

    written down -> uploaded -> created -> (hours) -> ended -> answers in the journal -> collected

Every arrow is durable before the next, and a restart goes on from where it stood. What expired or
failed in passing is submitted again in another batch. What the server refuses for good is noted
beside its batch, and not asked again until the next `prepare`.

Two processes share a batch that one of them has written down, but they look and write without a
lock: two that ask the same at the same moment, between each other's look and note, both submit it,
and both batches are paid. Within one run that cannot be: its driver asks for a whole stage at once,
and holds the stage's lock.
"""

import asyncio
import collections
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from openai.types import Batch

from pipeline.config import OpenAIPolicy
from pipeline.files import StoreError
from pipeline.journal import Journal
from pipeline.policies import openai_wire
from pipeline.policies.batch_results import Blame, Failure
from pipeline.policies.batch_server import BatchServer
from pipeline.policies.batch_submissions import Submission, Submissions, calls_that_fit
from pipeline.policies.ledger import Account
from pipeline.policies.openai_client import FAILURES
from pipeline.policies.openai_model import OpenAIModel
from pipeline.policies.openai_wire import Answer
from pipeline.policies.paid_answers import Call, Slot, to_response
from pipeline.policies.protocol import (
    PolicyError,
    PolicyRequest,
    PolicyResponse,
    UnanswerableRequest,
)
from pipeline.policies.retries import is_outage

logger = logging.getLogger(__name__)

LONGEST_OUTAGE_S = 1800.0
"""A server that fails for so long, every call's own retries included, ends the waiting."""

_ENDED = frozenset({"completed", "expired", "cancelled", "failed"})
_QUEUE_FULL = "token_limit_exceeded"
_BILLED = frozenset({Blame.BILLED, Blame.STRANGE})
_IN_NEITHER_FILE = Failure("it is in neither file of results", Blame.PASSING)


@dataclass
class _Asked:
    """What one caller still wants."""

    calls: dict[Slot, Call]
    failed: dict[Slot, str]
    refused: dict[Slot, str]  # for good
    tries: collections.Counter[Slot]
    most: int  # requests in one batch; falls when the server's queue is too short for so many
    progress: Callable[[int, int], None]


class OpenAIBatch(OpenAIModel):
    """An OpenAI model as a policy that answers in batches; see `OpenAI` for what is an answer."""

    def __init__(self, config: OpenAIPolicy, journal: Journal) -> None:
        super().__init__(config, journal)
        self._submissions = Submissions(journal.directory / "batches", config.base_url, config.api)
        self._server = BatchServer(config, self._connection, self._submissions)
        self._path = f"/v1{openai_wire.PATHS[config.api]}"
        self._turn = asyncio.Lock()

    def prepare(
        self, requests: Sequence[PolicyRequest], progress: Callable[[int, int], None]
    ) -> None:
        """Have all of them answered, in as few batches as the limits allow. Raises PolicyError;
        what the server refuses for good is only noted, for `complete` to tell."""
        calls = self._calls(requests)
        answering = self._answer(calls, progress, ask_refused=True)
        for slot, reason in self._loop.submit(answering).result().items():
            logger.warning("request %s-%d is refused: %s", *slot, reason)

    async def complete(self, requests: Sequence[PolicyRequest]) -> AsyncIterator[PolicyResponse]:
        """Every answer, once all are there. Raises UnanswerableRequest, and PolicyError, of which
        BudgetExhausted is one; batches under way go on at the server, and the next to ask collects
        them."""
        calls = self._calls(requests)
        refused = await asyncio.wrap_future(self._loop.submit(self._answer(calls)))
        for call in calls:
            if (reason := refused.get(call.slot)) is not None:
                raise UnanswerableRequest(f"request {call.request.key}: {reason}")
        for call in calls:
            response = self._answers.get(call.slot, call.request.key)
            assert response is not None
            yield response

    async def _answer(
        self,
        calls: Iterable[Call],
        progress: Callable[[int, int], None] = lambda done, total: None,
        *,
        ask_refused: bool = False,
    ) -> dict[Slot, str]:
        """See to it that every call's answer is in the journal, but for those that the server
        refuses for good: these are returned, with the reason. `ask_refused`: ask for those that it
        refused before, too."""
        async with self._turn:
            await self._answers.refresh()
            wanted = {call.slot: call for call in calls if call.slot not in self._answers}
            try:
                self._close_recorded()
                if not wanted:
                    return {}
                if ask_refused:
                    self._submissions.forget_refused(wanted)
                known = self._submissions.refused()
                refused = {slot: known[slot] for slot in wanted if slot in known}
                if len(refused) == len(wanted):
                    return refused
                asked = _Asked(wanted, {}, refused, collections.Counter(), len(wanted), progress)
                await self._connection.client()  # before anything is written down
                await self._answered(asked)
            except FAILURES as error:
                raise self._connection.failure("Batch API", error) from None
            except StoreError as error:
                raise PolicyError(f"Batch API: {error}") from error
            if asked.failed:
                slot, reason = next(iter(asked.failed.items()))
                raise PolicyError(
                    f"{len(asked.failed)} of {len(wanted)} requests of the batches failed (the "
                    f"other answers are kept); the first: {wanted[slot].request.key}: {reason}"
                )
            return asked.refused

    async def _answered(self, asked: _Asked) -> None:
        """Go on until there is nothing to wait for, through outages: hours of waiting for a batch
        meet one sooner or later, and the next look finds all as it was."""
        failing_since: float | None = None
        while True:
            try:
                if not await self._go_on(asked):
                    return
                failing_since = None
            except FAILURES as error:
                now = time.monotonic()
                if failing_since is None:
                    failing_since = now
                if not is_outage(error) or now - failing_since >= LONGEST_OUTAGE_S:
                    raise
                logger.warning("Batch API: %s; looking again", self._connection.told(error))
            await asyncio.sleep(self._config.batch_poll_s)

    def _close_recorded(self) -> None:
        """Settle batches whose answers are all in the journal, but whose collector was killed
        before it could: what they were promised would be taken from the budget for ever."""
        for submission in self._submissions.open():
            slots = self._submissions.slots(submission)
            if all(slot in self._answers for slot in slots):
                answers = (self._answers.get(slot, key="") for slot in slots)
                self._close(submission, sum(answer.cost_usd for answer in answers if answer))

    async def _go_on(self, asked: _Asked) -> bool:
        """Collect what has ended, submit what can be; whether there is anything to wait for."""
        queue_full = False
        done = total = 0
        for submission in self._under_way(asked):
            if submission.batch_id is None:  # we may have been killed before we promised its cost
                self._ledger.write(_spender(submission), Account(0.0, submission.worst_usd))
            batch = await self._server.look_at(submission)
            if batch.status == "failed":
                queue_full |= self._refused(submission, batch, asked)
            elif batch.status in _ENDED:
                await self._collect(submission, batch, asked)
            else:
                counts = batch.request_counts
                done += counts.completed + counts.failed if counts else 0
                total += submission.requests
        if total:
            asked.progress(done, total)
        under_way = self._under_way(asked)
        # After that look: a batch that another process has closed has its answers in the journal.
        await self._answers.refresh(at_once=True)
        if queue_full and under_way:
            return True  # there will be room when one of them has ended
        if queue_full:
            asked.most = max(1, asked.most // 2)
        while missing := self._missing(asked, under_way):
            submission = await self._submit(missing, asked.most, bool(under_way))
            if submission is None:
                break
            under_way.append(submission)
        return bool(under_way)

    def _under_way(self, asked: _Asked) -> list[Submission]:
        return [
            submission
            for submission in self._submissions.open()
            if not asked.calls.keys().isdisjoint(self._submissions.slots(submission))
        ]

    def _missing(self, asked: _Asked, under_way: Iterable[Submission]) -> list[Call]:
        elsewhere = set(asked.failed).union(asked.refused, *map(self._submissions.slots, under_way))
        return [
            call
            for slot, call in asked.calls.items()
            if slot not in elsewhere and slot not in self._answers
        ]

    async def _submit(self, missing: list[Call], most: int, others: bool) -> Submission | None:
        """One batch of as many calls as its limits and the budget allow; None where the budget has
        no room until `others` of ours have ended. Raises BudgetExhausted."""
        room_usd = await self._budget.room_usd()
        calls: list[Call] = []
        worst_usd = 0.0
        for call in calls_that_fit(missing, self._path, most):
            if worst_usd + call.worst_usd > room_usd:
                break
            worst_usd += call.worst_usd
            calls.append(call)
        if not calls and others:
            return None
        if not calls:
            calls = missing[:1]
            worst_usd = calls[0].worst_usd
        await self._budget.reserve(worst_usd)
        try:
            submission = await asyncio.to_thread(
                self._submissions.add, calls, worst_usd, self._path
            )
            self._ledger.write(_spender(submission), Account(0.0, worst_usd))
        finally:
            # The batch's own account has it now, and ours must not have it as well for longer than
            # it takes to write: who is killed meanwhile leaves both, and the cap comes too early.
            self._budget.settle(worst_usd, 0.0)
            await self._budget.record()
        await self._server.create(submission)
        return submission

    def _refused(self, submission: Submission, batch: Batch, asked: _Asked) -> bool:
        """The server did not take a batch, so nothing is paid; whether its queue was full."""
        errors = (batch.errors.data if batch.errors else None) or []
        queue_full = any(error.code == _QUEUE_FULL for error in errors)
        told = errors[0].message if errors else None
        if not queue_full or (asked.most == 1 and submission.requests == 1):
            reason = f"batch {batch.id} was refused: {told or 'no reason given'}"
            asked.failed |= dict.fromkeys(self._slots_of(submission, asked), reason)
        self._close(submission, spent_usd=0.0)
        return queue_full

    async def _collect(self, submission: Submission, batch: Batch, asked: _Asked) -> None:
        """Record the answers of a batch that has ended."""
        results = await self._server.results(submission, batch)
        each_usd = submission.worst_usd / submission.requests
        answers = {
            slot: to_response(self._config, result, slot[0], slot[1], each_usd)
            for slot, result in results.items()
            if isinstance(result, Answer)
        }
        await self._answers.put(answers.items())
        failures = {slot: result for slot, result in results.items() if isinstance(result, Failure)}
        billed = sum(failure.blame in _BILLED for failure in failures.values())
        for slot, failure in failures.items():
            if failure.blame is Blame.STRANGE:
                where = await self._answers.keep_strange(slot, failure.body)
                failures[slot] = Failure(f"{failure.reason}; {where}", failure.blame)
        refused = {
            slot: f"batch {batch.id}: {failure.reason}"
            for slot, failure in failures.items()
            if failure.blame is Blame.REQUEST
        }
        unanswered = self._slots_of(submission, asked) - answers.keys()
        spent_usd = sum(answer.cost_usd for answer in answers.values())
        self._close(submission, spent_usd, billed * each_usd, refused)
        for slot in unanswered:
            failure = failures.get(slot, _IN_NEITHER_FILE)
            asked.tries[slot] += 1
            if slot in refused:
                asked.refused[slot] = refused[slot]
            elif batch.status == "cancelled":
                asked.failed[slot] = f"batch {batch.id} was cancelled; run again to submit the rest"
            elif failure.blame is Blame.ALL:
                asked.failed[slot] = f"batch {batch.id}: {failure.reason}"
            elif asked.tries[slot] > self._config.max_retries or (
                failure.blame is Blame.STRANGE and asked.tries[slot] > 1
            ):
                asked.failed[slot] = f"batch {batch.id}, the last try: {failure.reason}"

    def _slots_of(self, submission: Submission, asked: _Asked) -> set[Slot]:
        return asked.calls.keys() & self._submissions.slots(submission)

    def _close(
        self,
        submission: Submission,
        spent_usd: float,
        lost_usd: float = 0.0,
        refused: Mapping[Slot, str] = MappingProxyType({}),
    ) -> None:
        """`lost_usd`: the most that was billed for nothing, which stays promised."""
        self._ledger.write(_spender(submission), Account(spent_usd, lost_usd))
        self._submissions.close(submission, refused)


def _spender(submission: Submission) -> str:
    return f"batch-{submission.token}"
