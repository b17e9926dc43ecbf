"""Work whose library would take the process's signals for itself.

At Ctrl-C, Ray Train ends the process with exit status 0, and from its first training on whatever is
at work; Ray Tune calls an interrupted sweep finished. Both do so in the main thread alone, where
alone Python lets handlers be set: in another one they leave Ctrl-C to who started them.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def in_own_thread(work: Callable[[], T]) -> T:
    """The result of `work`; whatever it raises is raised here, and Ctrl-C as it comes. The thread
    is then left to its end: it must not hold up that of the process."""
    result: Future[T] = Future()

    def do() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised by who waits
            result.set_exception(error)

    threading.Thread(target=do, name="work", daemon=True).start()
    return result.result()
