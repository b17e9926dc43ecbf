"""A vLLM engine that is started again when it dies, and whose requests are then asked again.

An engine dies of causes that pass (a GPU that fell off, memory that another process took) and of
causes that stay (a prompt that crashes it every time). Nothing tells them apart but trying:

1. Requests that were in flight when the engine died are asked again, all at once.
2. A request that was in flight at two deaths is asked alone: nothing else is in flight then.
3. One that the engine dies of alone is to blame: it fails with UnanswerableRequest, at once
   when it is asked again, and all others go on.

An engine that dies `MAX_FRUITLESS` times in a row without an answer between is given up, and so is
one that does not start again. So every request ends, as an answer or as an error. Whoever asks
again after `REST_S` has one more engine started: what was to blame may have passed.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pipeline.policies.protocol import PolicyError, PolicyUnavailable, UnanswerableRequest
from pipeline.turns import Turns

if TYPE_CHECKING:
    from vllm.inputs.engine import TokensInput
    from vllm.outputs import CompletionOutput
    from vllm.sampling_params import SamplingParams

logger = logging.getLogger(__name__)

DEATHS_TOGETHER = 2
"""Deaths that a request may share with others; then it is asked alone."""
MAX_FRUITLESS = 6
"""More than the deaths that find one deadly request, so that two in a row are found as well."""

REST_S = 30.0


class Engine(Protocol):
    """What is used of `vllm.v1.engine.async_llm.AsyncLLM`."""

    @property
    def errored(self) -> bool: ...

    def generate(
        self, prompt: Any, sampling_params: Any, request_id: str
    ) -> AsyncGenerator[Any, None]: ...


E = TypeVar("E", bound=Engine)


class RestartingEngine:
    """An engine for as long as its owner lives. Belongs to one event loop."""

    def __init__(
        self,
        start: Callable[[], Awaitable[E]],
        end: Callable[[E], Awaitable[None]],
        rest_s: float = REST_S,
    ) -> None:
        self._start: Callable[[], Awaitable[Any]] = start
        self._end: Callable[[Any], Awaitable[None]] = end
        self._engine: Any = None
        self._fruitless = 0
        self._mending = asyncio.Lock()
        self._turns = Turns()
        self._deadly: set[tuple[int, ...]] = set()
        self._closed = False
        self._given_up: str | None = None
        self._given_up_at = 0.0
        self._rest_s = rest_s

    async def open(self) -> Any:
        """Start the first engine; whatever its start raises is raised here."""
        self._engine = await self._start()
        return self._engine

    async def answer(
        self, prompt: "TokensInput", params: "SamplingParams", name: str
    ) -> "CompletionOutput":
        """The one answer to a request that asks for one.

        Raises UnanswerableRequest where the engine dies of it, PolicyUnavailable where the engine
        is given up, both naming it, and whatever else vLLM says of it.
        """
        await self._rested()
        tokens = tuple(prompt["prompt_token_ids"])
        deaths = 0
        while tokens not in self._deadly:
            alone = deaths >= DEATHS_TOGETHER
            async with self._turns.alone() if alone else self._turns.shared():
                engine = await self._living(name)
                try:
                    answer = await _only(engine, prompt, params, name)
                except Exception:
                    # Whatever a dying engine raised; of a living one it is about the request.
                    if not engine.errored:
                        raise
                else:
                    self._fruitless = 0
                    return answer
            deaths += 1
            if alone:
                self._deadly.add(tokens)
        raise UnanswerableRequest(
            f"request {name}: the vLLM engine dies of its prompt, alone and every time; the other "
            "requests went on"
        )

    async def close(self) -> None:
        """End the engine; requests in flight raise PolicyError."""
        self._closed = True
        self._given_up = "the vLLM policy was closed"
        async with self._mending:
            if self._engine is not None:
                await self._end(self._engine)

    async def _living(self, name: str) -> Any:
        """The engine; where it is dead, the one that follows it, started once for all who ask."""
        if self._given_up is None and self._engine.errored:
            async with self._mending:
                if self._given_up is None and self._engine.errored:
                    await self._replace()
        if self._given_up is not None:
            gone = PolicyError if self._closed else PolicyUnavailable
            raise gone(f"request {name}: {self._given_up}")
        return self._engine

    async def _rested(self) -> None:
        """A request that comes when the engine was given up a while ago starts another."""
        if self._given_up is None:
            return
        async with self._mending:
            rested = time.monotonic() - self._given_up_at >= self._rest_s
            if self._given_up is not None and not self._closed and rested:
                self._given_up, self._fruitless = None, 0
                await self._replace()

    async def _replace(self) -> None:
        self._fruitless += 1
        if self._fruitless >= MAX_FRUITLESS:
            self._give_up(
                f"the vLLM engine died {self._fruitless} times in a row without an answer; the "
                "actor's log has its last words"
            )
            return
        logger.warning("the vLLM engine died; it is started again and asked again")
        try:
            await self._end(self._engine)
            self._engine = await self._start()
        except Exception as error:  # noqa: BLE001 - vLLM raises many kinds on its way up
            self._give_up(f"the vLLM engine died and did not start again: {error}")

    def _give_up(self, why: str) -> None:
        self._given_up, self._given_up_at = why, time.monotonic()


async def _only(
    engine: Engine, prompt: "TokensInput", params: "SamplingParams", name: str
) -> "CompletionOutput":
    async for output in engine.generate(prompt, params, name):
        if output.finished:
            return output.outputs[0]
    raise PolicyError(f"vLLM dropped request {name}")
