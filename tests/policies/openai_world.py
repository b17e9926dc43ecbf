"""What tests of the OpenAI policies share: a key, a price, and ways to ask."""

import asyncio
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import OpenAIPolicy, Price
from pipeline.journal import Journal
from pipeline.policies.openai import OpenAI
from pipeline.policies.openai_batch import OpenAIBatch
from pipeline.policies.protocol import Policy, PolicyRequest, PolicyResponse
from pipeline.prompts import Prompt
from tests.policies.fault_server import COMPLETION_TOKENS, PROMPT_TOKENS, FaultServer

KEY = "sk-test-1234567890-very-secret"
PRICE = Price(input=1.0, cached_input=0.25, output=10.0, as_of=datetime.date(2025, 4, 16))
CALL_USD = (PROMPT_TOKENS * 1.0 + COMPLETION_TOKENS * 10.0) / 1e6


def config(server: FaultServer | str, **options: Any) -> OpenAIPolicy:
    """Small and quick: an answer has at most 1000 tokens, so a call costs at most $0.0103."""
    return OpenAIPolicy.model_validate(
        {
            "base_url": server if isinstance(server, str) else server.base_url,
            "price": PRICE,
            "max_output_tokens": 1000,
            "max_retries": 3,
            "timeout_s": 5.0,
            "batch_poll_s": 0.02,
        }
        | options
    )


def open_paid(options: OpenAIPolicy, journal: Path) -> OpenAI | OpenAIBatch:
    return (OpenAIBatch if options.batch else OpenAI)(options, Journal(journal))


def ask(policy: Policy, *requests: PolicyRequest) -> dict[tuple[str, int], PolicyResponse]:
    async def gather(requests: Sequence[PolicyRequest]) -> list[PolicyResponse]:
        return [response async for response in policy.complete(requests)]

    return {(told.key, told.sample_index): told for told in asyncio.run(gather(requests))}


def request(key: str, samples: int = 1, user: str | None = None) -> PolicyRequest:
    prompt = Prompt("Write Python.", user or f"Problem {key}")
    return PolicyRequest(key, prompt, tuple(range(samples)))
