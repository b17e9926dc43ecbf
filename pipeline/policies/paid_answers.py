"""Paid answers in the journal: what identifies one, and how it is kept."""

import asyncio
import dataclasses
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.config import OpenAIPolicy
from pipeline.files import StoreError, write_atomically
from pipeline.journal import Journal
from pipeline.object_journal import ObjectJournal
from pipeline.policies import openai_wire
from pipeline.policies.openai_wire import Answer, Usage
from pipeline.policies.protocol import PolicyError, PolicyRequest, PolicyResponse
from pipeline.records import FinishReason, content_hash

Slot = tuple[str, int]
"""Hash of a request's body and server, and the sample's index: where its answer is kept."""

_FIELDS = tuple(field.name for field in dataclasses.fields(PolicyResponse))
_REFRESH_S = 1.0  # between two looks at what other processes have recorded


@dataclass(frozen=True, slots=True)
class Call:
    """One sample of a request, and what is sent for it."""

    request: PolicyRequest
    body: bytes  # JSON
    slot: Slot
    prompt_tokens: float  # a guess
    worst_usd: float  # the most that it can cost


def calls_of(config: OpenAIPolicy, requests: Iterable[PolicyRequest]) -> Iterator[Call]:
    """The calls that answer the requests; two of equal prompts share their slots."""
    for request in requests:
        body = json.dumps(openai_wire.body(config, request.prompt), sort_keys=True)
        told = content_hash(config.base_url, body)
        sent = body.encode()
        guess = openai_wire.likely_prompt_tokens(request.prompt)
        worst_usd = openai_wire.worst_cost_usd(config, request.prompt)
        for index in request.sample_indices:
            yield Call(request, sent, (told, index), guess, worst_usd)


class PaidAnswers:
    """The journal's answers of one policy."""

    def __init__(self, journal: Journal | ObjectJournal) -> None:
        self._journal = journal
        self._refreshed = time.monotonic()
        self._gathered: list[tuple[str, int, bytes]] = []
        self._write: asyncio.Task[None] | None = None

    def get(self, slot: Slot, key: str) -> PolicyResponse | None:
        """The recorded answer, under the asker's name of the request."""
        payload = self._journal.get(*slot)
        if payload is None:
            return None
        fields = json.loads(payload) | {"key": key}
        return PolicyResponse(**fields | {"finish_reason": FinishReason(fields["finish_reason"])})

    def __contains__(self, slot: Slot) -> bool:
        return slot in self._journal

    async def refresh(self, *, at_once: bool = False) -> None:
        """See what other processes have paid for meanwhile; not at once: if it was a while ago."""
        if at_once or time.monotonic() - self._refreshed > _REFRESH_S:
            self._refreshed = time.monotonic()
            await asyncio.to_thread(self._journal.refresh)

    async def put(self, answers: Iterable[tuple[Slot, PolicyResponse]]) -> None:
        """Durable when it returns; answers that arrive together are written together. Raises
        PolicyError."""
        self._gathered += [(*slot, _payload(answer)) for slot, answer in answers]
        if self._write is None:
            self._write = asyncio.create_task(self._write_gathered())
        await asyncio.shield(self._write)

    async def keep_strange(self, slot: Slot, body: bytes) -> str:
        """Keep a paid answer that cannot be read, for people; returns where, in words."""
        path = f"{self._journal.directory}/strange/{slot[0]}-{slot[1]}.json"
        try:
            await asyncio.to_thread(write_atomically, path, body)
        except StoreError as error:
            return f"and it could not be kept: {error}"
        return f"it is kept in {path}"

    def close(self) -> None:
        self._journal.close()

    async def _write_gathered(self) -> None:
        """On the loop's own thread: another would have to win the interpreter's lock from a busy
        one twice, at up to 5 ms each (sys.getswitchinterval), for a write that is shorter on a
        local disk. On a slow disk, more arrives meanwhile, and is written together."""
        records, self._gathered, self._write = self._gathered, [], None
        try:
            if isinstance(self._journal, ObjectJournal):  # a request, many times as long
                await asyncio.to_thread(self._journal.put_all, records)
            else:
                self._journal.put_all(records)
        except (OSError, StoreError) as error:
            raise PolicyError(f"a paid answer could not be recorded: {error}") from error


def _payload(answer: PolicyResponse) -> bytes:
    return json.dumps({name: getattr(answer, name) for name in _FIELDS}).encode()


def to_response(
    config: OpenAIPolicy, answer: Answer, key: str, index: int, worst_usd: float
) -> PolicyResponse:
    """The answer as the protocol's response; it counts as the worst case where the server did not
    say what it used."""
    usage = answer.usage or Usage()
    return PolicyResponse(
        key=key,
        sample_index=index,
        text=answer.text,
        finish_reason=answer.finish_reason,
        prompt_tokens=usage.prompt,
        completion_tokens=usage.completion,
        reasoning_tokens=usage.reasoning,
        cached_tokens=usage.cached,
        cost_usd=worst_usd if answer.usage is None else openai_wire.cost_usd(config, usage),
    )
