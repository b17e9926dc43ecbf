"""The Ray cluster of a job: joined when there is work for it, and told of what it lacks.

Ray waits without a word, for ever, for nodes that could take an actor. On a cluster that is right,
since nodes come: an autoscaler starts them because somebody waits. So what a stage waits for is
told, at once and again from time to time. A local cluster cannot grow, and is refused.
"""

import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.config import PipelineConfig
from pipeline.files import is_local, write_atomically
from pipeline.progress import Observer
from pipeline.rounds import StageFailed
from sandbox.container import connect
from sandbox.transport import SandboxUnavailable

_STARTS = 3
"""Tries to start a local cluster."""

_LOOK_S = 20.0
_AGAIN_S = 300.0
"""Between two looks at the nodes, and between two words about the same lack."""

_NODE_ANSWERS_S = 60.0
"""A node that is slower to start a process says nothing about the root."""

_IDENTITY = "identity"


@dataclass(frozen=True, slots=True)
class Workers:
    """What a stage cannot begin without: `count` workers, `each` on one node (Ray's resources)."""

    who: str
    each: Mapping[str, float]
    count: int = 1

    def room_on(self, resources: Mapping[str, float]) -> int:
        """How many of them fit on an empty node."""
        asked = {name: amount for name, amount in self.each.items() if amount > 0}
        if not asked:
            return self.count
        return int(min(resources.get(name, 0.0) // amount for name, amount in asked.items()))

    def __str__(self) -> str:
        each = ", ".join(f"{amount:g} {name}" for name, amount in self.each.items() if amount > 0)
        return f"{self.count} {self.who} with {each} each"


def lacking(needs: Sequence[Workers], nodes: Sequence[Mapping[str, float]]) -> list[Workers]:
    """Those for which the nodes (Ray's resources of each), were they empty, have no room."""
    return [need for need in needs if sum(map(need.room_on, nodes)) < need.count]


class Cluster:
    """The Ray cluster of this job, joined when there is work for it: a finished run starts none.

    Inside a submitted job, and wherever RAY_ADDRESS is set, that is the cluster it names; else a
    local one with as many `docker` slots as the config gives. `root` is what all nodes must see
    [the config's].
    """

    def __init__(
        self, config: PipelineConfig, observer: Observer, *, root: str | None = None
    ) -> None:
        self._config, self._observer = config, observer
        self._root = config.root if root is None else root
        self._joined_here = False
        self._needs: Sequence[Workers] = ()
        self._seen_by: set[str] = set()
        self._told: tuple[list[Workers], float] = ([], 0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.leave()

    def expect_engine(self) -> None:
        """Raises StageFailed where programs are to be executed on this machine in Docker and no
        engine answers: told before anything is started or paid, not by every worker in turn."""
        if _is_elsewhere() or self._config.sandbox.isolation != "docker":
            return
        try:
            connect().close()
        except SandboxUnavailable as error:
            raise StageFailed(str(error)) from error

    def leave(self) -> None:
        """End all of this job's actors. Ray Data only asks them to end when they are idle: those of
        a round that was ended would go on, beside those of the next, with the same parts."""
        if self._joined_here:
            self._joined_here = False
            ray.shutdown()

    def join(self, *needs: Workers) -> None:
        """Raises StageFailed if the cluster cannot be reached, if a local one has no room for what
        the next stage `needs`, or if a node does not see the root."""
        self._needs = needs
        if not ray.is_initialized():
            self._joined_here = True
            self._start()
        if _is_elsewhere():
            self._expect_shared_root()
            self._tell_of_lacks()
            return
        for need in lacking(needs, _nodes()):
            there = ray.cluster_resources()
            has = ", ".join(f"{there.get(name, 0):g} {name}" for name in need.each)
            raise StageFailed(
                f"this stage needs {need}, this machine has {has}: ask for less in the config "
                "(gpus, use_gpu, workers, cpus), or run on a cluster (RAY_ADDRESS)"
            )

    @contextmanager
    def telling_of_lacks(self) -> Iterator[None]:
        """Tell, as long as this lasts, what the stage waits for: nodes may also leave."""
        if not _is_elsewhere():
            yield
            return
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_LOOK_S):
                self._tell_of_lacks()

        watching = threading.Thread(target=watch, name="what the cluster lacks", daemon=True)
        watching.start()
        try:
            yield
        finally:
            done.set()
            watching.join()

    def _tell_of_lacks(self) -> None:
        missing, (told, when) = lacking(self._needs, _nodes()), self._told
        if missing == told and (not missing or time.monotonic() - when < _AGAIN_S):
            return
        self._told = missing, time.monotonic()
        for need in missing:
            self._observer.note(f"waiting for nodes that have room for {need}: {_mend(need)}")
        if not missing:
            self._observer.note("the cluster has room for this stage now")

    def _start(self) -> None:
        quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
        if _is_elsewhere():
            try:
                ray.init(**quiet)
            except ConnectionError as error:
                raise StageFailed(
                    f"RAY_ADDRESS={os.environ['RAY_ADDRESS']}: no Ray cluster answers ({error})"
                ) from error
            return
        # Ray gives its daemons 30 s to start, whatever else the machine does.
        slots = {"docker": float(self._config.sandbox.slots)}
        for left in reversed(range(_STARTS)):
            try:
                ray.init(address="local", resources=slots, include_dashboard=False, **quiet)
                return
            except Exception as error:  # Ray has no class of its own for it
                ray.shutdown()
                if not left:
                    raise StageFailed(
                        f"Ray did not start on this machine in {_STARTS} tries: {error}"
                    ) from error

    def _expect_shared_root(self) -> None:
        """Raises StageFailed where a local root is not the same folder on all nodes: their workers
        would miss the parts, or write them where nobody looks."""
        here = ray.get_runtime_context().get_node_id()
        nodes = {
            node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]
        }
        unasked = nodes.keys() - self._seen_by - {here}
        if not unasked or not is_local(self._root):
            return
        path = Path(self._root).absolute() / _IDENTITY
        if not path.exists():
            write_atomically(str(path), secrets.token_hex(16).encode())
        elsewhere = _read_on(unasked, str(path))
        blind = [node for node, read in elsewhere.items() if read != path.read_bytes()]
        if blind:
            raise StageFailed(
                f"root {path.parent} is not the same folder on {len(blind)} of {len(nodes)} nodes "
                f"({', '.join(sorted(nodes[node] for node in blind)[:3])}): use one that all nodes "
                "share, or an object store (s3://bucket/prefix)"
            )
        self._seen_by |= unasked


def _is_elsewhere() -> bool:
    return bool(os.environ.get("RAY_ADDRESS"))


def _nodes() -> list[Mapping[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _mend(need: Workers) -> str:
    if "docker" in need.each:
        return (
            "the autoscaler starts them, or `ray start --address ... --resources "
            """'{"docker": 4}'` beside a Docker engine"""
        )
    return (
        "the autoscaler starts them, or `ray start --address ...` on such a machine; or ask for "
        "less in the config (gpus, use_gpu, workers, cpus)"
    )


def _read_on(nodes: set[str], path: str) -> dict[str, bytes | None]:
    """What the file holds on each node, None where there is none. Nodes that do not answer, because
    they are lost or busy, are left out."""

    # A function within a function is sent by value: a node needs nothing of this project to answer.
    def read() -> bytes | None:
        return Path(path).read_bytes() if Path(path).exists() else None

    task = ray.remote(num_cpus=0, max_retries=0)(read)
    asked: dict[Any, str] = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        asked[task.options(scheduling_strategy=there).remote()] = node
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_NODE_ANSWERS_S)
    found: dict[str, bytes | None] = {}
    for answer in answered:
        try:
            found[asked[answer]] = ray.get(answer)
        except ray.exceptions.RayError:
            continue  # a node that was lost
    return found
