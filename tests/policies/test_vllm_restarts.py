"""What is asked again, and how, when an engine dies: against engines that die by a script.

The real engine's death is in test_vllm.py: each start of one takes as long as all of these.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.policies.protocol import PolicyUnavailable, UnanswerableRequest
from pipeline.policies.vllm_restarts import MAX_FRUITLESS, RestartingEngine

DEADLY = [6, 6, 6]
CANARY = [0]


class Mortal:
    """Dies when a prompt is deadly, or at its `dies_at`-th request; all in flight then fail."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.errored = False
        self.asked: list[list[int]] = []
        self.in_flight = 0
        self.most_in_flight_with_deadly = 0
        self._dies_at = dies_at

    def is_deadly(self, tokens: list[int]) -> bool:
        return tokens == DEADLY

    async def generate(self, prompt: Any, _params: Any, _name: str) -> AsyncIterator[Any]:
        tokens = list(prompt["prompt_token_ids"])
        self.asked.append(tokens)
        serial = len(self.asked)
        self.in_flight += 1
        await asyncio.sleep(0.001)
        if self.is_deadly(tokens):
            self.most_in_flight_with_deadly = self.in_flight
        if self.is_deadly(tokens) or serial == self._dies_at:
            self.errored = True
        await asyncio.sleep(0.001)
        self.in_flight -= 1
        if self.errored:
            raise RuntimeError("the engine is dead")
        yield SimpleNamespace(finished=True, outputs=[tokens])


class Graveyard:
    """Starts the given engines one after the other, then immortal ones."""

    def __init__(self, *engines: Mortal) -> None:
        self.lives: list[Mortal] = []
        self._engines = list(engines)

    async def start(self) -> Mortal:
        await asyncio.sleep(0)
        self.lives.append(self._engines.pop(0) if self._engines else self.born())
        return self.lives[-1]

    def born(self) -> Mortal:
        return Mortal()

    async def end(self, engine: Mortal) -> None:
        engine.errored = True


def run(
    graveyard: Graveyard,
    story: Callable[[RestartingEngine], Awaitable[Any]],
    rest_s: float = 60.0,
) -> Any:
    async def told() -> Any:
        canary: Any = {"prompt_token_ids": CANARY}, None
        engine = RestartingEngine(graveyard.start, graveyard.end, lambda: canary, rest_s)
        await engine.open()
        return await asyncio.wait_for(story(engine), timeout=5.0)

    return asyncio.run(told())


async def ask(engine: RestartingEngine, tokens: list[int], name: str = "r") -> Any:
    return await engine.answer({"prompt_token_ids": tokens}, None, name)  # type: ignore[arg-type]


async def ask_all(engine: RestartingEngine, *prompts: list[int]) -> list[Any]:
    requests = [ask(engine, tokens, f"r{i}") for i, tokens in enumerate(prompts)]
    return await asyncio.gather(*requests, return_exceptions=True)


def test_one_death_costs_one_start_and_no_answer() -> None:
    graveyard = Graveyard(Mortal(dies_at=3))
    answers = run(graveyard, lambda engine: ask_all(engine, *([i] for i in range(10))))
    assert answers == [[i] for i in range(10)]
    assert len(graveyard.lives) == 2


def test_a_deadly_request_is_found_by_asking_it_alone_and_the_others_are_answered() -> None:
    graveyard = Graveyard()
    answers = run(graveyard, lambda engine: ask_all(engine, [1], [2], DEADLY, [3]))
    assert [answers[i] for i in (0, 1, 3)] == [[1], [2], [3]]
    assert isinstance(answers[2], UnanswerableRequest)
    assert "r2" in str(answers[2])
    deaths = [life for life in graveyard.lives if DEADLY in life.asked]
    assert [life.most_in_flight_with_deadly for life in deaths] == [4, 4, 1, 1]
    assert [CANARY in life.asked for life in graveyard.lives] == [False, False, False, True, True]


def test_a_request_known_as_deadly_is_not_asked_again() -> None:
    graveyard = Graveyard()

    async def twice(engine: RestartingEngine) -> tuple[list[Any], int, list[Any]]:
        first = await ask_all(engine, DEADLY)
        lives = len(graveyard.lives)
        return first, lives, await ask_all(engine, DEADLY, [1])

    (_, lives, (error, answer)) = run(graveyard, twice)
    assert isinstance(error, UnanswerableRequest)
    assert answer == [1]
    assert len(graveyard.lives) == lives


def test_of_two_deadly_requests_at_once_both_are_found() -> None:
    class TwiceMortal(Mortal):
        def is_deadly(self, tokens: list[int]) -> bool:
            return tokens in (DEADLY, [7])

    class Graves(Graveyard):
        def born(self) -> Mortal:
            return TwiceMortal()

    answers = run(Graves(), lambda engine: ask_all(engine, DEADLY, [7], [1]))
    assert [type(answer) for answer in answers] == [UnanswerableRequest, UnanswerableRequest, list]


@pytest.mark.parametrize("requests", [1, 20])
def test_an_engine_that_dies_of_whatever_it_is_asked_is_given_up_and_blames_no_request(
    requests: int,
) -> None:
    graveyard = Graveyard(*(Mortal(dies_at=1) for _ in range(100)))
    answers = run(graveyard, lambda engine: ask_all(engine, *([i] for i in range(1, requests + 1))))
    assert {type(answer) for answer in answers} == {PolicyUnavailable}
    assert all("in a row without an answer" in str(answer) for answer in answers)
    assert len(graveyard.lives) <= MAX_FRUITLESS


def test_an_engine_that_dies_of_all_but_the_canary_is_given_up_and_its_requests_end() -> None:
    class Choosy(Mortal):
        def is_deadly(self, tokens: list[int]) -> bool:
            return tokens != CANARY

    class Graves(Graveyard):
        def born(self) -> Mortal:
            return Choosy()

    graveyard = Graves()
    answers = run(graveyard, lambda engine: ask_all(engine, *([i] for i in range(1, 21))))
    kinds = [type(answer) for answer in answers]
    assert kinds.count(PolicyUnavailable) >= 17
    assert len(graveyard.lives) <= MAX_FRUITLESS


def test_a_request_that_was_alone_at_a_death_by_chance_is_answered() -> None:
    """Two deaths with others, one alone; then the engine, asked the canary, is well."""
    graveyard = Graveyard(*(Mortal(dies_at=1) for _ in range(3)))
    answers = run(graveyard, lambda engine: ask_all(engine, [1], [2]))
    assert answers == [[1], [2]]


def test_a_death_that_the_canary_shares_is_not_held_against_the_request() -> None:
    """Every death of a request alone is followed by one of the canary alone."""
    graveyard = Graveyard(*(Mortal(dies_at=1) for _ in range(MAX_FRUITLESS - 1)))
    assert run(graveyard, lambda engine: ask_all(engine, [1])) == [[1]]


def test_who_asks_after_a_rest_has_another_engine_started() -> None:
    graveyard = Graveyard(*(Mortal(dies_at=1) for _ in range(MAX_FRUITLESS)))

    async def again(engine: RestartingEngine) -> tuple[list[Any], list[Any]]:
        return await ask_all(engine, *([i] for i in range(20))), await ask_all(engine, [98], [99])

    failed, answered = run(graveyard, again, rest_s=0.0)
    assert any(isinstance(answer, PolicyUnavailable) for answer in failed)
    assert answered == [[98], [99]]


def test_an_engine_that_does_not_start_again_is_tried_once() -> None:
    class Barren(Graveyard):
        starts = 0

        async def start(self) -> Mortal:
            self.starts += 1
            if self.lives:
                raise RuntimeError("no memory left")
            return await super().start()

    graveyard = Barren(Mortal(dies_at=1))
    answers = run(graveyard, lambda engine: ask_all(engine, *([i] for i in range(20))))
    assert {str(answer).partition(": ")[2] for answer in answers} == {
        "the vLLM engine died and did not start again: no memory left"
    }
    assert graveyard.starts == 2


def test_what_a_living_engine_says_of_a_request_is_the_callers_to_judge() -> None:
    class Picky(Mortal):
        async def generate(self, prompt: Any, _params: Any, _name: str) -> AsyncIterator[Any]:
            raise ValueError("too long")
            yield

    graveyard = Graveyard(Picky())
    (error,) = run(graveyard, lambda engine: ask_all(engine, [1]))
    assert isinstance(error, ValueError)
    assert len(graveyard.lives) == 1


@pytest.mark.parametrize("suspects", [1, 3])
def test_a_caller_that_gives_up_while_it_waits_to_be_alone_holds_nobody_up(suspects: int) -> None:
    """Two deaths with all in flight, so that every request waits for a turn alone."""
    graveyard = Graveyard(Mortal(dies_at=1), Mortal(dies_at=1))

    async def story(engine: RestartingEngine) -> list[Any]:
        asking = [asyncio.create_task(ask(engine, [i])) for i in range(suspects + 1)]
        while len(graveyard.lives) < 3:
            await asyncio.sleep(0)
        for task in asking[1:]:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        return await ask_all(engine, [7])

    assert run(graveyard, story) == [[7]]
