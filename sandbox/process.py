"""The unsafe transport: the same runner as an ordinary process, with resource limits only.

It stops honest mistakes (endless loops, runaway memory, floods of output). It does not stop a
program that means harm: that one has the user's own rights, files and network, and may kill or read
the runner. Every verdict that comes of it says `isolation=none`.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from sandbox import boot, owner
from sandbox.protocol import Isolation
from sandbox.transport import TransportError

_BOX = "unsafe-sandbox-"


def remove_orphans() -> None:
    """Remove the directories whose owner on this machine is dead; a killed one leaves its own."""
    for box in Path(tempfile.gettempdir()).glob(f"{_BOX}*"):
        named = box.name.removeprefix(_BOX).rpartition("-")[0].replace(",", "/")
        with suppress(ValueError):  # somebody else's, with a name like ours
            if owner.is_dead(named):
                shutil.rmtree(box, ignore_errors=True)


class ProcessTransport:
    """A runner in a process of its own; tests run in directories under a temporary one."""

    isolation = Isolation.NONE

    def __init__(self) -> None:
        self._box = tempfile.mkdtemp(prefix=f"{_BOX}{owner.this_process().replace('/', ',')}-")
        self.cargo = boot.cargo(self._box, own_uids=False)
        self._buffer = bytearray()
        self._process = subprocess.Popen(
            [sys.executable, *boot.FLAGS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=boot.ENVIRONMENT,
            cwd=self._box,
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin = self._process.stdin.fileno()
        self._stdout = self._process.stdout.fileno()
        os.set_blocking(self._stdin, False)

    def send(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        try:
            while view:
                left = deadline - time.monotonic()
                if left <= 0 or not _is_ready(self._stdin, select.POLLOUT, left):
                    raise TransportError("the runner does not listen")
                view = view[os.write(self._stdin, view) :]
        except OSError as error:
            raise TransportError(f"the runner's process has ended: {error}") from error

    def receive(self, count: int, deadline: float) -> bytes:
        while len(self._buffer) < count:
            left = deadline - time.monotonic()
            if left <= 0 or not _is_ready(self._stdout, select.POLLIN, left):
                raise TransportError("the runner is silent")
            chunk = os.read(self._stdout, 1 << 16)
            if not chunk:
                raise TransportError("the runner's process has ended")
            self._buffer += chunk
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def stop(self) -> None:
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        self.stop()
        self._process.communicate()
        shutil.rmtree(self._box, ignore_errors=True)


def _is_ready(descriptor: int, event: int, timeout_s: float) -> bool:
    """Whether it can be read or written, or is at its end. By `poll`: to `select` a descriptor
    above 1023 is an error, and a process with many slots has those."""
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(timeout_s * 1000))
