"""Kills anything at random moments of a run, until it is through, and says what each kill cost.

    python -m tests.soak --kills 20 [--seed 0] [--json]

A run of the scale model's label stages works on several nodes (raylets of one machine): real Ray,
real programs in real containers; the policy answers from a script, so that rows can be compared,
and its answers are paid for: they go to the journal. Drivers, workers that ask, workers that
execute, containers and whole nodes get SIGKILL; a dead driver is started again, and for a dead node
a fresh one joins. Afterwards the run is held against one that nobody disturbed.

A part or a call is in flight at a kill if a process that died of it had begun it and not ended it.
What others had begun goes on: nothing of theirs may be begun again.
"""

import argparse
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import docker.errors
from ray._common.utils import reset_ray_address
from ray.cluster_utils import Cluster
from rich.console import Console
from rich.table import Table

from pipeline.config import (
    PipelineConfig,
    PoolConfig,
    PromptStyle,
    RolloutConfig,
    SamplingConfig,
    SandboxConfig,
    ScaleModelProblems,
    VLLMPolicy,
)
from pipeline.plan import Plan, make_plan
from pipeline.records import Role
from pipeline.store import StageStore
from sandbox.container import OWNER_LABEL, connect
from tests import scripted_run
from tests.witness import Event, What, events, unfinished

NODES = 3
ASKING_AT_ONCE = 2  # parts of one policy worker
POLICY_WORKERS = 2
SLOTS = 3
SECONDS_PER_ANSWER = 0.6  # in all longer than a sandbox takes to start
PATIENCE_S = 1800.0
"""For the whole run; a machine that is busy with something else takes its time."""


class Kind(StrEnum):
    """What is killed."""

    DRIVER = "driver"
    ASKING = "policy worker"
    EXECUTING = "sandbox worker"
    CONTAINER = "container"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Kill:
    """`at`: seconds since the epoch; `pids`: the processes of the run that it takes along."""

    number: int
    kind: Kind
    at: float
    victim: str
    pids: frozenset[int]
    parts_there: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What one kill cost: names of slices of parts, and numbers of paid calls."""

    in_flight: tuple[str, ...]
    recomputed: tuple[str, ...]
    calls_in_flight: int
    calls_repeated: int


@dataclass
class Soaked:
    """A run that is through."""

    plan: Plan
    kills: list[Kill] = field(default_factory=list[Kill])
    driver_lives: int = 1
    told: list[Event] = field(default_factory=list[Event])
    seconds: float = 0.0
    joined: set[str] = field(default_factory=set[str])
    """The nodes that joined while it worked, by id."""

    def rows(self) -> dict[str, list[str]]:
        """What identifies the rows of every part (measured columns apart), by stage."""
        stages = _stages(self.plan)
        return {stage.name: [stage.digest(part) for part in stage.done()] for stage in stages}

    def made(self) -> Counter[str]:
        """How often each slice of a part was made."""
        return Counter(event.about for event in self.told if event.what is What.MADE)

    def kept(self) -> Counter[str]:
        return Counter(event.about for event in self.told if event.what is What.KEPT)

    def calls(self) -> Counter[str]:
        """How often each call was paid for."""
        return Counter(event.about for event in self.told if event.what is What.ASKED)

    def repeated(self) -> int:
        return sum(self.calls().values()) - len(self.calls())

    def costs(self) -> list[Cost]:
        """Of each kill, in order."""
        parts = self._by_kill(What.BEGUN, What.MADE)
        calls = self._by_kill(What.ASKED, What.KEPT)
        return [
            Cost(
                tuple(event.about for event, _ in parts[kill.number]),
                tuple(event.about for event, again in parts[kill.number] if again),
                len(calls[kill.number]),
                sum(again for _, again in calls[kill.number]),
            )
            for kill in self.kills
        ]

    def unexplained(self) -> list[Event]:
        """What processes left unfinished that were not killed."""
        killed = {pid for kill in self.kills for pid in kill.pids}
        open_parts = unfinished(self.told, What.BEGUN, What.MADE)
        open_calls = unfinished(self.told, What.ASKED, What.KEPT)
        return [event for event in (*open_parts, *open_calls) if event.pid not in killed]

    def _by_kill(self, begin: What, end: What) -> dict[int, list[tuple[Event, bool]]]:
        """What each kill interrupted, and whether that was begun again."""
        found: dict[int, list[tuple[Event, bool]]] = {kill.number: [] for kill in self.kills}
        begun = [event for event in self.told if event.what is begin]
        for event in unfinished(self.told, begin, end):
            again = any(e.about == event.about and e.at > event.at for e in begun)
            died_of = [kill for kill in self.kills if event.pid in kill.pids]
            for kill in died_of[-1:]:
                found[kill.number].append((event, again))
        return found


class Nodes:
    """A Ray cluster of several nodes on one machine. The head has no CPU and no slot, so that all
    work is on nodes that may be killed."""

    def __init__(self, count: int) -> None:
        self.cluster = Cluster()
        self._add(num_cpus=0, include_dashboard=False)
        # Else every `ray.init` on this machine would join this cluster, asked or not.
        reset_ray_address()
        for _ in range(count):
            self.join()

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def join(self, **resources: float) -> Any:
        return self._add(num_cpus=1, resources=resources or {"docker": 1})

    def _add(self, **options: Any) -> Any:
        """Where a node's agents have to find their ports, the raylet waits for them to start up,
        and dies after 15 s: too short on a machine with much else to do. And Ray gives a node 30 s
        in all."""
        for attempt in range(5):
            try:
                return self.cluster.add_node(**options, **_agent_ports())
            except Exception as error:  # Ray raises just that
                if attempt == 4 or "timed out" not in str(error):
                    raise
        raise AssertionError

    def alive(self) -> list[Any]:
        return sorted(self.cluster.worker_nodes, key=lambda node: node.node_id)

    def kill(self, node: Any) -> None:
        self.cluster.remove_node(node, allow_graceful=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cluster.shutdown()


def _agent_ports() -> dict[str, int]:
    """Free ones, for the agents beside one raylet."""
    names = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return dict(zip(names, ports, strict=True))


def config_of(place: Path, problems: int, isolation: str = "docker") -> PipelineConfig:
    """The scale model's label stages, in many small parts."""
    pool = PoolConfig(max_size=POLICY_WORKERS, cpus=0.1, parts_in_flight=ASKING_AT_ONCE)
    return PipelineConfig(
        name="soak",
        root=str(place / "store"),
        output=str(place / "out"),
        problems=ScaleModelProblems(train=problems, meta=1, validation=1, test=1),
        policy=VLLMPolicy(model="scripted", gpus=0, prompt=PromptStyle.BARE),
        sampling=SamplingConfig(samples=2, problems_per_part=2, pool=pool),
        sandbox=SandboxConfig(isolation=isolation, slots=SLOTS),  # pyright: ignore
        rollouts=RolloutConfig(samples=2, pool=pool),
    )


def soak(
    place: Path, nodes: Nodes, config: PipelineConfig, kinds: Sequence[Kind] = (), seed: int = 0
) -> Soaked:
    """Run `config` in `place`, kill one of each of `kinds` on the way, at moments and in an order
    that `seed` decides; the kills are spread over the run. Raises RuntimeError where the run does
    not come through. See `tests.scripted_run` for the files that `place` may hold."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.json").write_text(config.model_dump_json())
    (place / "pace").write_text(str(SECONDS_PER_ANSWER))
    soaked = Soaked(make_plan(config))
    rng = random.Random(seed)
    left = rng.sample(kinds, len(kinds))
    moments = sorted((rng.uniform(0.03, 0.9) for _ in kinds), reverse=True)
    started = time.time()
    killer = _Killer(place, nodes, soaked, rng)
    while (code := killer.driver.poll()) != 0:
        if time.time() - started > PATIENCE_S:
            killer.driver.kill()
            raise RuntimeError(f"not through after {PATIENCE_S:.0f} s: {_last_words(place)}")
        if code is not None:
            if code != -signal.SIGKILL:
                raise RuntimeError(f"the driver gave up ({code}): {_last_words(place)}")
            soaked.driver_lives += 1
            killer.driver = _start_driver(place, nodes)
        if left and _progress(soaked.plan) >= moments[-1]:
            time.sleep(rng.uniform(0.0, 1.0))
            struck = next((kind for kind in left if killer.strike(kind)), None)
            if struck is not None:
                left.remove(struck)
                moments.pop()
        time.sleep(0.05)
    soaked.seconds = time.time() - started
    soaked.told = events(place)
    return soaked


def _start_driver(place: Path, nodes: Nodes) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.soak", "--drive", str(place)],
        env=os.environ | {"RAY_ADDRESS": nodes.address},
        stdout=(place / "out.txt").open("ab"),
        stderr=subprocess.STDOUT,
    )


def _last_words(place: Path) -> str:
    return (place / "out.txt").read_text(errors="replace")[-3000:]


def _stages(plan: Plan) -> list[StageStore[Any]]:
    truths = [plan.truths] if plan.truths is not None else []
    asked = [plan.solutions, plan.verdicts, plan.completions, plan.rollouts]
    return [*asked, *truths, plan.examples]


def _parts_there(plan: Plan) -> int:
    return sum(len(stage.done()) for stage in _stages(plan))


def _progress(plan: Plan) -> float:
    """The share of all parts that are there."""
    note = plan.problems.note()
    if note is None:
        return 0.0
    roles = note["shaped_by"]["roles"]
    labelled = roles.count(Role.TRAIN)
    of_all, of_labelled = 3, 3
    return _parts_there(plan) / (of_all * len(roles) + of_labelled * labelled)


class _Killer:
    """Finds its victims by what the witnesses told."""

    def __init__(self, place: Path, nodes: Nodes, soaked: Soaked, rng: random.Random) -> None:
        self.driver = _start_driver(place, nodes)
        self._place, self._nodes, self._soaked, self._rng = place, nodes, soaked, rng

    def strike(self, kind: Kind) -> bool:
        """Whether there was anything of this kind to kill."""
        match kind:
            case Kind.DRIVER:
                return self._kill_driver()
            case Kind.ASKING:
                return self._kill_worker(kind, ("ScriptedSample", "ScriptedComplete"))
            case Kind.EXECUTING:
                return self._kill_worker(kind, ("ScriptedJudge",))
            case Kind.CONTAINER:
                return self._kill_container()
            case Kind.NODE:
                return self._kill_node()

    def _kill_driver(self) -> bool:
        workers = self._alive()
        if self.driver.poll() is not None or not workers:
            return False
        pids = frozenset(worker.pid for worker in workers)
        self._record(Kind.DRIVER, f"pid {self.driver.pid}", pids)
        self.driver.kill()
        self.driver.wait()
        return True

    def _kill_worker(self, kind: Kind, names: tuple[str, ...]) -> bool:
        at_work = {event.pid for event in unfinished(events(self._place), What.BEGUN, What.MADE)}
        workers = [
            worker
            for worker in self._alive()
            if worker.worker.startswith(names) and worker.pid in at_work
        ]
        if not workers:  # one that starts, or waits for parts, has nothing to lose
            return False
        worker = self._rng.choice(workers)
        victim = f"{worker.worker.removeprefix('Scripted')} pid {worker.pid}"
        self._record(kind, victim, frozenset({worker.pid}))
        os.kill(worker.pid, signal.SIGKILL)
        return True

    def _kill_container(self) -> bool:
        owners = {str(worker.pid) for worker in self._alive()}
        client = connect()
        try:
            found = client.containers.list(filters={"label": OWNER_LABEL})
            ours = [c for c in found if c.labels[OWNER_LABEL].split("/")[-2] in owners]
            if not ours:
                return False
            container = self._rng.choice(sorted(ours, key=lambda each: str(each.id)))
            container.kill()
            self._record(Kind.CONTAINER, container.short_id, frozenset())
            return True
        except docker.errors.APIError:  # it went by itself
            return False
        finally:
            client.close()

    def _kill_node(self) -> bool:
        node = self._rng.choice(self._nodes.alive())
        pids = frozenset(worker.pid for worker in self._alive() if worker.node == node.node_id)
        self._record(Kind.NODE, node.node_id[:8], pids)
        self._nodes.kill(node)
        self._soaked.joined.add(self._nodes.join().node_id)
        return True

    def _alive(self) -> list[Event]:
        """The first words of the workers that still live."""
        started = [event for event in events(self._place) if event.what is What.STARTED]
        return [event for event in started if _is_ray_worker(event.pid)]

    def _record(self, kind: Kind, victim: str, pids: frozenset[int]) -> None:
        kills = self._soaked.kills
        there = _parts_there(self._soaked.plan)
        kills.append(Kill(len(kills) + 1, kind, time.time(), victim, pids, there))


def _is_ray_worker(pid: int) -> bool:
    """Whether that process lives; its title is Ray's."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::")
    except OSError:
        return False


# --- the command ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Comparison:
    """A soaked run held against an undisturbed one."""

    same_rows: bool
    parts: int
    parts_made_twice: int
    parts_in_flight: int
    parts_recomputed: int
    paid_calls: int
    calls_in_flight: int
    calls_repeated: int
    calls_repeated_though_kept: int
    left_unfinished_by_nobodys_kill: int
    driver_lives: int
    seconds: float
    undisturbed_seconds: float

    @property
    def nothing_lost(self) -> bool:
        return (
            self.same_rows
            and self.parts_made_twice == 0
            and self.parts_recomputed <= self.parts_in_flight
            and self.calls_repeated <= self.calls_in_flight
            and self.calls_repeated_though_kept == 0
        )


def compare(soaked: Soaked, undisturbed: Soaked) -> Comparison:
    costs = soaked.costs()
    return Comparison(
        same_rows=soaked.rows() == undisturbed.rows(),
        parts=_parts_there(soaked.plan),
        parts_made_twice=sum(count - 1 for count in soaked.made().values()),
        parts_in_flight=sum(len(cost.in_flight) for cost in costs),
        parts_recomputed=sum(len(cost.recomputed) for cost in costs),
        paid_calls=len(soaked.calls()),
        calls_in_flight=sum(cost.calls_in_flight for cost in costs),
        calls_repeated=soaked.repeated(),
        calls_repeated_though_kept=sum(count - 1 for count in soaked.kept().values()),
        left_unfinished_by_nobodys_kill=len(soaked.unexplained()),
        driver_lives=soaked.driver_lives,
        seconds=round(soaked.seconds, 1),
        undisturbed_seconds=round(undisturbed.seconds, 1),
    )


def table_of(soaked: Soaked) -> Table:
    table = Table("kill", "at s", "what", "victim", "parts there", "in flight", "made again",
                  "calls in flight", "paid again", title="each kill, and what it cost")  # fmt: skip
    started = min(event.at for event in soaked.told)
    for kill, cost in zip(soaked.kills, soaked.costs(), strict=True):
        table.add_row(
            *(str(kill.number), f"{kill.at - started:.1f}", kill.kind, kill.victim),
            *(str(kill.parts_there), ", ".join(cost.in_flight) or "-"),
            *(", ".join(cost.recomputed) or "-", str(cost.calls_in_flight)),
            str(cost.calls_repeated),
        )
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--kills", type=int, default=20, help="[20]")
    parser.add_argument("--problems", type=int, default=40, help="training problems [40]")
    parser.add_argument("--seed", type=int, default=0, help="decides victims and moments [0]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.drive is not None:
        text = (chosen.drive / "config.json").read_text()
        scripted_run.go(PipelineConfig.model_validate_json(text))
        return 0
    kinds = [kind for _, kind in zip(range(chosen.kills), itertools.cycle(Kind), strict=False)]
    console = Console(stderr=chosen.json, width=None if sys.stdout.isatty() else 200)
    with tempfile.TemporaryDirectory() as folder, Nodes(NODES) as nodes:
        places = [Path(folder) / name for name in ("undisturbed", "soaked")]
        configs = [config_of(place, chosen.problems) for place in places]
        undisturbed = soak(places[0], nodes, configs[0])
        console.print(f"undisturbed: {undisturbed.seconds:.0f} s")
        soaked = soak(places[1], nodes, configs[1], kinds, chosen.seed)
        comparison = compare(soaked, undisturbed)
        console.print(table_of(soaked))
        for name, value in asdict(comparison).items():
            console.print(f"{name.replace('_', ' ')}: {value}", highlight=False)
        if chosen.json:
            kills = [
                {"kind": kill.kind, "parts_there": kill.parts_there} | asdict(cost)
                for kill, cost in zip(soaked.kills, soaked.costs(), strict=True)
            ]
            sys.stdout.write(json.dumps(asdict(comparison) | {"kills": kills}) + "\n")
        return 0 if comparison.nothing_lost and len(soaked.kills) == chosen.kills else 1


if __name__ == "__main__":
    sys.exit(main())
