"""Which API failures pass, and how long to wait for that."""

import email.utils
import json
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiohttp
import openai
import tenacity

from pipeline.policies.rate_limit import reset_s

T = TypeVar("T")

LONGEST_WAIT_S = 900.0
"""A server that asks for more patience than this is taken as failed."""

_TRANSIENT_STATUS = frozenset({408, 409, 429})
_BACKOFF = tenacity.wait_random_exponential(multiplier=1.0, max=60.0)


class MalformedResponse(Exception):
    """A success that makes no sense, or tells of a failure on the server's side."""


class UnknownShape(MalformedResponse):
    """A success, whole, that says neither an answer nor a failure: it is paid for, and who asks
    again likely gets, and pays for, another of its kind."""


GARBLED = (MalformedResponse, json.JSONDecodeError, UnicodeDecodeError, aiohttp.ClientError)
"""What a garbled body raises, here or in the client."""


async def with_retries(
    call: Callable[[], Awaitable[T]],
    retries: int,
    pause: Callable[[float], None] = lambda seconds: None,
) -> T:
    """The result of `call`, tried again up to `retries` times while it fails in passing ways.
    `pause` hears of every wait that the server asks for.

    Raises what the last try raised; of an unknown shape, the second is the last. The wait is random
    and grows exponentially. `Retry-After` is the least, for a server that is down may ask for none
    at all, with jitter on top so that waiting calls do not come back all at once.
    """

    strange = 0

    async def attempt() -> T:
        nonlocal strange
        try:
            return await call()
        except UnknownShape:
            strange += 1
            raise
        except openai.APIStatusError as error:
            if error.status_code == 429 and is_transient(error) and (asked := retry_after_s(error)):
                pause(asked)
            raise

    # Tenacity begins with a first failure: to set it up costs as much as a good call's way through
    # the client, and most calls are good.
    failed: Exception | None = None
    try:
        return await attempt()
    except Exception as error:
        if not is_transient(error):
            raise
        failed = error

    async def attempt_again() -> T:
        nonlocal failed
        if failed is not None:
            first, failed = failed, None
            raise first
        return await attempt()

    attempts = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(lambda error: is_transient(error) and strange < 2),
        stop=tenacity.stop_after_attempt(retries + 1),
        wait=_wait,
        reraise=True,
    )
    return await attempts(attempt_again)


def is_transient(error: BaseException) -> bool:
    """408, 409, 429, 5xx, timeouts, dropped connections and garbled bodies; but not a quota that is
    used up, which OpenAI tells as a 429 and no waiting mends, and not a server that is not who it
    should be."""
    if isinstance(error, openai.APIStatusError):
        if error.code == "insufficient_quota" or (retry_after_s(error) or 0.0) > LONGEST_WAIT_S:
            return False
        return error.status_code in _TRANSIENT_STATUS or error.status_code >= 500
    return isinstance(error, (openai.APIConnectionError, *GARBLED)) and not is_untrusted(error)


def is_outage(error: BaseException) -> bool:
    """Whether who asks again later, after the last retry too, may well get an answer: everything
    transient, but for an answer of an unknown shape, which would only be paid for once more."""
    return is_transient(error) and not isinstance(error, UnknownShape)


def is_untrusted(error: BaseException) -> bool:
    """Whether the server showed a certificate that is not trusted, or is of another server."""
    return isinstance(_at_socket(error), aiohttp.ClientConnectorCertificateError)


def retry_after_s(error: BaseException | None) -> float | None:
    """Seconds that the server asks to wait, by `Retry-After` or else by the rate limit that is used
    up; None where it does not say."""
    if not isinstance(error, openai.APIStatusError):
        return None
    headers = error.response.headers
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            continue
    date = email.utils.parsedate_tz(headers.get("retry-after", ""))
    return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else reset_s(headers)


def may_be_billed(error: BaseException) -> bool:
    """Whether the server may have done the work of a call that failed: its answer was lost on the
    way, or came garbled. An error status is not billed, nor what was never sent.

    What was never sent is told by aiohttp's own error: the client's transport reports a connection
    that was lost after sending as a `ConnectTimeout` too.
    """
    never_sent = isinstance(
        _at_socket(error), aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError
    )
    return not isinstance(error, openai.APIStatusError) and not never_sent


def _at_socket(error: BaseException) -> BaseException | None:
    """aiohttp's error below the client's and its transport's."""
    return error.__cause__ and error.__cause__.__cause__


def _wait(state: tenacity.RetryCallState) -> float:
    asked = retry_after_s(state.outcome.exception()) if state.outcome else None
    backoff = _BACKOFF(state)
    return backoff if asked is None else max(asked, backoff) + random.uniform(0.0, 0.5)
