"""What a slot does besides judging: it replaces its container without making anyone wait, throws
away what ran ahead of a failure, and shares its work with other slots."""

import asyncio
import os
import subprocess
import sys
import time

import pytest

from sandbox import Limits, Program, Sandbox, SandboxPool, Status, TestCase

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
        expected = spare.result(timeout=60)
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
