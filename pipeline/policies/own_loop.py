"""An event loop on a thread of its own: what a policy's engine or client lives on.

Clients of engines and APIs belong to one event loop, but callers come and go with theirs. Here the
client keeps its loop, and any caller can wait for it from any other.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


class OwnLoop:
    """Runs coroutines until `stop`."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def as_they_finish(
        self, coroutines: Iterable[Coroutine[Any, Any, T]]
    ) -> AsyncGenerator[T, None]:
        """The results in the order in which they come, for a caller on any loop.

        The first failure is raised at once. The rest is then cancelled, as it is when the caller
        stops early.
        """
        pending = [asyncio.wrap_future(self.submit(coroutine)) for coroutine in coroutines]
        try:
            for finished in asyncio.as_completed(pending):
                yield await finished
        finally:
            for future in pending:
                future.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    def stop(self) -> None:
        """Cancel what is left and end the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(_cancel_others())
        self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
