"""A model behind the OpenAI API, or behind a server that speaks it: no answer is paid for twice.

Each sample is one call. Its response is durable in the journal before anyone sees it, and a call
that was sent is never cancelled: when the caller stops, or the budget ends, the calls in flight run
to their end and are recorded. So a rerun repeats at most the calls that were in flight when the
process itself was killed. What the journal holds needs neither key nor network.
"""

import asyncio
import dataclasses
import time
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing

import openai

from pipeline.config import OpenAIPolicy
from pipeline.journal import Journal
from pipeline.object_journal import ObjectJournal
from pipeline.policies import openai_wire
from pipeline.policies.openai_client import FAILURES
from pipeline.policies.openai_model import OpenAIModel
from pipeline.policies.openai_post import Post
from pipeline.policies.openai_wire import Answer, Usage
from pipeline.policies.paid_answers import Call, Slot, calls_of, to_response
from pipeline.policies.protocol import (
    PolicyRequest,
    PolicyResponse,
    UnanswerableRequest,
)
from pipeline.policies.rate_limit import RateLimit
from pipeline.policies.retries import UnknownShape, may_be_billed, with_retries

_LANES = 4
"""Samples that are looked at at once, as a multiple of the calls in flight: enough for equal ones
that wait for each other, and few enough for the garbage collector."""


class OpenAI(OpenAIModel):
    """An OpenAI model as a policy.

    A prompt that is too long, or that the server's filter rejects, is an answer (`LENGTH`,
    `FILTERED`), as a refusal is; so is a truncated one. One that the server does not take for
    another reason is unanswerable.

    The rate limits are those of this process. Two processes that ask the same at the same moment
    may both pay for it; what another has paid for before is found.
    """

    def __init__(self, config: OpenAIPolicy, journal: Journal | ObjectJournal) -> None:
        super().__init__(config, journal)
        self._rate = RateLimit(config.requests_per_minute, config.tokens_per_minute)
        self._in_flight = asyncio.Semaphore(config.requests_in_flight)
        self._same: weakref.WeakValueDictionary[Slot, asyncio.Lock] = weakref.WeakValueDictionary()
        self._sent: dict[Slot, asyncio.Task[PolicyResponse]] = {}
        self._answered = self._completion_tokens = 0

    def prepare(
        self, requests: Sequence[PolicyRequest], progress: Callable[[int, int], None]
    ) -> None:
        """`preflight`, unless the journal holds all the answers."""
        if any(call.slot not in self._answers for call in calls_of(self._config, requests)):
            self.preflight()

    async def complete(self, requests: Sequence[PolicyRequest]) -> AsyncIterator[PolicyResponse]:
        """Every answer, as it finishes. Raises PolicyError, of which BudgetExhausted is one and
        PolicyUnavailable, of an outage, another, and UnanswerableRequest; all when the calls in
        flight for these requests are recorded."""
        calls = self._calls(requests)
        answers = self._loop.as_they_finish(
            (self._sample(call) for call in calls),
            at_once=_LANES * self._config.requests_in_flight,
        )
        try:
            async with aclosing(answers):
                async for answer in answers:
                    yield answer
        except Exception:
            # Our process may end with this failure, and nobody may close us before.
            await asyncio.wrap_future(self._loop.submit(self._recorded(calls)))
            raise

    async def _sample(self, call: Call) -> PolicyResponse:
        slot, key = call.slot, call.request.key
        lock = self._same.setdefault(slot, asyncio.Lock())
        async with lock:  # two equal requests at once: the second finds the first one's record
            if slot not in self._answers and slot not in self._sent:
                await self._answers.refresh()
            if (recorded := self._answers.get(slot, key)) is not None:
                return recorded
            if slot not in self._sent:
                await self._start(call)
            return dataclasses.replace(await asyncio.shield(self._sent[slot]), key=key)

    async def _start(self, call: Call) -> None:
        """Wait for a turn and for budget, which can be cancelled; then send the call, which
        cannot."""
        post = await self._connection.post()
        await self._in_flight.acquire()
        try:
            guess = await self._admit(call)
        except BaseException:
            self._in_flight.release()
            raise
        task = asyncio.create_task(self._pay(post, call, guess))
        self._sent[call.slot] = task
        task.add_done_callback(lambda task: self._over(call.slot, task))

    async def _admit(self, call: Call) -> float:
        """Reserve budget and a place in the rate limits; the tokens that were guessed."""
        guess = call.prompt_tokens + (
            self._completion_tokens / self._answered
            if self._answered
            else self._config.max_output_tokens
        )
        await self._budget.reserve(call.worst_usd)
        try:
            await self._rate.admit(guess)
        except BaseException:
            self._budget.settle(call.worst_usd, 0.0)
            raise
        return guess

    async def _pay(self, post: Post, call: Call, guess: float) -> PolicyResponse:
        admitted: float | None = guess

        async def attempt() -> PolicyResponse:
            nonlocal admitted
            guess = await self._admit(call) if admitted is None else admitted
            admitted = None
            return await self._attempt(post, call, guess)

        try:
            return await with_retries(attempt, self._config.max_retries, self._rate.pause)
        except FAILURES as error:
            what = f"request {call.request.key}"
            if isinstance(error, openai.APIStatusError) and openai_wire.is_unanswerable(
                error.status_code, error.code, error.param
            ):
                raise UnanswerableRequest(f"{what}: {self._connection.told(error)}") from None
            raise self._connection.failure(what, error) from None
        finally:
            self._in_flight.release()

    async def _attempt(self, post: Post, call: Call, guess: float) -> PolicyResponse:
        """One call, admitted: sent, recorded, settled."""
        worst = call.worst_usd
        paid, lost, used = 0.0, worst, guess
        try:
            answer = await self._ask(post, call)
            response = to_response(self._config, answer, call.request.key, call.slot[1], worst)
            paid, lost = response.cost_usd, 0.0
            await self._answers.put([(call.slot, response)])
            if answer.usage is not None:
                used = answer.usage.prompt + answer.usage.completion
                self._answered += 1
                self._completion_tokens += answer.usage.completion
            return response
        except FAILURES as error:
            if not may_be_billed(error):
                lost, used = 0.0, 0.0
            raise
        finally:
            self._budget.settle(worst, paid, lost)
            self._rate.settle(guess, used)

    async def _ask(self, post: Post, call: Call) -> Answer:
        sent = time.monotonic()
        try:
            told = await post(call.body)
        except openai.APIStatusError as error:
            self._rate.told(error.response.headers, sent)
            finish = None
            if error.status_code == 400:
                finish = openai_wire.prompt_failure(error.message, error.code)
            if finish is None:
                raise
            return Answer("", finish, Usage())
        self._rate.told(told.headers, sent)
        try:
            return openai_wire.read_answer(self._config, openai_wire.parsed(told.content))
        except UnknownShape as strange:
            where = await self._answers.keep_strange(call.slot, told.content)
            raise UnknownShape(f"{strange}; {where}") from None

    async def _recorded(self, calls: Sequence[Call]) -> None:
        """Wait for those of the calls that are in flight, and record what was spent."""
        while tasks := [self._sent[call.slot] for call in calls if call.slot in self._sent]:
            await asyncio.wait(tasks)
        await self._budget.record()

    def _over(self, slot: Slot, call: asyncio.Task[PolicyResponse]) -> None:
        del self._sent[slot]
        if not call.cancelled():
            call.exception()  # its asker may be gone: seen here, it is not reported as lost

    async def _in_flight_over(self) -> None:
        if self._sent:
            await asyncio.wait(self._sent.values())
