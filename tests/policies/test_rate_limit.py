"""Token buckets by hand-computed tables, and the limiter on a real event loop."""

import asyncio
import time

import pytest

from pipeline.config import OpenAIPolicy
from pipeline.policies.rate_limit import Bucket, RateLimit, reset_s


def test_a_full_minute_may_go_at_once_and_then_what_is_refilled() -> None:
    bucket = Bucket(60.0, now=0.0)
    for _ in range(60):
        assert bucket.wait_s(1, now=0.0) == 0.0
        bucket.take(1, now=0.0)
    assert bucket.wait_s(1, now=0.0) == pytest.approx(1.0)
    assert bucket.wait_s(3, now=0.5) == pytest.approx(2.5)
    assert bucket.wait_s(1, now=1.0) == 0.0


def test_idle_time_saves_up_no_more_than_a_minute() -> None:
    bucket = Bucket(60.0, now=0.0)
    bucket.take(60, now=1000.0)
    assert bucket.wait_s(1, now=1000.0) == pytest.approx(1.0)


def test_more_than_a_minutes_allowance_goes_when_the_bucket_is_full_and_leaves_debt() -> None:
    bucket = Bucket(600.0, now=0.0)
    assert bucket.wait_s(1000, now=0.0) == 0.0
    bucket.take(1000, now=0.0)
    assert bucket.wait_s(100, now=0.0) == pytest.approx(50.0)


def test_what_was_guessed_too_high_is_given_back() -> None:
    bucket = Bucket(600.0, now=0.0)
    bucket.take(600, now=0.0)
    bucket.take(100 - 600, now=0.0)
    assert bucket.wait_s(500, now=0.0) == 0.0
    bucket.take(-10_000, now=0.0)
    assert bucket.wait_s(601, now=0.0) == 0.0
    bucket.take(600, now=0.0)
    assert bucket.wait_s(1, now=0.0) == pytest.approx(0.1)


def test_without_a_limit_nobody_waits_until_the_server_names_one() -> None:
    bucket = Bucket(None, now=0.0)
    bucket.take(10**9, now=0.0)
    assert bucket.wait_s(10**9, now=0.0) == 0.0
    bucket.told(limit=60, remaining=2, sent=0.0, now=0.0)
    bucket.take(2, now=0.0)
    assert bucket.wait_s(1, now=0.0) == pytest.approx(1.0)


def test_a_configured_limit_wins_over_the_servers_but_what_is_left_there_counts() -> None:
    bucket = Bucket(60.0, now=0.0)
    bucket.told(limit=6000, remaining=6000, sent=0.0, now=0.0)
    assert bucket.per_minute == 60.0
    bucket.told(limit=6000, remaining=0, sent=0.0, now=0.0)
    assert bucket.wait_s(1, now=0.0) == pytest.approx(1.0)


def test_what_a_long_call_heard_at_its_start_has_been_refilled_since() -> None:
    bucket = Bucket(60.0, now=0.0)
    bucket.told(limit=60, remaining=0, sent=0.0, now=30.0)
    assert bucket.wait_s(30, now=30.0) == 0.0
    assert bucket.wait_s(31, now=30.0) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m1.5s"}, 361.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-tokens": "7", "x-ratelimit-reset-tokens": "20ms"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "soon"}, None),
        ({}, None),
    ],
)
def test_a_used_up_limit_says_when_it_is_there_again(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert reset_s(headers) == (None if seconds is None else pytest.approx(seconds))


async def _admissions(limit: RateLimit, calls: int, tokens: float = 1.0) -> list[float]:
    started = time.monotonic()
    admitted: list[float] = []

    async def call() -> None:
        await limit.admit(tokens)
        admitted.append(time.monotonic() - started)

    await asyncio.gather(*(call() for _ in range(calls)))
    return admitted


def test_calls_beyond_the_limit_wait_for_their_turn() -> None:
    async def run() -> list[float]:
        return await _admissions(RateLimit(240, None), 242)

    admitted = asyncio.run(run())
    assert admitted[239] < admitted[240]
    assert admitted[241] >= 0.45, "a 240th of a minute is 0.25 s"


def test_a_pause_that_the_server_asked_for_holds_all_calls() -> None:
    async def run() -> list[float]:
        limit = RateLimit(None, None)
        limit.pause(0.3)
        return await _admissions(limit, 3)

    assert min(asyncio.run(run())) >= 0.29


def test_a_call_that_was_cheaper_than_guessed_lets_the_next_one_go_at_once() -> None:
    async def run() -> float:
        limit = RateLimit(None, 100)
        await limit.admit(100)  # the next hundred tokens would take a minute
        waiting = asyncio.create_task(limit.admit(50))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        started = time.monotonic()
        limit.settle(100, 10)
        await waiting
        return time.monotonic() - started

    assert asyncio.run(run()) < 5.0


def test_actors_share_the_configured_limits() -> None:
    share = OpenAIPolicy(requests_per_minute=500, tokens_per_minute=30_001).shared_by(4)
    assert (share.requests_per_minute, share.tokens_per_minute) == (125, 7500)
    assert OpenAIPolicy(requests_per_minute=2).shared_by(4).requests_per_minute == 1
    assert OpenAIPolicy().shared_by(4) == OpenAIPolicy()
