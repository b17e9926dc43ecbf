"""Test executions per second: the sandbox against the bare designs, in one run.

`python -m tests.benchmarks.sandbox_throughput [--programs N] [--json]`

- `fork_server`: an ordinary process on the host forks per test, with pipes and nothing else: the
  limit of what any sandbox of this kind can reach;
- `docker`, `process`: ours, one slot;
- `bare_process`: `python3 program.py` per test, on the host;
- `docker_exec`: `docker exec` per test into a warm container.

Every program sums the numbers of its input, with a few helpers, as long as a small solution is.
The designs take turns, a round each, so that a machine that is busy with other things is equally
unkind to all; figures are medians over the rounds. The slow designs run fewer tests.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from sandbox import IMAGE, Program, Sandbox, Status, TestCase
from sandbox.container import connect
from sandbox.image import ensure_image

_STDIN, _EXPECTED = "3\n1 2 3\n", "6\n"
_ROUNDS = 5
_SLOW_TESTS = 12  # of the designs that take a tenth of a second each

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


def _judge(sandbox: Sandbox) -> Callable[[list[Program]], None]:
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


class _ForkServer:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _FORK_SERVER],
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


def measure(programs: int) -> dict[str, float]:
    """Executions per second of each design with 10 tests a program and with 1, and the ratios that
    the sandbox is held to."""
    ensure_image()
    fork_server, docker_exec = _ForkServer(), _DockerExec()
    started = time.monotonic()
    with Sandbox("docker") as docker, Sandbox("unsafe-process") as process:
        start_s = time.monotonic() - started
        fast = {"fork_server": fork_server, "docker": _judge(docker), "process": _judge(process)}
        rates: dict[str, list[float]] = {}
        for round_ in range(_ROUNDS):
            for tests in (10, 1):
                batch = _programs(max(1, programs // _ROUNDS), tests, round_)
                for name, run in fast.items():
                    rates.setdefault(f"{name}_{tests}_tests", []).append(_rate(run, batch))
            batch = _programs(_SLOW_TESTS // _ROUNDS, 1, round_)
            for name, run in (("bare_process", _bare_process), ("docker_exec", docker_exec)):
                rates.setdefault(name, []).append(_rate(run, batch))
    fork_server.close()
    docker_exec.close()
    figures = {name: statistics.median(values) for name, values in rates.items()}
    for tests in (10, 1):
        limit = figures[f"fork_server_{tests}_tests"]
        for name in ("docker", "process"):
            figures[f"{name}_of_fork_server_{tests}_tests"] = (
                figures[f"{name}_{tests}_tests"] / limit
            )
    figures["docker_of_docker_exec"] = figures["docker_10_tests"] / figures["docker_exec"]
    figures["start_s"] = start_s
    return figures


def _rate(run: Callable[[list[Program]], None], programs: list[Program]) -> float:
    started = time.perf_counter()
    run(programs)
    return sum(len(program.tests) for program in programs) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description="Test executions per second of the sandbox.")
    parser.add_argument("--programs", type=int, default=100, help="programs (default: 100)")
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
