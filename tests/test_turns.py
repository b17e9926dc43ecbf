"""Many share a turn or one has it alone, whatever becomes of those who wait."""

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

from pipeline.turns import Turns


class Guest:
    """Takes a turn, says when it has it, and keeps it until told to leave."""

    def __init__(self, turn: AbstractAsyncContextManager[None]) -> None:
        self.inside = False
        self._leave = asyncio.Event()
        self._task = asyncio.create_task(self._visit(turn))

    async def leave(self) -> None:
        self._leave.set()
        await self._task

    async def cancel(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _visit(self, turn: AbstractAsyncContextManager[None]) -> None:
        async with turn:
            self.inside = True
            try:
                await self._leave.wait()
            finally:
                self.inside = False


async def settled(*guests: Guest) -> list[bool]:
    """Who is inside once nobody can move any more."""
    for _ in range(10):
        await asyncio.sleep(0)
    return [guest.inside for guest in guests]


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 5))


def test_those_who_share_are_inside_together() -> None:
    async def story() -> None:
        turns = Turns()
        assert await settled(Guest(turns.shared()), Guest(turns.shared())) == [True, True]

    run(story())


def test_who_is_alone_has_nobody_beside_it() -> None:
    async def story() -> None:
        turns = Turns()
        alone, other, sharer = Guest(turns.alone()), Guest(turns.alone()), Guest(turns.shared())
        assert await settled(alone, other, sharer) == [True, False, False]
        await alone.leave()
        assert await settled(other, sharer) == [True, False]
        await other.leave()
        assert await settled(sharer) == [True]

    run(story())


def test_who_waits_to_be_alone_goes_before_those_who_come_later() -> None:
    async def story() -> None:
        turns = Turns()
        before = Guest(turns.shared())
        await settled()
        alone, after = Guest(turns.alone()), Guest(turns.shared())
        assert await settled(before, alone, after) == [True, False, False]
        await before.leave()
        assert await settled(alone, after) == [True, False]
        await alone.leave()
        assert await settled(after) == [True]

    run(story())


def test_those_behind_a_waiter_that_is_cancelled_go_on_at_once() -> None:
    async def story() -> None:
        turns = Turns()
        before = Guest(turns.shared())
        await settled()
        alone, after = Guest(turns.alone()), Guest(turns.shared())
        await settled()
        await alone.cancel()
        assert await settled(before, after) == [True, True]

    run(story())


def test_a_turn_ends_with_whoever_is_cancelled_in_it() -> None:
    async def story() -> None:
        turns = Turns()
        for taken in (turns.alone(), turns.shared()):
            inside = Guest(taken)
            await settled()
            behind = Guest(turns.alone())
            assert await settled(inside, behind) == [True, False]
            await inside.cancel()
            assert await settled(behind) == [True]
            await behind.leave()

    run(story())
