"""A vLLM engine that is started again when it dies, and whose requests are then asked again.

An engine dies of causes that pass (a GPU that fell off, memory that another process took), of
causes that stay (a prompt that crashes it every time), and of none of the requests' doing (a GPU
that fails at whatever it is asked). Nothing tells them apart but trying:

1. Requests that were in flight when the engine died are asked again, all at once.
2. A request that was in flight at two deaths is asked alone: nothing else is in flight then.
3. Where the engine dies of it alone, the next engine is asked the canary, a short prompt that every
   engine can answer. The death counts against the request only if that is answered.
4. At the second that counts the request is to blame: it fails with UnanswerableRequest, at once
   when it is asked again, and all others go on.

An engine that dies `MAX_FRUITLESS` times in a row without an answer between (a canary's is none) is
given up with PolicyUnavailable, which blames no request, and so is one that does not start again.
So every request ends, as an answer or as an error. Whoever asks again after `REST_S` has one more
engine started: what was to blame may have passed.
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
DEATHS_ALONE = 2
"""Deaths of a request alone, each followed by a canary's answer, that prove it deadly. After one, a
GPU that fails at every second request would have every fourth blamed."""
MAX_FRUITLESS = 8
"""More than the deaths that find one deadly request, so that of two at once both are found."""

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
        canary: Callable[[], "tuple[TokensInput, SamplingParams]"],
        rest_s: float = REST_S,
    ) -> None:
        """`canary` is asked for when it is needed."""
        self._start: Callable[[], Awaitable[Any]] = start
        self._end: Callable[[Any], Awaitable[None]] = end
        self._canary = canary
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
        together = alone = 0
        while tokens not in self._deadly:
            suspect = together >= DEATHS_TOGETHER
            async with self._turns.alone() if suspect else self._turns.shared():
                answer = await self._tried(prompt, params, name)
                if answer is not None:
                    self._fruitless = 0
                    return answer
                if not suspect:
                    together += 1
                elif await self.answers_canary(name):
                    alone += 1
                    if alone >= DEATHS_ALONE:
                        self._deadly.add(tokens)
        raise UnanswerableRequest(
            f"request {name}: the vLLM engine dies of its prompt, alone and every time, and "
            "answers a canary in between; the other requests went on"
        )

    async def answers_canary(self, name: str) -> bool:
        """Whether the engine, started again where it died of request `name`, lives and works.
        Raises PolicyUnavailable where it is given up."""
        prompt, params = self._canary()
        return await self._tried(prompt, params, f"{name}-canary") is not None

    async def _tried(
        self, prompt: "TokensInput", params: "SamplingParams", name: str
    ) -> "CompletionOutput | None":
        """The answer; None where the engine died meanwhile."""
        engine = await self._living(name)
        try:
            return await _only(engine, prompt, params, name)
        except Exception:
            # Whatever a dying engine raised; of a living one it is about the request.
            if not engine.errored:
                raise
            return None

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
