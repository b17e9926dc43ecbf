"""What a stage will ask of a paid policy, known before it starts.

So a missing key or a retired model is told once, before any actor starts, and the requests of all
parts go into batches together instead of one batch per part. The parts then find their answers in
the journal.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, cast

from pipeline.config import OpenAIPolicy, PolicyConfig
from pipeline.files import StoreError
from pipeline.plan import Plan
from pipeline.policies.protocol import PaidPolicy, PolicyRequest, PolicyResponse
from pipeline.progress import Observer, Progress
from pipeline.quarantine import Slice
from pipeline.workers import PolicyWorker


def ask_ahead(
    observer: Observer,
    policy: PolicyConfig,
    parts: Sequence[int],
    worker: type[PolicyWorker],
    plan: Plan,
    *arguments: Any,
) -> None:
    """Let a paid policy prepare for all that `parts` will ask of it through `worker`; other
    policies need none of this.

    Raises PolicyError: a missing or bad key, an unknown or retired model, and where the policy
    answers in batches, requests that failed or a budget that is used up.
    """
    if not parts or not isinstance(policy, OpenAIPolicy):
        return
    asker = cast(Any, worker)(plan, *arguments)
    paid = cast(PaidPolicy, asker.policy)
    notes = asker.policy = _Notes(paid.continues_prefill)
    try:
        for part in parts:
            with suppress(_Noted, StoreError):  # a part that cannot be read is told by its worker
                asyncio.run(asker.ask(Slice(part)))
        paid.prepare(
            notes.requests,
            lambda done, total: observer.progress(Progress("batches", done, total, "requests")),
        )
    finally:
        paid.close()


class _Noted(Exception):
    """Raised instead of giving answers."""


class _Notes:
    """A policy that takes notes of what it is asked."""

    def __init__(self, continues_prefill: bool) -> None:
        self.continues_prefill = continues_prefill
        self.requests: list[PolicyRequest] = []

    def complete(self, requests: Sequence[PolicyRequest]) -> AsyncIterator[PolicyResponse]:
        self.requests.extend(requests)
        raise _Noted

    def close(self) -> None:
        """Nothing is open."""
