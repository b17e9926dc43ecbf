"""Requests and tokens per minute: calls wait for their turn here instead of being refused there.

Two token buckets, each of one minute's allowance, refilled continuously. What a call will use is
known only when it is over, so it takes a guess out of the bucket and settles with what the server
reports; a bucket can be in debt. Where no limit is configured, the limits that the server names in
`x-ratelimit-*` headers are kept; what it says is left bounds the bucket in any case, since other
processes draw on the same account.
"""

import asyncio
import re
import time
from collections.abc import Mapping
from contextlib import suppress

_MINUTE_S = 60.0
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Bucket:
    """An allowance of `per_minute` units (None: unlimited, until told). Times are seconds on any
    one clock."""

    def __init__(self, per_minute: float | None, now: float) -> None:
        self.per_minute = per_minute
        self._level = per_minute or 0.0
        self._at = now

    def wait_s(self, amount: float, now: float) -> float:
        """Until `amount` is there. More than a minute's allowance is never asked for at once: the
        rest becomes debt."""
        if self.per_minute is None:
            return 0.0
        self._refill(now)
        lacking = min(amount, self.per_minute) - self._level
        return max(0.0, lacking * _MINUTE_S / self.per_minute)

    def take(self, amount: float, now: float) -> None:
        """A negative amount gives back."""
        if self.per_minute is not None:
            self._refill(now)
            self._level = min(self.per_minute, self._level - amount)

    def told(self, limit: float | None, remaining: float | None, sent: float, now: float) -> None:
        """The server said, when a call was `sent`, what its limit is and what was left of it."""
        if self.per_minute is None and limit:
            self.per_minute, self._level, self._at = limit, limit, now
        if self.per_minute is None or remaining is None:
            return
        self._refill(now)
        refilled_since = (now - sent) * self.per_minute / _MINUTE_S
        self._level = min(self._level, remaining + refilled_since)

    def _refill(self, now: float) -> None:
        assert self.per_minute is not None
        refilled = (now - self._at) * self.per_minute / _MINUTE_S
        self._level = min(self.per_minute, self._level + refilled)
        self._at = now


class RateLimit:
    """Lets calls go, in the order in which they ask. Belongs to one event loop."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        now = time.monotonic()
        self._requests = Bucket(requests_per_minute, now)
        self._tokens = Bucket(tokens_per_minute, now)
        self._not_before = now
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    async def admit(self, tokens: float) -> None:
        """Wait until a call that may use so many tokens can be sent; `settle` follows it."""
        async with self._turn:
            while (wait := self._wait_s(tokens)) > 0:
                self._changed.clear()
                with suppress(TimeoutError):  # a call that was cheaper than guessed ends it early
                    await asyncio.wait_for(self._changed.wait(), wait)
            now = time.monotonic()
            self._requests.take(1, now)
            self._tokens.take(tokens, now)

    def settle(self, guessed: float, used: float) -> None:
        """A call is over; it used so many tokens."""
        self._tokens.take(used - guessed, time.monotonic())
        self._changed.set()

    def told(self, headers: Mapping[str, str], sent: float) -> None:
        """Heed the `x-ratelimit-*` headers of an answer to a call sent at `sent` (monotonic)."""
        now = time.monotonic()
        for bucket, what in ((self._requests, "requests"), (self._tokens, "tokens")):
            limit = _number(headers.get(f"x-ratelimit-limit-{what}"))
            bucket.told(limit, _number(headers.get(f"x-ratelimit-remaining-{what}")), sent, now)

    def pause(self, seconds: float) -> None:
        """The server asked one call to wait: no other goes before that."""
        self._not_before = max(self._not_before, time.monotonic() + seconds)

    def _wait_s(self, tokens: float) -> float:
        now = time.monotonic()
        return max(
            self._not_before - now,
            self._requests.wait_s(1, now),
            self._tokens.wait_s(tokens, now),
        )


def reset_s(headers: Mapping[str, str]) -> float | None:
    """Seconds until a limit that is used up is there again (`6m0s`, `20ms`); None: none is."""
    resets = [
        _seconds(headers.get(f"x-ratelimit-reset-{what}", ""))
        for what in ("requests", "tokens")
        if _number(headers.get(f"x-ratelimit-remaining-{what}")) == 0
    ]
    return max((reset for reset in resets if reset is not None), default=None)


def _seconds(duration: str) -> float | None:
    parts = _DURATION.findall(duration)
    return sum(float(number) * _UNIT_S[unit] for number, unit in parts) if parts else None


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
