"""Signals stay with the main thread while a library is at work in another."""

import os
import signal
import threading
import time

import pytest

from pipeline.own_thread import in_own_thread


def test_the_result_and_the_error_of_the_work_are_those_of_the_call() -> None:
    assert in_own_thread(lambda: 6 * 7) == 42
    with pytest.raises(ZeroDivisionError):
        in_own_thread(lambda: 1 // 0)


def test_a_library_cannot_take_ctrl_c_for_itself_and_it_is_raised_while_the_work_goes_on() -> None:
    going_on = threading.Event()

    def work() -> None:
        with pytest.raises(ValueError, match="main thread"):
            signal.signal(signal.SIGINT, lambda *_: os._exit(0))
        os.kill(os.getpid(), signal.SIGINT)
        going_on.wait(30)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        in_own_thread(work)
    assert time.monotonic() - began < 20
    going_on.set()
