"""What the judge needs of a sandbox: a stream to a runner that can be started anew and killed."""

from typing import Protocol

from sandbox.protocol import Isolation


class SandboxUnavailable(Exception):
    """No sandbox can be had here; the message says why and what mends it."""


class TransportError(Exception):
    """The runner is gone, silent, or not making sense: an infrastructure failure."""


class Transport(Protocol):
    """A running runner. Every method raises TransportError when it is lost."""

    isolation: Isolation
    cargo: bytes  # what to send first: the runner itself

    def send(self, data: bytes, deadline: float) -> None:
        """All of `data`. Deadlines are on the clock of `time.monotonic`."""
        ...

    def receive(self, count: int, deadline: float) -> bytes:
        """Exactly `count` bytes."""
        ...

    def stop(self) -> None:
        """End the runner, for a thread other than the one that is using it: that one gets a
        TransportError, and is to close it. Never raises."""
        ...

    def close(self) -> None:
        """End the runner and everything in it. May be called twice; never raises."""
        ...
