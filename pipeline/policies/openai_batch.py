"""An OpenAI model through the Batch API: half the price, answers within 24 hours.

All that a caller asks for goes into as few batches as the limits allow, so ask for everything at
once: a stage's parts then find their answers in the journal. The way of a batch:

    written down -> uploaded -> created -> (hours) -> ended -> answers in the journal -> collected

Every arrow is durable before the next, and a restart goes on from where it stood. A batch that may
have been created without our hearing of it is looked for at the server by its token before another
is: no request is submitted twice, as long as the server lists the batches that it has accepted.
What expired or failed in passing is submitted again in another batch. What the server refuses for
good is noted beside its batch, and not asked again until the next `prepare`.
"""

import asyncio
import collections
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import openai
from openai.types import Batch

from pipeline.config import OpenAIPolicy
from pipeline.files import StoreError
from pipeline.journal import Journal
from pipeline.policies import openai_wire
from pipeline.policies.batch_results import Blame, Failure, read_results
from pipeline.policies.batch_submissions import Submission, Submissions, calls_that_fit
from pipeline.policies.budget import Budget
from pipeline.policies.ledger import Account, Ledger
from pipeline.policies.openai_client import FAILURES, Connection
from pipeline.policies.openai_wire import Answer
from pipeline.policies.own_loop import OwnLoop
from pipeline.policies.paid_answers import Call, PaidAnswers, Slot, calls_of, to_response
from pipeline.policies.protocol import (
    PolicyError,
    PolicyRequest,
    PolicyResponse,
    UnanswerableRequest,
)
from pipeline.policies.retries import with_retries

logger = logging.getLogger(__name__)

_ENDED = frozenset({"completed", "expired", "cancelled", "failed"})
_QUEUE_FULL = "token_limit_exceeded"
_CHAT = "/v1/chat/completions"
_CLOCKS_DIFFER_S = 3600.0  # at most, ours and the server's
_TOKEN = "submission"  # the key of our token in a batch's metadata


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


class OpenAIBatch:
    """An OpenAI model as a policy that answers in batches; see `OpenAI` for what is an answer."""

    continues_prefill = False

    def __init__(self, config: OpenAIPolicy, journal: Journal) -> None:
        self._config = config
        self._answers = PaidAnswers(journal)
        self._connection = Connection(config)
        self._ledger = Ledger(journal.directory / "spending")
        self._budget = Budget(config.budget_usd, self._ledger)
        self._submissions = Submissions(journal.directory / "batches", config.base_url, config.api)
        self._path = f"/v1{openai_wire.PATHS[config.api]}"
        self._turn = asyncio.Lock()
        self._closed = False
        self._loop = OwnLoop("openai-batch")

    @property
    def spent_usd(self) -> float:
        """Dollars spent through this journal."""
        return self._budget.spent_usd()

    def preflight(self) -> None:
        """As `OpenAI.preflight`."""
        self._loop.submit(self._connection.client()).result()

    def prepare(
        self, requests: Sequence[PolicyRequest], progress: Callable[[int, int], None]
    ) -> None:
        """Have all of them answered, in as few batches as the limits allow. Raises PolicyError;
        what the server refuses for good is only noted, for `complete` to tell."""
        calls = list(calls_of(self._config, requests))
        answering = self._answer(calls, progress, ask_refused=True)
        for slot, reason in self._loop.submit(answering).result().items():
            logger.warning("request %s-%d is refused: %s", *slot, reason)

    async def complete(self, requests: Sequence[PolicyRequest]) -> AsyncIterator[PolicyResponse]:
        """Every answer, once all are there. Raises UnanswerableRequest, and PolicyError, of which
        BudgetExhausted is one; batches under way go on at the server, and the next to ask collects
        them."""
        if self._closed:
            raise PolicyError("this OpenAI policy is closed")
        calls = list(calls_of(self._config, requests))
        refused = await asyncio.wrap_future(self._loop.submit(self._answer(calls)))
        for call in calls:
            if (reason := refused.get(call.slot)) is not None:
                raise UnanswerableRequest(f"request {call.request.key}: {reason}")
        for call in calls:
            response = self._answers.get(call.slot, call.request.key)
            assert response is not None
            yield response

    def close(self) -> None:
        """Batches under way go on at the server."""
        if self._closed:
            return
        self._closed = True
        self._loop.submit(self._end()).result()
        self._loop.stop()
        self._answers.close()

    async def _end(self) -> None:
        await self._budget.close()
        await self._connection.close()

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
            if not wanted:
                return {}
            try:
                if ask_refused:
                    self._submissions.forget_refused(wanted)
                known = self._submissions.refused()
                refused = {slot: known[slot] for slot in wanted if slot in known}
                if len(refused) == len(wanted):
                    return refused
                asked = _Asked(wanted, {}, refused, collections.Counter(), len(wanted), progress)
                client = await self._connection.client()
                while await self._go_on(client, asked):
                    await asyncio.sleep(self._config.batch_poll_s)
            except FAILURES as error:
                raise PolicyError(f"Batch API: {self._connection.told(error)}") from None
            except StoreError as error:
                raise PolicyError(f"Batch API: {error}") from error
            if asked.failed:
                slot, reason = next(iter(asked.failed.items()))
                raise PolicyError(
                    f"{len(asked.failed)} of {len(wanted)} requests of the batches failed (the "
                    f"other answers are kept); the first: {wanted[slot].request.key}: {reason}"
                )
            return asked.refused

    async def _go_on(self, client: openai.AsyncOpenAI, asked: _Asked) -> bool:
        """Collect what has ended, submit what can be; whether there is anything to wait for."""
        queue_full = False
        done = total = 0
        for submission in self._under_way(asked):
            batch = await self._at_server(client, submission)
            if batch.status == "failed":
                queue_full |= self._refused(submission, batch, asked)
            elif batch.status in _ENDED:
                await self._collect(client, submission, batch, asked)
            else:
                counts = batch.request_counts
                done += counts.completed + counts.failed if counts else 0
                total += submission.requests
        if total:
            asked.progress(done, total)
        under_way = self._under_way(asked)
        if queue_full and under_way:
            return True  # there will be room when one of them has ended
        if queue_full:
            asked.most = max(1, asked.most // 2)
        while missing := self._missing(asked, under_way):
            submission = await self._submit(client, missing, asked.most, bool(under_way))
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

    async def _submit(
        self, client: openai.AsyncOpenAI, missing: list[Call], most: int, others: bool
    ) -> Submission | None:
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
            self._budget.settle(worst_usd, 0.0)  # the batch's own account has it now
        await self._create(client, submission)
        return submission

    async def _at_server(self, client: openai.AsyncOpenAI, submission: Submission) -> Batch:
        """The batch of a submission, created if the server does not have it yet."""
        batch_id = submission.batch_id
        if batch_id is None:  # we were killed, or lost the connection, on the way
            self._ledger.write(_spender(submission), Account(0.0, submission.worst_usd))
            return await self._create(client, submission, perhaps_there=True)
        try:
            return await with_retries(
                lambda: client.batches.retrieve(batch_id), self._config.max_retries
            )
        except openai.NotFoundError:
            raise self._gone(submission) from None

    async def _create(
        self, client: openai.AsyncOpenAI, submission: Submission, *, perhaps_there: bool = False
    ) -> Batch:
        retries = self._config.max_retries
        if submission.input_file_id is None:
            uploaded = await with_retries(lambda: self._upload(client, submission), retries)
            submission = self._submissions.update(submission, input_file_id=uploaded)
        file_id = submission.input_file_id
        assert file_id is not None

        async def attempt() -> Batch:
            nonlocal perhaps_there
            if perhaps_there and (found := await _find(client, submission)):
                return found
            perhaps_there = True
            return await client.batches.create(
                completion_window="24h",
                endpoint="/v1/responses" if submission.api == "responses" else _CHAT,
                input_file_id=file_id,
                metadata={_TOKEN: submission.token},
            )

        batch = await with_retries(attempt, retries)
        self._submissions.update(submission, batch_id=batch.id)
        logger.info("batch %s: %d requests submitted", batch.id, submission.requests)
        return batch

    async def _upload(self, client: openai.AsyncOpenAI, submission: Submission) -> str:
        path = self._submissions.lines(submission)
        with path.open("rb") as file:
            return (await client.files.create(file=(path.name, file), purpose="batch")).id

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

    async def _collect(
        self, client: openai.AsyncOpenAI, submission: Submission, batch: Batch, asked: _Asked
    ) -> None:
        """Record the answers of a batch that has ended."""
        results: dict[Slot, Answer | Failure] = {}
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id is not None:
                try:
                    results |= await with_retries(
                        lambda file_id=file_id: self._results(client, file_id),
                        self._config.max_retries,
                    )
                except openai.NotFoundError:
                    raise self._gone(submission) from None
        each_usd = submission.worst_usd / submission.requests
        answers = {
            slot: to_response(self._config, result, slot[0], slot[1], each_usd)
            for slot, result in results.items()
            if isinstance(result, Answer)
        }
        await self._answers.put(answers.items())
        failures = {slot: result for slot, result in results.items() if isinstance(result, Failure)}
        billed = sum(failure.blame is Blame.BILLED for failure in failures.values())
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
            elif asked.tries[slot] > self._config.max_retries:
                asked.failed[slot] = f"batch {batch.id}, the last try: {failure.reason}"

    async def _results(
        self, client: openai.AsyncOpenAI, file_id: str
    ) -> dict[Slot, Answer | Failure]:
        content = await client.files.content(file_id)
        return dict(read_results(self._config, content.text.split("\n")))

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

    def _gone(self, submission: Submission) -> PolicyError:
        return PolicyError(
            f"Batch API: the server has no batch {submission.batch_id} any more, or not its "
            "results: they were deleted, or OPENAI_API_KEY is of another project; where they are "
            f"lost, delete {self._submissions.note(submission)} and run again, which pays for its "
            f"{submission.requests} requests anew"
        )


def _spender(submission: Submission) -> str:
    return f"batch-{submission.token}"


async def _find(client: openai.AsyncOpenAI, submission: Submission) -> Batch | None:
    """The batch that carries our token, if the server has it; it lists the newest first."""
    async for batch in client.batches.list(limit=100):
        if (batch.metadata or {}).get(_TOKEN) == submission.token:
            return batch
        if batch.created_at < submission.created - _CLOCKS_DIFFER_S:
            return None
    return None
