"""Turns at something that many may use at once, and one may want for itself.

A prompt that kills an engine, or a problem that kills a worker, is known for certain only when
nothing else was there to blame: so all the others share, and a suspect goes alone.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Any number share, or one is alone; whoever waits to be alone goes before those who come
    later. Belongs to one event loop. Who is cancelled while waiting leaves the queue, and those
    behind go on."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._sharing = 0
        self._waiting_alone = 0
        self._alone = False

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        while self._alone or self._waiting_alone:
            await self._changed.wait()
        self._sharing += 1
        try:
            yield
        finally:
            self._sharing -= 1
            self._tell()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        self._waiting_alone += 1
        try:
            while self._alone or self._sharing:
                await self._changed.wait()
            self._alone = True
        finally:  # it has its turn, or was cancelled: both change what the others wait for
            self._waiting_alone -= 1
            self._tell()
        try:
            yield
        finally:
            self._alone = False
            self._tell()

    def _tell(self) -> None:
        """Wake all who wait; a condition would need a lock, which a cancelled task cannot await."""
        self._changed.set()
        self._changed = asyncio.Event()
