"""What a slot does besides judging: it replaces its container without making anyone wait, throws
away what ran ahead of a failure, and shares its work with other slots."""

import asyncio
import os
import resource
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox import (
    Comparator,
    Limits,
    Program,
    Sandbox,
    SandboxPool,
    SandboxUnavailable,
    Status,
    TestCase,
    comparators,
)
from sandbox.container import OWNER_LABEL, connect
from sandbox.process import ProcessTransport
from sandbox.session import CANARY, Session
from sandbox.spare import Supply

ECHO = "print(input())"


def stdin_tests(*pairs: tuple[str, str]) -> tuple[TestCase, ...]:
    return tuple(TestCase(stdin=stdin, expected=expected) for stdin, expected in pairs)


def test_many_tests_are_each_judged_by_their_own_input(process_sandbox: Sandbox) -> None:
    tests = stdin_tests(*((str(number), str(number)) for number in range(30)))
    assert process_sandbox.judge(Program(ECHO, tests)).tests_passed == 30
    wrong = (*tests[:17], TestCase(stdin="17", expected="18"), *tests[18:])
    verdict = process_sandbox.judge(Program(ECHO, wrong))
    assert (verdict.status, verdict.first_failure, verdict.tests_run) == (Status.WA, 17, 18)


def test_what_ran_ahead_of_a_failure_touches_no_later_verdict(process_sandbox: Sandbox) -> None:
    """The test after the failing one sleeps for ever, and is under way when it is called off."""
    code = "x = input()\nif x == 'sleep':\n    import time\n    time.sleep(60)\nprint(x)"
    tests = stdin_tests(("a", "a"), ("b", "wrong"), *[("sleep", "")] * 5)
    right = Program(ECHO, stdin_tests(("1", "1"), ("2", "2")))
    started = time.monotonic()
    for _ in range(5):
        verdict = process_sandbox.judge(Program(code, tests))
        assert (verdict.status, verdict.first_failure) == (Status.WA, 1)
        assert process_sandbox.judge(right).status is Status.AC
    assert time.monotonic() - started < 20


def test_large_outputs_and_programs_pass_each_other_on_the_stream(
    process_sandbox: Sandbox,
) -> None:
    """Each side writes more than a pipe holds while the other does."""
    long = "x" * 3_000_000
    code = f"print(input() * 3_000_000)\n# {long}"
    tests = stdin_tests(("x", long), ("x", "short"), ("x", long), ("x", long))
    for serial in range(3):
        verdict = process_sandbox.judge(Program(code + str(serial), tests))
        assert verdict.status in (Status.WA, Status.OLE)
        assert verdict.first_failure == 1


def test_a_forked_program_draws_other_random_numbers_than_its_parent(
    process_sandbox: Sandbox,
) -> None:
    """As in any Python: the fork hooks of the standard library are there when they are needed."""
    code = (
        "import os, random\nr, w = os.pipe()\n"
        "if os.fork() == 0:\n    os.write(w, str(random.random()).encode())\n    os._exit(0)\n"
        "os.wait()\nprint(os.read(r, 99).decode() == str(random.random()))"
    )
    verdict = process_sandbox.judge(Program(code, stdin_tests(("", "False"))))
    assert verdict.status is Status.AC, verdict


def test_a_slow_program_holds_up_its_own_slot_and_no_other() -> None:
    slow = Program("import time\ntime.sleep(4)\nprint(1)", stdin_tests(("", "1")))
    quick = [Program(f"print({i})", stdin_tests(("", str(i)))) for i in range(5)]

    async def judge(pool: SandboxPool) -> None:
        waiting = asyncio.create_task(pool.judge_async(slow))
        await asyncio.sleep(0.1)
        verdicts = await asyncio.gather(*map(pool.judge_async, quick))
        assert all(verdict.status is Status.AC for verdict in verdicts)
        assert not waiting.done()
        assert (await waiting).status is Status.AC

    with SandboxPool(2, "unsafe-process") as pool:
        asyncio.run(judge(pool))
        assert [v.status for v in pool.judge_all([*quick, quick[0]])] == [Status.AC] * 6


def test_a_pool_without_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="slots: at least 1"):
        SandboxPool(0)


@pytest.mark.docker
def test_a_spare_takes_the_place_of_a_spent_container_at_once(docker_engine: None) -> None:
    leaver = Program("print(input())", stdin_tests(("1", "1")))
    with Sandbox() as sandbox:
        assert sandbox.judge(leaver).status is Status.AC  # from now on there is a spare
        spare = sandbox._supply._spare
        assert spare is not None
        expected = spare[1].result(timeout=60)
        sleeper = Program("import time\ntime.sleep(9)", stdin_tests(("", "")), limits=Limits(0.1))
        assert sandbox.judge(sleeper).status is Status.TLE
        assert sandbox._session is expected
        assert sandbox.is_healthy()


@pytest.mark.docker
def test_a_program_with_a_larger_limit_gets_a_larger_container(docker_engine: None) -> None:
    code = "x = bytearray(400 * 2**20)\nprint(len(x))"
    tests = stdin_tests(("", str(400 * 2**20)))
    with Sandbox() as sandbox:
        assert sandbox.judge(Program(code, tests)).status is Status.MLE
        large = Program(code, tests, limits=Limits(memory_mb=512))
        assert sandbox.judge(large).status is Status.AC
        assert sandbox.judge(Program(code, tests)).status is Status.MLE


def test_a_test_that_waits_for_nothing_but_a_cpu_is_not_late(process_sandbox: Sandbox) -> None:
    """It needs half a second of CPU time and may take three; the machine gives it a ninth."""
    code = "import time\nwhile time.process_time() < 0.5: pass\nprint(1)"
    program = Program(code, stdin_tests(("", "1")), limits=Limits(cpu_s=1.0))
    hogs = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
        for _ in range(8 * (os.cpu_count() or 1))
    ]
    try:
        verdict = process_sandbox.judge(program)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    assert verdict.status is Status.AC, verdict
    assert verdict.wall_s > 3.0, "the machine was not crowded"


def test_a_wrong_answer_stands_though_a_test_sent_ahead_ended_the_runner(
    process_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second test leaves a tree that cannot be removed, so the runner is gone by the time the
    judge has decided the first and calls the rest off."""
    compare = comparators.output_difference

    def slowly(comparator: Comparator, output: bytes, expected: str) -> str | None:
        time.sleep(0.3)
        return compare(comparator, output, expected)

    monkeypatch.setattr(comparators, "output_difference", slowly)
    code = (
        "import os\nx = input()\nprint(x)\n"
        "if x == 'maze':\n    for _ in range(80): os.mkdir('d'); os.chdir('d')"
    )
    program = Program(code, stdin_tests(("a", "wrong"), *[("maze", "")] * 4))
    started = time.monotonic()
    verdict = process_sandbox.judge(program)
    assert (verdict.status, verdict.first_failure, verdict.tests_run) == (Status.WA, 0, 1)
    assert time.monotonic() - started < 2, "it was tried again"
    assert process_sandbox.is_healthy()


def test_a_prelude_shares_the_namespace_but_not_the_first_line(process_sandbox: Sandbox) -> None:
    tests = stdin_tests(("", "True"), ("", "True"), ("", "True"))
    code = "from __future__ import annotations\nx: nowhere = 1\nprint(math.pi > 3)"
    future = Program(code, tests, prelude="import math\n\n")
    assert process_sandbox.judge(future).status is Status.AC
    failing = replace(future, code="print(math.pi > 3)\nprint(1 / 0)")
    assert process_sandbox.judge(failing).detail == "line 2: ZeroDivisionError: division by zero"
    called = TestCase(args="[9]", expected="3.0")
    root = Program("def f(x): return math.sqrt(x)", (called,) * 3, "f", prelude="import math")
    assert process_sandbox.judge(root).status is Status.AC


def test_what_fails_before_the_first_line_is_no_word_on_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The runner takes a limit that the kernel does not: no process can be set up under it."""
    monkeypatch.setattr("sandbox.protocol.MAX_MEMORY_MB", 1 << 60)
    with Sandbox("unsafe-process") as sandbox:
        for tests in (1, 2):
            limits = Limits(memory_mb=100_000_000_000_000)
            program = Program("print(1)", stdin_tests(*[("", "1")] * tests), limits=limits)
            verdict = sandbox.judge(program)
            assert (verdict.status, verdict.first_failure) == (Status.INFRA, None), verdict


def test_closing_ends_what_is_running_and_nothing_starts_again() -> None:
    sandbox = Sandbox("unsafe-process")
    endless = Program("import time\ntime.sleep(60)", stdin_tests(("", "")), limits=Limits(20))

    async def cancel_and_close() -> float:
        judging = asyncio.create_task(asyncio.to_thread(sandbox.judge, endless))
        await asyncio.sleep(0.5)
        started = time.monotonic()
        await asyncio.to_thread(sandbox.close)
        with pytest.raises(SandboxUnavailable, match="closed"):
            await judging
        return time.monotonic() - started

    assert asyncio.run(cancel_and_close()) < 3
    assert sandbox._session is None
    with pytest.raises(SandboxUnavailable, match="closed"):
        sandbox.judge(Program(ECHO, stdin_tests(("1", "1"))))
    assert sandbox._session is None


@pytest.mark.docker
def test_closing_while_a_program_runs_leaves_no_container(docker_engine: None) -> None:
    sandbox = Sandbox()
    me = f"/{os.getpid()}/"
    client = connect()

    def mine() -> set[str]:
        found = client.containers.list(all=True, ignore_removed=True)
        return {str(c.id) for c in found if me in c.labels.get(OWNER_LABEL, "")}

    before = mine() - {str(sandbox._transport.container_id)}  # type: ignore[union-attr]
    endless = Program("import time\ntime.sleep(60)", stdin_tests(("", "")), limits=Limits(20))

    async def close_meanwhile() -> None:
        judging = asyncio.create_task(asyncio.to_thread(sandbox.judge, endless))
        await asyncio.sleep(0.5)
        sandbox.close()
        with pytest.raises(SandboxUnavailable, match="closed"):
            await judging

    asyncio.run(close_meanwhile())
    assert mine() <= before
    client.close()


def test_a_spare_of_another_size_is_not_waited_for() -> None:
    may_start = threading.Event()
    started: list[Session] = []

    def start(memory_mb: int) -> Session:
        if memory_mb == 512:
            may_start.wait(20)
        started.append(Session(ProcessTransport(), memory_mb))
        return started[-1]

    supply = Supply(start, keeps_spare=True)
    supply.prepare(512)
    larger = supply.take(1024)
    assert [session.memory_mb for session in started] == [1024]
    larger.close()
    may_start.set()
    deadline = time.monotonic() + 20
    while len(started) < 2 or not is_ended(started[1]):
        assert time.monotonic() < deadline, "the spare that nobody wants lives on"
        time.sleep(0.02)
    supply.close()
    with pytest.raises(SandboxUnavailable, match="closed"):
        supply.take(512)


def is_ended(session: Session) -> bool:
    assert isinstance(session.transport, ProcessTransport)
    return session.transport._process.returncode is not None


def test_a_slot_that_is_lost_for_good_costs_a_pool_no_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    programs = [Program(f"print({i})", stdin_tests(("", str(i)))) for i in range(12)]
    with SandboxPool(2, "unsafe-process") as pool:
        lost, sound = pool._sandboxes
        lost.close()
        assert [v.status for v in pool.judge_all(programs)] == [Status.AC] * 12
        sound.close()
        with pytest.raises(SandboxUnavailable, match="closed"):
            pool.judge_all(programs)


def test_a_program_that_cannot_be_judged_is_named_before_any_has_run(
    process_sandbox: Sandbox, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    runs = Program(f"open({str(mark)!r}, 'w')", stdin_tests(("", "")))
    with pytest.raises(ValueError, match=r"programs\[1\]: tests: a program without tests"):
        process_sandbox.judge_all([runs, Program("x", ())])
    with (
        SandboxPool(1, "unsafe-process") as pool,
        pytest.raises(ValueError, match=r"programs\[1\]"),
    ):
        pool.judge_all([runs, Program("x", ())])
    assert not mark.exists()


@pytest.mark.parametrize("due", ["_PROVE_EVERY", "_PROVE_AFTER_S"])
def test_a_slot_proves_itself_now_and_then_and_after_a_pause(
    monkeypatch: pytest.MonkeyPatch, due: str
) -> None:
    """A runner that no longer accepts what is right does not get to reject a program."""
    program = Program(ECHO, stdin_tests(("1", "1")))
    with Sandbox("unsafe-process") as sandbox:
        monkeypatch.setattr(f"sandbox.judge.{due}", 1 if due == "_PROVE_EVERY" else 0.2)
        assert sandbox.judge(program).status is Status.AC
        before = sandbox._session
        time.sleep(0.3)
        assert sandbox.judge(program).status is Status.AC
        assert sandbox._session is before
        monkeypatch.setattr("sandbox.session.CANARY", replace(CANARY, code="print(0)"))
        monkeypatch.setattr("sandbox.judge._RESTART_DELAYS_S", ())
        time.sleep(0.3)
        with pytest.raises(SandboxUnavailable, match="rejects a program that is right"):
            sandbox.judge(program)


def test_a_process_with_more_than_a_thousand_open_files_can_judge() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip(f"only {hard} open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        with Sandbox("unsafe-process") as sandbox:
            assert sandbox.is_healthy()
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
