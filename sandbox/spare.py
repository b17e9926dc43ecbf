"""A fresh sandbox at once: the next one is started while the present one works.

Starting a container takes most of a second, and a program that stays dirty, runs out of memory or
sleeps costs one. Taken from here it costs what has not yet passed of that second.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress

from sandbox.session import Session
from sandbox.transport import SandboxUnavailable


class Supply:
    """Hands out sessions that `start(memory_mb)` makes; with `keeps_spare`, keeps one ahead."""

    def __init__(self, start: Callable[[int], Session], *, keeps_spare: bool) -> None:
        self._start = start
        self._keeps_spare = keeps_spare
        self._spare: tuple[int, Future[Session]] | None = None  # its memory_mb
        self._lock = threading.Lock()
        self._is_closed = False

    def take(self, memory_mb: int) -> Session:
        """A session that no program has seen, with as much memory. Raises SandboxUnavailable, also
        once it is closed."""
        with self._lock:
            if self._is_closed:
                raise SandboxUnavailable("the sandbox is closed")
            (size, spare), self._spare = self._spare or (0, None), None
        if spare is not None and size != memory_mb:
            spare.add_done_callback(_close)  # it may still be starting: not to be waited for
        elif spare is not None:
            with suppress(SandboxUnavailable):  # that was then
                return spare.result()
        return self._start(memory_mb)

    def prepare(self, memory_mb: int) -> None:
        """Start the next session behind the caller's back, unless there is one."""
        with self._lock:
            if not self._keeps_spare or self._is_closed or self._spare is not None:
                return
            spare: Future[Session] = Future()
            self._spare = memory_mb, spare
        threading.Thread(
            target=self._fulfil, args=(spare, memory_mb), name="sandbox-spare", daemon=False
        ).start()

    def wait_for_spare(self, timeout_s: float) -> None:
        """Until the spare that is being started is there. Raises TimeoutError."""
        with self._lock:
            spare = self._spare
        if spare is not None:
            spare[1].result(timeout_s)

    def drop_spare(self) -> None:
        """End the spare, once it is there."""
        with self._lock:
            spare, self._spare = self._spare, None
        if spare is not None:
            wait([spare[1]])
            _close(spare[1])

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
        self.drop_spare()

    def _fulfil(self, spare: "Future[Session]", memory_mb: int) -> None:
        try:
            spare.set_result(self._start(memory_mb))
        except SandboxUnavailable as error:
            spare.set_exception(error)
        except BaseException as error:  # noqa: BLE001 - whoever waits must be told
            spare.set_exception(SandboxUnavailable(f"the runner does not start: {error!r}"))


def _close(spare: "Future[Session]") -> None:
    """End a session that is not wanted, if it came to be one."""
    with suppress(SandboxUnavailable):
        spare.result().close()
