"""Sandbox slots that recorded programs are judged in: of this machine, or of a Ray cluster."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

from pipeline.judging_queue import OpenSlot, Slot
from sandbox import Sandbox, SandboxUnavailable

SandboxKind = Literal["docker", "unsafe-process"]

_PROBE_S = 5.0


class ClusterError(Exception):
    """The Ray cluster cannot be reached, or has no sandbox slots."""


def local_slots(kind: SandboxKind, count: int) -> list[OpenSlot]:
    """Sandboxes of this machine. Opening one raises SandboxUnavailable."""
    return [partial(_local_slot, kind)] * count


@contextmanager
def cluster_slots(
    address: str, kind: SandboxKind, most: int | None, note: Callable[[str], None]
) -> Iterator[list[OpenSlot]]:
    """Actors of the cluster that --address names: at most so many (None: as many as its nodes
    declare). Raises ClusterError; opening one raises SandboxUnavailable."""
    import ray  # slow to import, and not needed for the slots of one machine

    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError) as error:
        raise ClusterError(f"--address {address}: no Ray cluster answers ({error})") from None
    try:
        declared = int(ray.cluster_resources().get("docker", 0))
        if not declared:
            raise ClusterError(
                f"--address {address}: no node declares sandbox slots; start them with "
                "`ray start --resources '{\"docker\": 4}'`"
            )
        count = min(most or declared, declared)
        free = int(ray.available_resources().get("docker", 0))
        if free < count:
            note(
                f"{free} of the cluster's {declared} sandbox slots are free; "
                f"{count - free} more are taken as others give them back"
            )
        yield [partial(_cluster_slot, kind)] * count
    finally:
        ray.shutdown()


def probe(address: str) -> None:
    """Whether anything listens there: Ray itself tries for 100 s before it says that nothing does.
    Raises ClusterError."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"--address {address}: no Ray cluster answers ({error})") from None


@contextmanager
def _local_slot(kind: SandboxKind) -> Iterator[Slot]:
    with Sandbox(kind) as sandbox:
        yield Slot(sandbox.judge, sandbox.interpreter())


@contextmanager
def _cluster_slot(kind: SandboxKind) -> Iterator[Slot]:
    import ray
    import ray.exceptions

    from sandbox.actor import SandboxActor

    options = {"num_cpus": 0, "resources": {"docker": 1}, "max_restarts": 3, "max_task_retries": 3}
    actor: Any = ray.remote(**options)(SandboxActor).remote(kind)
    try:
        interpreter: Any = ray.get(actor.interpreter.remote())
        yield Slot(lambda program: ray.get(actor.judge.remote(program)), interpreter)
    except ray.exceptions.RayError as error:
        raise SandboxUnavailable(f"a slot of the cluster failed: {error}") from error
    finally:
        ray.kill(actor)
