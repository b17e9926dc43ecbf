"""A model behind the OpenAI API, or behind a server that speaks it: no answer is paid for twice.

Each sample is one call. Its response is durable in the journal before anyone sees it, and a call
that was sent is never cancelled: when the caller stops, or the budget ends, the calls in flight run
to their end and are recorded. So a rerun repeats at most the calls that were in flight when the
process itself was killed.

The key is read from OPENAI_API_KEY and nowhere else, and only when a call must be paid: what the
journal holds needs neither key nor network.
"""

import asyncio
import dataclasses
import difflib
import json
import os
import weakref
from collections.abc import AsyncIterator, Sequence
from typing import Any

import openai

from pipeline.config import OpenAIPolicy
from pipeline.journal import Journal
from pipeline.policies import openai_wire
from pipeline.policies.budget import Budget
from pipeline.policies.openai_wire import Answer
from pipeline.policies.own_loop import OwnLoop
from pipeline.policies.protocol import PolicyError, PolicyRequest, PolicyResponse
from pipeline.policies.retries import MalformedResponse, with_retries
from pipeline.records import FinishReason, content_hash

_ANSWERED_ERRORS = {
    "context_length_exceeded": FinishReason.LENGTH,
    "invalid_prompt": FinishReason.FILTERED,
    "content_filter": FinishReason.FILTERED,
}
_FAILURES = (openai.OpenAIError, MalformedResponse, json.JSONDecodeError)


class OpenAI:
    """An OpenAI model as a policy.

    A prompt that is too long, or that the server's filter rejects, is an answer (`LENGTH`,
    `FILTERED`), as a refusal is; so is a truncated one. `Prompt.prefill` is ignored.

    The budget counts every dollar in the journal's directory, so it holds over reruns; processes
    that spend at the same time do not see each other, so let one process do the spending.
    """

    continues_prefill = False

    def __init__(self, config: OpenAIPolicy, journal: Journal) -> None:
        self._config = config
        self._journal = journal
        spent = 0.0 if config.budget_usd is None else sum(_costs(journal))
        self._budget = Budget(config.budget_usd, spent)
        self._in_flight = asyncio.Semaphore(config.requests_in_flight)
        self._same: weakref.WeakValueDictionary[tuple[str, int], asyncio.Lock] = (
            weakref.WeakValueDictionary()
        )
        self._calls: dict[tuple[str, int], asyncio.Task[bytes]] = {}
        self._connecting = asyncio.Lock()
        self._client: openai.AsyncOpenAI | None = None
        self._closed = False
        self._loop = OwnLoop("openai")

    @property
    def spent_usd(self) -> float:
        """Dollars spent by this policy; with a budget, all that the journal knows of."""
        return self._budget.spent_usd

    def preflight(self) -> None:
        """Ask for the model before anything is spent; the first paid call does so by itself.

        Raises PolicyError that names a missing or bad key, or an unknown or retired model.
        """
        self._loop.submit(self._connect()).result()

    def complete(self, requests: Sequence[PolicyRequest]) -> AsyncIterator[PolicyResponse]:
        """Every answer, as it finishes. Raises PolicyError, of which BudgetExhausted is one."""
        if self._closed:
            raise PolicyError("this OpenAI policy is closed")
        return self._loop.as_they_finish(
            self._sample(request, index) for request in requests for index in request.sample_indices
        )

    def close(self) -> None:
        """Wait for the calls in flight, which are paid, and end."""
        if self._closed:
            return
        self._closed = True
        self._loop.submit(self._end()).result()
        self._loop.stop()
        self._journal.close()

    async def _sample(self, request: PolicyRequest, index: int) -> PolicyResponse:
        body = openai_wire.body(self._config, request.prompt)
        slot = (content_hash(self._config.base_url, json.dumps(body, sort_keys=True)), index)
        lock = self._same.setdefault(slot, asyncio.Lock())
        async with lock:  # two equal requests at once: the second finds the first one's record
            recorded = self._journal.get(*slot)
            if recorded is None and slot not in self._calls:
                await self._send(request, body, slot)
            if recorded is None:
                recorded = await asyncio.shield(self._calls[slot])
        return dataclasses.replace(_decode(recorded), key=request.key)

    async def _send(
        self, request: PolicyRequest, body: dict[str, Any], slot: tuple[str, int]
    ) -> None:
        """Wait for a turn and for budget, which can be cancelled; then start the call, which
        cannot."""
        client = await self._connect()
        worst = openai_wire.worst_cost_usd(self._config, request.prompt)
        await self._in_flight.acquire()
        try:
            await self._budget.reserve(worst)
        except BaseException:
            self._in_flight.release()
            raise
        call = asyncio.create_task(self._call(client, request.key, body, slot, worst))
        self._calls[slot] = call
        call.add_done_callback(lambda call: self._over(slot, call))

    async def _call(
        self,
        client: openai.AsyncOpenAI,
        key: str,
        body: dict[str, Any],
        slot: tuple[str, int],
        worst_usd: float,
    ) -> bytes:
        paid = 0.0
        try:
            answer = await self._answer(client, key, body)
            paid = answer.cost_usd(self._config.price, worst_usd)
            payload = _encode(answer, key, slot[1], paid)
            try:
                await asyncio.to_thread(self._journal.put, *slot, payload)
            except OSError as error:
                raise PolicyError(f"a paid answer could not be recorded: {error}") from error
            return payload
        finally:
            await self._budget.settle(worst_usd, paid)
            self._in_flight.release()

    async def _answer(self, client: openai.AsyncOpenAI, key: str, body: dict[str, Any]) -> Answer:
        try:
            return await with_retries(
                lambda: openai_wire.ask(client, self._config, body), self._config.max_retries
            )
        except _FAILURES as error:
            finish = _finish_reason_of(error)
            if finish is not None:
                return Answer("", finish, 0, 0)
            # `from None`: the original may quote the key.
            raise PolicyError(f"request {key}: {self._told(error)}") from None

    async def _connect(self) -> openai.AsyncOpenAI:
        async with self._connecting:
            if self._client is None:
                self._client = await self._checked_client()
            return self._client

    async def _checked_client(self) -> openai.AsyncOpenAI:
        config = self._config
        api_key = os.environ.get("OPENAI_API_KEY", "")
        if not api_key and config.base_url is None:
            raise PolicyError("OPENAI_API_KEY is not set: export it before asking an OpenAI model")
        client = openai.AsyncOpenAI(
            api_key=api_key or "none",
            base_url=config.base_url,
            timeout=config.timeout_s,
            max_retries=0,  # ours know the journal and the budget
        )
        try:
            page = await with_retries(lambda: _models(client), config.max_retries)
        except _FAILURES as error:
            await client.close()
            raise PolicyError(f"preflight for {config.model!r}: {self._told(error)}") from None
        if config.model not in page:
            await client.close()
            similar = difflib.get_close_matches(config.model, page, n=3, cutoff=0.3)
            raise PolicyError(
                f"policy.model {config.model!r} is not among the models that this key may use: "
                f"unknown, or retired; similar ones are {', '.join(similar) or 'not there'}"
            )
        return client

    def _told(self, error: Exception) -> str:
        """An API failure in one line, without the key that a server may quote."""
        status = f"{error.status_code} " if isinstance(error, openai.APIStatusError) else ""
        if isinstance(error, openai.AuthenticationError):
            status += "the key in OPENAI_API_KEY was refused: "
        told = f"{status}{error}"
        if api_key := os.environ.get("OPENAI_API_KEY"):
            told = told.replace(api_key, "[key]")
        return told

    def _over(self, slot: tuple[str, int], call: asyncio.Task[bytes]) -> None:
        del self._calls[slot]
        if not call.cancelled():
            call.exception()  # its asker may be gone: seen here, it is not reported as lost

    async def _end(self) -> None:
        if self._calls:
            await asyncio.wait(self._calls.values())
        if self._client is not None:
            await self._client.close()


async def _models(client: openai.AsyncOpenAI) -> list[str]:
    return [model.id async for model in client.models.list()]


def _finish_reason_of(error: Exception) -> FinishReason | None:
    """What a 400 says about the prompt; None where it says that the request is wrong."""
    if not isinstance(error, openai.BadRequestError):
        return None
    if "maximum context length" in error.message:  # other servers have no code for it
        return FinishReason.LENGTH
    return _ANSWERED_ERRORS.get(error.code or "")


def _encode(answer: Answer, key: str, index: int, cost_usd: float) -> bytes:
    response = PolicyResponse(
        key=key,
        sample_index=index,
        text=answer.text,
        finish_reason=answer.finish_reason,
        prompt_tokens=answer.prompt_tokens or 0,
        completion_tokens=answer.completion_tokens or 0,
        reasoning_tokens=answer.reasoning_tokens,
        cost_usd=cost_usd,
    )
    return json.dumps(dataclasses.asdict(response)).encode()


def _decode(payload: bytes) -> PolicyResponse:
    fields = json.loads(payload)
    return PolicyResponse(**fields | {"finish_reason": FinishReason(fields["finish_reason"])})


def _costs(journal: Journal) -> list[float]:
    return [_decode(payload).cost_usd for payload in journal.payloads()]
