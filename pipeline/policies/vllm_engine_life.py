"""Loaded by vLLM inside the engine's process, so that no engine outlives the process that asked it.

vLLM ends its engine when the asking process ends in good order. When that one is killed, the engine
would stay behind with its memory; so the kernel is asked to kill it too (Linux).
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


class DiesWithItsParent:
    """What vLLM mixes into its worker, which on one device lives in the engine's own process.

    It adds nothing to the worker: being imported there is what counts. (Workers of several GPUs are
    processes below the engine, and vLLM itself ends those with it.)
    """


def _die_with_parent() -> None:
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was faster
        os.kill(os.getpid(), signal.SIGKILL)


if sys.platform == "linux" and "vllm.v1.worker.worker_base" in sys.modules:
    _die_with_parent()
