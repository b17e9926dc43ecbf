"""The client of an OpenAI server: made when it is first needed, checked before it may spend.

The key is read from OPENAI_API_KEY and nowhere else, and only here.
"""

import asyncio
import difflib
import functools
import os
import ssl

import httpx2
import openai

from pipeline.config import OPENAI_URL, OpenAIPolicy
from pipeline.policies import openai_wire
from pipeline.policies.openai_post import Post
from pipeline.policies.protocol import PolicyError, PolicyUnavailable
from pipeline.policies.retries import GARBLED, is_outage, is_untrusted, with_retries

FAILURES = (openai.OpenAIError, *GARBLED)
"""All that a call to the server may raise."""


class Connection:
    """One client for all callers on one event loop, over aiohttp: the SDK's other transport looks
    at each of its idle connections for every request, which with 64 of them cost as much as all
    else of a call."""

    def __init__(self, config: OpenAIPolicy) -> None:
        self._config = config
        self._making = asyncio.Lock()
        self._open: tuple[openai.AsyncOpenAI, Post] | None = None

    async def client(self) -> openai.AsyncOpenAI:
        """Raises PolicyError that names a missing or bad key, or an unknown or retired model, and
        PolicyUnavailable where the server is down: the first time, it is asked for its models,
        which costs nothing."""
        return (await self._opened())[0]

    async def post(self) -> Post:
        """For the paid calls. Raises as `client`."""
        return (await self._opened())[1]

    def told(self, error: Exception) -> str:
        """An API failure in one line, without the key that a server may quote.

        Raise what says it `from None`: the original may quote the key too.
        """
        status = f"{error.status_code} " if isinstance(error, openai.APIStatusError) else ""
        if isinstance(error, openai.APIStatusError) and error.status_code == 401:
            status += "the key in OPENAI_API_KEY was refused: "
        if is_untrusted(error):
            status += "no trusted certificate (SSL_CERT_FILE may name one to trust): "
        # The SDK says of a connection only that it failed, and its transport why.
        cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else None
        return without_key(f"{status}{error}{f' {cause}' if cause else ''}")

    def failure(self, what: str, error: Exception) -> PolicyError:
        """What to raise, `from None`, for an API failure that outlasted its retries: an outage is
        nobody's fault, and who waits may still be answered."""
        if is_outage(error):
            tries = self._config.max_retries + 1
            return PolicyUnavailable(
                f"{what}: {self.told(error)} (the last of {tries} tries; the service may be down)"
            )
        return PolicyError(f"{what}: {self.told(error)}")

    async def close(self) -> None:
        if self._open is not None:
            await self._open[0].close()

    async def _opened(self) -> tuple[openai.AsyncOpenAI, Post]:
        async with self._making:
            if self._open is None:
                self._open = await self._checked()
            return self._open

    async def _checked(self) -> tuple[openai.AsyncOpenAI, Post]:
        config = self._config
        api_key = _key()
        if not (api_key.isascii() and api_key.isprintable()):
            raise PolicyError("OPENAI_API_KEY holds a character that no key has: copy it anew")
        if not api_key and config.base_url is None:
            raise PolicyError("OPENAI_API_KEY is not set: export it before asking an OpenAI model")
        http = openai.DefaultAioHttpClient(verify=_certificates())
        client = openai.AsyncOpenAI(
            api_key=api_key or "none",
            base_url=config.base_url or OPENAI_URL,  # with None it takes OPENAI_BASE_URL
            timeout=config.timeout_s,
            max_retries=0,  # ours know the journal, the budget and the rate limits
            http_client=http,
        )
        try:
            models = await with_retries(lambda: _models(client), config.max_retries)
        except FAILURES as error:
            await client.close()
            raise self.failure(f"preflight for {config.model!r}", error) from None
        if config.model not in models:
            await client.close()
            similar = difflib.get_close_matches(config.model, models, n=3, cutoff=0.3)
            raise PolicyError(
                f"policy.model {config.model!r} is not among the models that this key may use: "
                f"unknown, or retired; similar ones are {', '.join(similar) or 'not there'}"
            )
        return client, Post(client, http, openai_wire.PATHS[config.api], config.timeout_s)


def _key() -> str:
    """Without the line end that a file of secrets often has."""
    return os.environ.get("OPENAI_API_KEY", "").strip()


def without_key(text: str) -> str:
    api_key = _key()
    return text.replace(api_key, "[key]") if api_key else text


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Read once, not once for every policy: reading takes longer than the rest of an opening."""
    return httpx2.create_ssl_context()


async def _models(client: openai.AsyncOpenAI) -> list[str]:
    return [model.id async for model in client.models.list()]
