"""An event loop on a thread of its own: what a policy's engine or client lives on.

Clients of engines and APIs belong to one event loop, but callers come and go with theirs. Here the
client keeps its loop, and any caller can wait for it from any other.
"""

import asyncio
import collections
import concurrent.futures
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_STARTED_AT_ONCE = 64  # coroutines, before those that were started are served again


class OwnLoop:
    """Runs coroutines until `stop`."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def as_they_finish(
        self, coroutines: Iterable[Coroutine[Any, Any, T]], at_once: int | None = None
    ) -> AsyncGenerator[T, None]:
        """The results in the order in which they come, for a caller on any loop; at most `at_once`
        of the coroutines (None: all) run at a time.

        The first failure is raised at once. The rest is then cancelled, as it is when the caller
        stops early.
        """
        waiting = collections.deque(coroutines)
        left, finished = len(waiting), _Finished[T]()
        running = asyncio.wrap_future(self.submit(_run(waiting, finished.put, at_once or left)))
        try:
            while left:
                for task in await finished.get():
                    left -= 1
                    yield task.result()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def stop(self) -> None:
        """Cancel what is left and end the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(_cancel_others())
        self._loop.close()


class _Finished(Generic[T]):
    """Finished tasks on their way to another loop, which is woken once for all that came since it
    looked: a wake-up between threads costs more than the rest of the way."""

    def __init__(self) -> None:
        """On the loop that will `get`."""
        self._tasks: list[asyncio.Task[T]] = []
        self._loop = asyncio.get_running_loop()
        self._some = asyncio.Event()
        self._waking = False

    def put(self, task: asyncio.Task[T]) -> None:
        self._tasks.append(task)
        if not self._waking:
            self._waking = True
            self._loop.call_soon_threadsafe(self._wake)

    async def get(self) -> list[asyncio.Task[T]]:
        """Waits until there are some."""
        await self._some.wait()
        self._some.clear()
        count = len(self._tasks)
        tasks, self._tasks[:count] = self._tasks[:count], []
        return tasks

    def _wake(self) -> None:
        self._waking = False  # before `get` looks: what comes later wakes again
        self._some.set()


async def _run(
    waiting: collections.deque[Coroutine[Any, Any, T]],
    put: Callable[[asyncio.Task[T]], None],
    at_once: int,
) -> None:
    """Run all; when cancelled, cancel them, and end when they have."""
    tasks: set[asyncio.Task[T]] = set()
    room = asyncio.Event()

    def over(task: asyncio.Task[T]) -> None:
        tasks.remove(task)
        put(task)
        room.set()

    try:
        while waiting:
            room.clear()
            for _ in range(min(len(waiting), at_once - len(tasks), _STARTED_AT_ONCE)):
                task = asyncio.create_task(waiting.popleft())
                tasks.add(task)
                task.add_done_callback(over)
            await (asyncio.sleep(0) if len(tasks) < at_once else room.wait())
        if tasks:
            await asyncio.wait(tasks)
    finally:
        for coroutine in waiting:
            coroutine.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
