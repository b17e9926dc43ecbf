"""What a slot survives: its container, its engine and its actor are killed for real, mid-program,
and no program is lost or judged twice with different answers."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox import Limits, Program, Sandbox, SandboxUnavailable, Status, TestCase, Verdict
from sandbox.actor import SandboxActor
from sandbox.container import OWNER_LABEL, ContainerTransport, connect
from tests.sandbox.engine import Engine

pytestmark = pytest.mark.docker

# About two seconds, most of it asleep, so that there is a middle in which to strike.
_CODE = "import time\nn = int(input())\ntime.sleep(0.3)\nprint(n if n < {wrong} else 'wrong')"
_TESTS = tuple(TestCase(stdin=f"{n}\n", expected=f"{n}\n") for n in range(6))
_LIMITS = Limits(cpu_s=1.0)
RIGHT = Program(_CODE.format(wrong=9), _TESTS, limits=_LIMITS)
WRONG_IN_THE_FIFTH_TEST = Program(_CODE.format(wrong=4), _TESTS, limits=_LIMITS)


def decision(verdict: Verdict) -> Verdict:
    """A verdict without what is measured."""
    return replace(verdict, cpu_s=0.0, wall_s=0.0, peak_mb=0.0)


def struck(sandbox: Sandbox, program: Program, strike: Callable[[], object]) -> Verdict:
    """The verdict of a program in whose middle something happens to its sandbox."""

    async def judge() -> Verdict:
        judging = asyncio.create_task(sandbox.judge_async(program))
        await asyncio.sleep(0.8)
        assert not judging.done()
        await asyncio.to_thread(strike)
        return await judging

    return asyncio.run(judge())


def container_of(sandbox: Sandbox) -> Any:
    assert isinstance(sandbox._transport, ContainerTransport)
    return sandbox._transport._container


def kill(container: Any) -> None:
    container.kill()


def remove(container: Any) -> None:
    container.remove(force=True)


def stop_its_processes(container: Any) -> None:
    top = container.top()
    column = top["Titles"].index("PID")
    for process in top["Processes"]:
        os.kill(int(process[column]), signal.SIGSTOP)


_COMPILERS_UID = "65532"


def kill_one_process(container: Any, position: int, *, is_compiler: bool = False) -> None:
    top = container.top()
    uid, pid, command = map(top["Titles"].index, ("UID", "PID", "CMD"))
    processes = [
        process
        for process in top["Processes"]
        if process[command].startswith("python3")
        and (process[uid] == _COMPILERS_UID) == is_compiler
    ]
    os.kill(int(processes[position][pid]), signal.SIGKILL)


def kill_the_runner_alone(container: Any) -> None:
    kill_one_process(container, 0)


def kill_the_gate_alone(container: Any) -> None:
    kill_one_process(container, 1)


def kill_the_stem_alone(container: Any) -> None:
    kill_one_process(container, 2)


def kill_the_compiler_alone(container: Any) -> None:
    kill_one_process(container, 0, is_compiler=True)


PARTS = (kill_the_runner_alone, kill_the_gate_alone, kill_the_stem_alone)


@pytest.fixture(scope="module")
def undisturbed(docker_sandbox: Sandbox) -> dict[Program, Verdict]:
    verdicts = docker_sandbox.judge_all([RIGHT, WRONG_IN_THE_FIFTH_TEST])
    assert [verdict.status for verdict in verdicts] == [Status.AC, Status.WA]
    assert verdicts[1].first_failure == 4
    return dict(zip((RIGHT, WRONG_IN_THE_FIFTH_TEST), map(decision, verdicts), strict=True))


@pytest.mark.parametrize("strike", [kill, remove, stop_its_processes, *PARTS])
def test_a_container_lost_mid_program_changes_no_verdict(
    docker_engine: None,
    undisturbed: dict[Program, Verdict],
    strike: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if strike in (stop_its_processes, *PARTS) and os.geteuid() != 0:
        pytest.skip("only root may signal the processes of a container")
    monkeypatch.setattr("sandbox.session._GRACE_S", 1.0)  # of a silent runner
    program = WRONG_IN_THE_FIFTH_TEST if strike is remove else RIGHT
    with Sandbox() as sandbox:
        lost = container_of(sandbox)
        verdict = struck(sandbox, program, lambda: strike(lost))
        assert decision(verdict) == undisturbed[program]
        assert container_of(sandbox).id != lost.id
        assert is_gone(lost.id)
        assert sandbox.is_healthy()


@pytest.mark.parametrize("strike", PARTS)
def test_a_part_that_is_lost_while_nothing_runs_costs_a_container_but_no_verdict(
    docker_engine: None,
    undisturbed: dict[Program, Verdict],
    strike: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may signal the processes of a container")
    monkeypatch.setattr("sandbox.session._GRACE_S", 1.0)  # of a silent runner
    with Sandbox() as sandbox:
        lost = container_of(sandbox)
        strike(lost)
        assert decision(sandbox.judge(RIGHT)) == undisturbed[RIGHT]
        assert container_of(sandbox).id != lost.id


def test_a_lost_compiler_costs_a_container_but_no_verdict(
    docker_engine: None, undisturbed: dict[Program, Verdict]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may signal the processes of a container")
    with Sandbox() as sandbox:
        lost = container_of(sandbox)
        kill_the_compiler_alone(lost)
        for program in (WRONG_IN_THE_FIFTH_TEST, RIGHT):  # the first is compiled where it runs
            assert decision(sandbox.judge(program)) == undisturbed[program]
        assert container_of(sandbox).id != lost.id
        assert is_gone(lost.id)


def test_a_box_that_somebody_else_filled_costs_a_container_but_no_verdict(
    docker_engine: None, undisturbed: dict[Program, Verdict]
) -> None:
    fill = "for i in range(10**6): open(f'/box/{i}', 'wb', 0).write(bytes(1 << 14))"
    with Sandbox() as sandbox:
        container = container_of(sandbox)
        filled = container.exec_run(["python3", "-c", fill], user="0")
        assert b"No space left on device" in filled.output
        assert decision(sandbox.judge(RIGHT)) == undisturbed[RIGHT]
        assert sandbox.is_healthy()
        assert container_of(sandbox).id != container.id


class PidActor(SandboxActor):
    """A slot that tells which process it is."""

    def pid(self) -> int:
        return os.getpid()


@pytest.fixture(scope="module")
def local_ray() -> Iterator[Any]:
    import ray

    ray.init(num_cpus=1, resources={"docker": 2}, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_an_actor_killed_mid_program_is_replaced_and_its_container_ends(
    docker_engine: None, undisturbed: dict[Program, Verdict], local_ray: Any
) -> None:
    options: Any = local_ray.remote(
        num_cpus=0, resources={"docker": 1}, max_restarts=1, max_task_retries=1
    )
    actor = options(PidActor).remote()
    pid = local_ray.get(actor.pid.remote())
    (lost,) = containers_of(pid)
    judging = actor.judge.remote(WRONG_IN_THE_FIFTH_TEST)
    time.sleep(0.8)
    os.kill(pid, signal.SIGKILL)
    verdict = local_ray.get(judging, timeout=60)
    assert decision(verdict) == undisturbed[WRONG_IN_THE_FIFTH_TEST]
    assert local_ray.get(actor.pid.remote()) != pid
    assert is_gone(lost)
    local_ray.kill(actor)


@pytest.mark.slow
def test_an_actor_of_two_slots_judges_two_programs_at_once(local_ray: Any, tmp_path: Path) -> None:
    """Each of two programs ends only once the other runs, so they pass side by side or not at
    all; a third waits for whichever slot is free."""
    code = """
import os, time
open({mine!r}, "w").close()
while not os.path.exists({other!r}): time.sleep(0.01)
print(input())
"""
    places = [str(tmp_path / name) for name in ("a", "b")]
    pair = [
        Program(code.format(mine=mine, other=other), _TESTS[:1])
        for mine, other in (places, reversed(places))
    ]
    third = Program("print(input())", _TESTS[:1])
    actors: Any = local_ray.remote(num_cpus=0, resources={"docker": 2}, max_concurrency=4)
    actor = actors(SandboxActor).remote("unsafe-process", slots=2)
    judging = [actor.judge.remote(program) for program in (*pair, third)]
    verdicts = local_ray.get(judging, timeout=60)
    assert [verdict.status for verdict in verdicts] == [Status.AC] * 3
    assert local_ray.get(actor.interpreter.remote()).startswith("CPython ")
    local_ray.get(actor.close.remote())
    local_ray.kill(actor)


def test_an_engine_killed_mid_program_and_started_again_costs_no_verdict(
    second_engine: Engine, undisturbed: dict[Program, Verdict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", second_engine.url)

    def kill_and_start_again() -> None:
        second_engine.kill()
        second_engine.start()

    with Sandbox() as sandbox:
        verdict = struck(sandbox, RIGHT, kill_and_start_again)
        assert decision(verdict) == undisturbed[RIGHT]
        assert sandbox.is_healthy()


def test_an_engine_that_does_not_come_back_is_named_and_no_verdict_is_made_up(
    second_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", second_engine.url)
    monkeypatch.setattr("sandbox.judge._RESTART_DELAYS_S", (0.1,))
    with Sandbox() as sandbox:
        with pytest.raises(SandboxUnavailable, match="Docker engine"):
            struck(sandbox, RIGHT, second_engine.kill)
        with pytest.raises(SandboxUnavailable, match=str(second_engine.socket)):
            Sandbox()
        second_engine.start()
        assert sandbox.judge(RIGHT).status is Status.AC  # the same slot goes on


@pytest.fixture(scope="module")
def second_engine(
    docker_engine: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """An engine of the tests' own, which they may kill."""
    reason = Engine.why_not()
    if reason is not None:
        pytest.skip(reason)
    with Engine(tmp_path_factory.mktemp("engine")) as engine:
        yield engine


def containers_of(pid: int) -> list[str]:
    client = connect()
    try:
        found = client.containers.list(filters={"label": OWNER_LABEL})
        return [str(c.id) for c in found if c.labels[OWNER_LABEL].split("/")[-2] == str(pid)]
    finally:
        client.close()


def is_gone(container_id: str, patience_s: float = 30.0) -> bool:
    client = connect()
    deadline = time.monotonic() + patience_s
    try:
        while container_id in {c.id for c in client.containers.list(all=True)}:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True
    finally:
        client.close()


def test_without_an_engine_the_socket_that_was_tried_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/dead.sock")
    with pytest.raises(SandboxUnavailable, match=f"{tmp_path}/dead.sock"):
        Sandbox()
