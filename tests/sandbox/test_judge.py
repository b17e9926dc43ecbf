"""What a caller of `Sandbox` can rely on."""

import asyncio
import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import docker.errors
import pytest

from sandbox import (
    Comparator,
    Limits,
    Program,
    Sandbox,
    SandboxUnavailable,
    Status,
    TestCase,
    Verdict,
)
from sandbox.actor import SandboxActor
from sandbox.container import OWNER_LABEL, ContainerTransport, connect, remove_orphans
from sandbox.process import remove_orphans as remove_orphaned_boxes
from sandbox.protocol import MIN_MEMORY_MB

SUM = "print(sum(map(int, input().split())))"


def stdin_tests(*pairs: tuple[str, str]) -> tuple[TestCase, ...]:
    return tuple(TestCase(stdin=stdin, expected=expected) for stdin, expected in pairs)


def call(code: str, entry_point: str, args: str, expected: str, **more: str) -> Program:
    return Program(code, (TestCase(args=args, expected=expected, **more),), entry_point=entry_point)


def test_tests_stop_at_the_first_failure(process_sandbox: Sandbox) -> None:
    tests = stdin_tests(("1 2", "3"), ("1 2", "4"), ("1 2", "3"))
    verdict = process_sandbox.judge(Program(SUM, tests))
    assert (verdict.tests_passed, verdict.tests_run, verdict.tests_total) == (1, 2, 3)
    assert verdict.first_failure == 1
    assert verdict.detail == "line 1: expected '4', got '3'"


def test_an_exception_is_shown_with_its_line(process_sandbox: Sandbox) -> None:
    verdict = process_sandbox.judge(Program("x = 1\nprint(x / 0)", stdin_tests(("", "1"))))
    assert verdict.status is Status.RE
    assert verdict.detail == "line 2: ZeroDivisionError: division by zero"


def test_equal_programs_run_once_and_answers_keep_their_order(process_sandbox: Sandbox) -> None:
    tests = stdin_tests(("1 2", "3"))
    right, wrong = Program(SUM, tests), Program("print(0)", tests)
    verdicts = process_sandbox.judge_all([right, wrong, Program(SUM, tests), wrong])
    assert [verdict.status for verdict in verdicts] == ["AC", "WA", "AC", "WA"]
    assert verdicts[0] is verdicts[2]


def test_the_same_program_gets_the_same_verdict_whatever_its_hash_order(
    process_sandbox: Sandbox,
) -> None:
    outputs = set()
    for attempt in range(3):
        with Sandbox("unsafe-process") as fresh:
            code = f"print(*{{'a', 'b', 'c', 'd'}})  # {attempt}"
            outputs.add(fresh.judge(Program(code, stdin_tests(("", "")))).detail)
    assert len(outputs) == 1


@pytest.mark.parametrize(
    ("code", "entry_point", "args", "expected", "status"),
    [
        ("def f(a, b): return a + b", "f", "[1, 2]", "3", Status.AC),
        ("class Solution:\n    def f(self, a: list[int]): return max(a)", "Solution().f", "[[1,9]]",
         "9", Status.AC),
        ("def f(s): return sorted(s)", "f", "({3, 1},)", "[1, 3]", Status.AC),
        ("def f(a): return (a, a)", "f", "[1]", "[1, 1]", Status.AC),
        ("def f(a):\n    print('noise' * 10**5)\n    return a", "f", "[1]", "1", Status.AC),
        ("def f(a): return {1: a}", "f", "['x']", "{1: 'x'}", Status.AC),
        ("def f(a): return a + 1", "f", "[1]", "3", Status.WA),
        ("def f(a): return None", "f", "[1]", "3", Status.WA),
        ("def f(a):\n    import os\n    os._exit(0)", "f", "[1]", "3", Status.WA),
        ("def f(a): exit()", "f", "[1]", "3", Status.WA),
        ("class E:\n    def __eq__(self, o): return True\ndef f(a): return E()", "f", "[1]", "3",
         Status.RE),
        ("class E(int):\n    def __eq__(self, o): return True\ndef f(a): return E(4)", "f", "[1]",
         "3", Status.WA),
        ("def f(a): return a.x", "f", "[1]", "3", Status.RE),
        ("def f(a):\n    a.append(a)\n    return a", "f", "[[1]]", "[1]", Status.RE),
        ("def f(): return 3", "f", "[1]", "3", Status.RE),
        ("def g(a): return 3", "f", "[1]", "3", Status.CE),
        ("class Solution: pass", "Solution().f", "[1]", "3", Status.CE),
    ],
)  # fmt: skip
def test_a_call_is_judged_by_what_it_returns(
    process_sandbox: Sandbox,
    code: str,
    entry_point: str,
    args: str,
    expected: str,
    status: Status,
) -> None:
    verdict = process_sandbox.judge(call(code, entry_point, args, expected))
    assert verdict.status is status, verdict


def test_keyword_arguments_are_passed(process_sandbox: Sandbox) -> None:
    program = call("def f(a, *, b): return a - b", "f", "[5]", "3", kwargs='{"b": 2}')
    assert process_sandbox.judge(program).status is Status.AC


def test_large_inputs_and_arguments_arrive_whole(process_sandbox: Sandbox) -> None:
    numbers = list(range(300_000))
    total = str(sum(numbers))
    by_call = call("def f(a): return sum(a)", "f", str([numbers]), total)
    by_stdin = Program(SUM, stdin_tests((" ".join(map(str, numbers)), total)))
    ignored = Program("print(1)", stdin_tests(("x" * 10_000_000, "1")))
    statuses = [v.status for v in process_sandbox.judge_all([by_call, by_stdin, ignored])]
    assert statuses == [Status.AC] * 3


def test_a_large_right_output_is_no_flood(process_sandbox: Sandbox) -> None:
    expected = "\n".join(map(str, range(200_000)))
    program = Program("print(*range(200000), sep='\\n')", stdin_tests(("", expected)))
    assert process_sandbox.judge(program).status is Status.AC


def test_the_comparator_is_obeyed_and_named(process_sandbox: Sandbox) -> None:
    tests = stdin_tests(("", "1\n"))
    verdict = process_sandbox.judge(Program("print(1.0)", tests, comparator=Comparator.STRICT))
    assert (verdict.status, verdict.comparator) == (Status.WA, Comparator.STRICT)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (Program("x", ()), "without tests cannot be judged"),
        (Program("x", stdin_tests(("", "")), entry_point="f"), r"tests\[0\].*entry point"),
        (call("x", "f", "[1", "1"), r"tests\[0\]: neither strict JSON"),
        (call("x", "f", "1", "1"), r"tests\[0\]: args: a list"),
        (call("x", "f", "[1]", "one"), r"tests\[0\]: neither strict JSON"),
        (call("x", "f", "[" * 900 + "]" * 900, "1"), r"tests\[0\]: nested too deeply"),
    ],
)
def test_a_program_that_cannot_be_judged_is_refused_by_name(
    process_sandbox: Sandbox, program: Program, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        process_sandbox.judge(program)


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), 1e300])
def test_a_time_limit_that_no_clock_can_keep_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"limits\.cpu_s: seconds above 0, at most 100,000"):
        Limits(cpu_s=seconds)


@pytest.mark.parametrize("mebibytes", [0, -1, 15, 10**14])
def test_a_memory_limit_that_no_machine_has_or_no_python_keeps_is_refused(mebibytes: int) -> None:
    with pytest.raises(ValueError, match=r"limits\.memory_mb: MiB from 16, .* to 1,048,576"):
        Limits(memory_mb=mebibytes)


def test_under_the_smallest_memory_limit_a_program_still_runs(process_sandbox: Sandbox) -> None:
    limits = Limits(memory_mb=MIN_MEMORY_MB)
    program = Program("print(1)", stdin_tests(("", "1")), limits=limits)
    assert process_sandbox.judge(program).status is Status.AC


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_total_that_no_program_can_keep_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"limits\.total_s: seconds above 0"):
        Limits(total_s=seconds)


def test_tests_that_each_keep_their_limit_may_take_too_long_together(
    process_sandbox: Sandbox,
) -> None:
    code = "import time\nwhile time.process_time() < 0.1: pass\nprint(input())"
    tests = stdin_tests(*((str(n), str(n)) for n in range(9)))
    verdict = process_sandbox.judge(Program(code, tests, limits=Limits(total_s=0.25)))
    assert verdict.status is Status.TLE
    assert verdict.detail.startswith("all tests together: over 0.25 s (0.")
    assert 1 <= verdict.tests_passed == verdict.first_failure < 8  # the rest is not run
    assert verdict.cpu_s > 0.25
    assert process_sandbox.judge(Program(code, tests)).status is Status.AC


def test_no_program_of_a_hundred_tests_can_exceed_the_total_by_default() -> None:
    assert Limits(cpu_s=3.0).program_cpu_s == 100 * 3.0
    assert Limits(cpu_s=3.0, total_s=5.0).program_cpu_s == 5.0


def test_a_sandbox_tells_which_python_programs_run_on(process_sandbox: Sandbox) -> None:
    told = process_sandbox.interpreter()
    assert told.startswith(
        f"CPython {platform.python_version()}, numpy {metadata.version('numpy')}"
    )
    assert process_sandbox.interpreter() == told


@pytest.mark.docker
def test_a_container_tells_the_python_of_its_image(docker_sandbox: Sandbox) -> None:
    container = docker_sandbox._transport
    assert isinstance(container, ContainerTransport)
    ask = "import numpy, sys; print(sys.version.split()[0] + ', numpy', numpy.__version__)"
    seen = connect().containers.get(container.container_id).exec_run(["python3", "-c", ask])
    assert docker_sandbox.interpreter().startswith("CPython " + seen.output.decode().strip())


def test_judging_does_not_block_an_event_loop(process_sandbox: Sandbox) -> None:
    async def judge() -> tuple[Status, int]:
        program = Program("import time\ntime.sleep(0.2)\nprint(3)", stdin_tests(("", "3")))
        judging = asyncio.create_task(process_sandbox.judge_async(program))
        ticks = 0
        while not judging.done():
            await asyncio.sleep(0.02)
            ticks += 1
        return judging.result().status, ticks

    status, ticks = asyncio.run(judge())
    assert status is Status.AC
    assert ticks > 3


def test_without_an_engine_the_socket_and_the_mend_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with pytest.raises(SandboxUnavailable, match=r"/nonexistent/docker\.sock.*Start one"):
        Sandbox("docker")


def test_an_actor_proves_its_slot_and_ends_it() -> None:
    actor = SandboxActor(isolation="unsafe-process")
    assert actor.judge(Program(SUM, stdin_tests(("1 2", "3")))).status is Status.AC
    actor.close()
    actor.close()


@pytest.mark.docker
def test_without_the_image_the_mend_is_named(docker_engine: None) -> None:
    with pytest.raises(SandboxUnavailable, match=r"python -m sandbox\.image"):
        Sandbox("docker", image="no-such-image")


@pytest.mark.docker
def test_a_container_killed_mid_run_costs_no_verdict(docker_engine: None) -> None:
    with Sandbox() as sandbox:
        slow = Program("import time\ntime.sleep(1)\nprint(3)", stdin_tests(("", "3"), ("", "3")))

        async def kill_it_while_judging() -> Status:
            judging = asyncio.create_task(sandbox.judge_async(slow))
            await asyncio.sleep(0.5)
            assert isinstance(sandbox._transport, ContainerTransport)
            connect().containers.get(sandbox._transport.container_id).kill()
            return (await judging).status

        assert asyncio.run(kill_it_while_judging()) is Status.AC
        assert sandbox.is_healthy()


@pytest.mark.docker
def test_a_sandbox_that_keeps_dying_says_infra_and_blames_no_program(docker_engine: None) -> None:
    slow = Program("import time\ntime.sleep(30)", stdin_tests(("", "")), limits=Limits(30))
    client = connect()
    with Sandbox() as sandbox:

        async def kill_every_container() -> Verdict:
            judging = asyncio.create_task(sandbox.judge_async(slow))
            while not judging.done():
                await asyncio.sleep(0.3)
                if isinstance(sandbox._transport, ContainerTransport):
                    with contextlib.suppress(docker.errors.APIError):  # it is starting or ending
                        client.containers.get(sandbox._transport.container_id).kill()
            return await judging

        verdict = asyncio.run(kill_every_container())
        assert (verdict.status, verdict.first_failure) == (Status.INFRA, None)
        assert sandbox.is_healthy()
    client.close()


@pytest.mark.docker
def test_a_sleeper_is_tried_again_in_a_fresh_container(docker_engine: None) -> None:
    with Sandbox() as sandbox:
        assert isinstance(sandbox._transport, ContainerTransport)
        first = sandbox._transport.container_id
        sleeper = Program("import time\ntime.sleep(60)", stdin_tests(("", "")), limits=Limits(0.1))
        assert sandbox.judge(sleeper).status is Status.TLE
        assert isinstance(sandbox._transport, ContainerTransport)
        assert sandbox._transport.container_id != first


@pytest.mark.docker
def test_a_killed_owner_leaves_no_container_behind(docker_engine: None) -> None:
    """The end of its input ends a container by itself; a frozen one is removed by its label."""
    client = connect()
    script = (
        "from sandbox import Sandbox; import time\n"
        "s = Sandbox(); print(s._transport.container_id, flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    container = client.containers.get(owner.stdout.readline().strip())
    assert OWNER_LABEL in container.labels
    remove_orphans(client)
    container.reload()
    assert container.status == "running"  # its owner lives

    container.pause()
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    remove_orphans(client)
    deadline = time.monotonic() + 10
    while any(c.id == container.id for c in client.containers.list(all=True)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    client.close()


def test_a_killed_owner_leaves_no_folder_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next sandbox that starts removes it, and nothing that is in use or somebody else's."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "unsafe-sandbox-of-my-own").mkdir()
    script = (
        "from sandbox import Sandbox; import time\n"
        "s = Sandbox('unsafe-process'); print(s._transport._box, flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert owner.stdout is not None
    box = Path(owner.stdout.readline().strip())
    (box / "left").write_text("")
    with Sandbox("unsafe-process") as sandbox:
        assert box.exists()  # its owner lives
        owner.kill()
        owner.wait()
        remove_orphaned_boxes()
        assert not box.exists()
        assert sandbox.is_healthy()
    assert [path.name for path in tmp_path.iterdir()] == ["unsafe-sandbox-of-my-own"]
