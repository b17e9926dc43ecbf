"""Many answers in flight at once, each handed on as soon as it is there."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")


async def as_they_finish(futures: Iterable["asyncio.Future[T]"]) -> AsyncIterator[T]:
    """The results in the order in which they come.

    The first failure is raised at once. The rest is then cancelled and waited for, as it is when
    the caller stops early: nothing is left running behind its back.
    """
    pending = list(futures)
    try:
        for finished in asyncio.as_completed(pending):
            yield await finished
    finally:
        for future in pending:
            future.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
