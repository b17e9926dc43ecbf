"""How long a call waits for a server that fails."""

import asyncio
import random
from unittest.mock import AsyncMock

import httpx2
import openai
import pytest

from pipeline.policies.retries import with_retries


@pytest.mark.parametrize(("asked", "least"), [("0", 0.0), ("0.01", 0.01), ("7", 7.0)])
def test_the_waits_grow_however_little_patience_the_server_asks_for(
    monkeypatch: pytest.MonkeyPatch, asked: str, least: float
) -> None:
    request = httpx2.Request("POST", "http://h/v1/responses")
    response = httpx2.Response(503, headers={"retry-after": asked}, request=request)
    down = openai.APIStatusError("down", response=response, body=None)
    sleep = AsyncMock()
    monkeypatch.setattr(asyncio, "sleep", sleep)
    random.seed(0)
    for _ in range(20):
        with pytest.raises(openai.APIStatusError):
            asyncio.run(with_retries(AsyncMock(side_effect=down), retries=6))
    waits = [call.args[0] for call in sleep.call_args_list]
    assert len(waits) == 20 * 6
    assert min(waits) >= least
    assert sum(waits[5::6]) / 20 > 8.0, "the sixth wait: 16 s on average, or what is asked for"
    assert sum(waits) / 20 > 20.0, "all of them: 31 s on average"
