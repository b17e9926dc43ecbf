"""Test executions per second: the sandbox against the bare designs, in one run.

`python -m tests.benchmarks.sandbox_throughput [--programs N] [--json]`

- `docker`, `docker_2_slots`: ours; `ray`: an actor with one slot, called program by program,
  against `docker` in the same rounds;
- `process`: ours on the host, as a mere process: the same fork server, with its clock and limits,
  without a container. `docker_of_process` is what the container and a uid per test leave of it;
- `fork_server`: the floor below any design that forks per test. A loop on the host compiles each
  program once, forks, feeds, reads, waits. It has no limit, no directory, no clock to stop a test
  by, no process between the program and itself, and believes what it reads;
- `warm_fork_server`: the same with the modules imported that ours keeps warm for programs, which
  makes every fork dearer and spares a program their import;
- `bare_process`: `python3 program.py` per test, on the host;
- `docker_exec`, `docker_run`: `docker exec` per test into a warm container, `docker run` per test.

Every program sums the numbers of its input, with a few helpers, as long as a small solution is.
The designs take turns, a round each, so that a machine that is busy with other things is equally
unkind to all; a figure is the median over the rounds, a ratio the median of the rounds' ratios. A
round runs N programs with one test, and a tenth as many with ten: as many tests of either kind. The
slow designs run fewer.

`recycle_with_spare_s` and `recycle_without_spare_s` are what a caller waits until its container has
ended and a fresh one has accepted the canary. `idle_mb` is the memory that the kernel charges to
the cgroup of one idle container, without the file cache; `idle_shim_mb` the proportional share of
its containerd shim, which runs outside; `slot_mb` both, twice: the container and its spare.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sandbox import IMAGE, Program, Sandbox, SandboxPool, Status, TestCase
from sandbox.actor import SandboxActor
from sandbox.container import ContainerTransport, connect
from sandbox.image import ensure_image

_STDIN, _EXPECTED = "3\n1 2 3\n", "6\n"
_ROUNDS = 10
_SLOW_TESTS = 2  # a round, of the designs that take a tenth of a second or more each
_RECYCLES = 3
_SPARE_S = 60.0  # longest that a spare is waited for

_CODE = '''
import sys
from collections import deque


def main():
    """Read the numbers, drop the negative ones, print the sum of the rest."""
    numbers = read_numbers()
    kept = keep_non_negative(numbers)
    print(total(kept))


def read_numbers():
    """The numbers on the second line."""
    count = int(sys.stdin.readline())
    return [int(word) for word in sys.stdin.readline().split()][:count]


def keep_non_negative(numbers):
    """Those that are zero or more, in order."""
    return deque(number for number in numbers if number >= 0)


def total(numbers):
    """Their sum."""
    result = 0
    for number in numbers:
        result += number
    return result


main()
'''


def _programs(count: int, tests: int, serial: int) -> list[Program]:
    """Programs that differ, so that none is judged once for all."""
    test = TestCase(stdin=_STDIN, expected=_EXPECTED)
    return [Program(f"{_CODE}# {serial} {i}\n", (test,) * tests) for i in range(count)]


def _judge(sandbox: Sandbox | SandboxPool) -> Callable[[list[Program]], None]:
    def run(programs: list[Program]) -> None:
        verdicts = sandbox.judge_all(programs)
        assert all(verdict.status is Status.AC for verdict in verdicts)

    return run


# A small interpreter of its own, as a real one would be: compile once per program, fork once per
# test, feed it, read it, wait for it.
_FORK_SERVER = """
import collections, gc, json, os, sys
gc.disable(); gc.freeze()
for line in sys.stdin:
    for source, inputs in json.loads(line):
        code = compile(source, "program.py", "exec")
        for text in inputs:
            stdin_read, stdin_write = os.pipe()
            stdout_read, stdout_write = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.dup2(stdin_read, 0)
                os.dup2(stdout_write, 1)
                os.closerange(3, 256)
                sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
                exec(code, {"__name__": "__main__"})
                sys.stdout.flush()
                os._exit(0)
            os.close(stdin_read)
            os.close(stdout_write)
            os.write(stdin_write, text.encode())
            os.close(stdin_write)
            while os.read(stdout_read, 65536):
                pass
            os.close(stdout_read)
            assert os.waitpid(pid, 0)[1] == 0
    print("done", flush=True)
"""


def _warm_modules() -> list[str]:
    """Asked in a process of its own: the child's side warms whoever imports it."""
    code = "from sandbox.warm import MODULES; print(*MODULES)"
    return subprocess.check_output([sys.executable, "-c", code], text=True).split()


class _ForkServer:
    def __init__(self, modules: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "".join(f"import {name}\n" for name in modules) + _FORK_SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, programs: list[Program]) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = [(program.code, [test.stdin for test in program.tests]) for program in programs]
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def close(self) -> None:
        self._process.communicate()


def _bare_process(programs: list[Program]) -> None:
    for program in programs:
        for test in program.tests:
            done = subprocess.run(
                [sys.executable, "-c", program.code],
                input=test.stdin,
                capture_output=True,
                text=True,
            )
            assert done.stdout == test.expected


class _DockerExec:
    def __init__(self) -> None:
        self._client = connect()
        self._container = self._client.containers.run(
            IMAGE, ["sleep", "600"], detach=True, auto_remove=True, network_mode="none"
        )

    def __call__(self, programs: list[Program]) -> None:
        for program in programs:
            for test in program.tests:
                command = ["docker", "exec", "-i", str(self._container.id), "python3", "-c"]
                done = subprocess.run(
                    [*command, program.code], input=test.stdin, capture_output=True, text=True
                )
                assert done.stdout == test.expected

    def close(self) -> None:
        self._container.remove(force=True)
        self._client.close()


class _DockerRun:
    def __call__(self, programs: list[Program]) -> None:
        for program in programs:
            for test in program.tests:
                command = ["docker", "run", "--rm", "-i", "--network", "none", IMAGE, "python3"]
                done = subprocess.run(
                    [*command, "-c", program.code], input=test.stdin, capture_output=True, text=True
                )
                assert done.stdout == test.expected


class _RayActor:
    """One slot in an actor of a local cluster, with programs waiting for it there."""

    def __init__(self) -> None:
        import ray

        self._ray = ray
        ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
        options: dict[str, Any] = {"max_concurrency": 8}
        self._actor: Any = ray.remote(**options)(SandboxActor).remote()
        ray.get(self._actor.check_health.remote())

    def __call__(self, programs: list[Program]) -> None:
        pending = [self._actor.judge.remote(program) for program in programs]
        assert all(verdict.status is Status.AC for verdict in self._ray.get(pending))

    def close(self) -> None:
        self._ray.get(self._actor.close.remote())
        self._ray.shutdown()


def measure(programs: int) -> dict[str, float]:
    """Executions per second of each design with 10 tests a program and with 1, and the ratios that
    the sandbox is held to."""
    ensure_image()
    with ExitStack() as stack:
        fork_server, warm_fork_server = _ForkServer([]), _ForkServer(_warm_modules())
        docker_exec, ray_actor = _DockerExec(), _RayActor()
        for design in (fork_server, warm_fork_server, docker_exec, ray_actor):
            stack.callback(design.close)
        started = time.monotonic()
        docker = stack.enter_context(Sandbox("docker"))
        start_s = time.monotonic() - started
        two_slots = stack.enter_context(SandboxPool(2))
        process = stack.enter_context(Sandbox("unsafe-process"))
        fast = {
            "fork_server": fork_server,
            "warm_fork_server": warm_fork_server,
            "docker": _judge(docker),
            "docker_2_slots": _judge(two_slots),
            "process": _judge(process),
        }
        slow = {
            "bare_process": _bare_process,
            "docker_exec": docker_exec,
            "docker_run": _DockerRun(),
        }
        for run in (*fast.values(), ray_actor):
            run(_programs(4, 2, -1))  # and the spares are being started
        docker._supply.wait_for_spare(_SPARE_S)
        rates: dict[str, list[float]] = {}
        for round_ in range(_ROUNDS):
            for tests in (10, 1):
                batch = _programs(max(1, programs // tests), tests, round_)
                for name, run in fast.items():
                    rates.setdefault(f"{name}_{tests}_tests", []).append(_rate(run, batch))
                if tests == 10:
                    rates.setdefault("ray_10_tests", []).append(_rate(ray_actor, batch))
            batch = _programs(_SLOW_TESTS, 1, round_)
            for name, run in slow.items():
                rates.setdefault(name, []).append(_rate(run, batch))
        figures = {name: statistics.median(values) for name, values in rates.items()}
        for tests in (10, 1):
            for name in ("docker", "docker_2_slots", "process"):
                for limit in ("fork_server", "warm_fork_server"):
                    figures[f"{name}_of_{limit}_{tests}_tests"] = _ratio(
                        rates[f"{name}_{tests}_tests"], rates[f"{limit}_{tests}_tests"]
                    )
            figures[f"docker_of_process_{tests}_tests"] = _ratio(
                rates[f"docker_{tests}_tests"], rates[f"process_{tests}_tests"]
            )
        for name in slow:
            figures[f"docker_of_{name}"] = _ratio(rates["docker_10_tests"], rates[name])
        figures["ray_of_docker_10_tests"] = _ratio(rates["ray_10_tests"], rates["docker_10_tests"])
        figures["start_s"] = start_s
        return figures | _recycling(docker) | _memory(docker)


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def _recycling(sandbox: Sandbox) -> dict[str, float]:
    """Seconds until a container that had to go is replaced and has proven itself."""
    with_spare, without = [], []
    for _ in range(_RECYCLES):
        sandbox._supply.wait_for_spare(_SPARE_S)
        with_spare.append(_seconds_to_recycle(sandbox))
        sandbox._supply.drop_spare()
        without.append(_seconds_to_recycle(sandbox))
        assert sandbox.is_healthy()  # a new spare is under way
    return {
        "recycle_with_spare_s": statistics.median(with_spare),
        "recycle_without_spare_s": statistics.median(without),
    }


def _seconds_to_recycle(sandbox: Sandbox) -> float:
    started = time.perf_counter()
    sandbox._discard()
    sandbox._session = sandbox._take()
    return time.perf_counter() - started


def _memory(sandbox: Sandbox) -> dict[str, float]:
    """MiB of an idle container, and of the shim that the engine keeps for it."""
    sandbox._supply.wait_for_spare(_SPARE_S)
    transport = sandbox._transport
    assert isinstance(transport, ContainerTransport)
    listing: Any = transport._container.exec_run(
        ["sh", "-c", "cat /sys/fs/cgroup/memory.stat /sys/fs/cgroup/memory/memory.stat"], user="0"
    ).output
    charged = listing.decode(errors="replace")
    counted = dict(re.findall(r"^(anon|kernel|shmem|rss) (\d+)$", charged, re.MULTILINE))
    idle_mb = sum(map(int, counted.values())) / (1 << 20)
    shim_mb = _shim_mb(transport.container_id)
    return {"idle_mb": idle_mb, "idle_shim_mb": shim_mb, "slot_mb": 2 * (idle_mb + shim_mb)}


def _shim_mb(container_id: str) -> float:
    for process in Path("/proc").iterdir():
        try:
            if "shim" not in os.readlink(process / "exe"):
                continue
            if container_id not in (process / "cmdline").read_text():
                continue
            share = re.search(r"^Pss:\s+(\d+) kB", (process / "smaps_rollup").read_text(), re.M)
        except OSError:
            continue
        if share:
            return int(share[1]) / 1024
    return 0.0


def _rate(run: Callable[[list[Program]], None], programs: list[Program]) -> float:
    started = time.perf_counter()
    run(programs)
    return sum(len(program.tests) for program in programs) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description="Test executions per second of the sandbox.")
    parser.add_argument("--programs", type=int, default=200, help="tests of a round (default: 200)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    figures = measure(options.programs)
    if options.json:
        print(json.dumps(figures))
        return
    table = Table("figure", "executions/s or ratio")
    for name, value in figures.items():
        table.add_row(name, f"{value:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
