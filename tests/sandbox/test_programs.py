"""Right programs are accepted however they read and write; the others get the verdict they have
earned, and leave nothing behind."""

import pytest

from sandbox import Limits, Program, Sandbox, Status, TestCase
from sandbox.container import ContainerTransport
from tests.sandbox.programs import CASES, EXPECTED, STDIN, Case


def program(case: Case) -> Program:
    """Short of time only where running out of it is the point."""
    limits = Limits(cpu_s=0.5 if case.status is Status.TLE else 4.0)
    return Program(case.code, (TestCase(stdin=STDIN, expected=EXPECTED),), limits=limits)


def directories(sandbox: Sandbox) -> list[str]:
    """What is left in the sandbox's writable directory, read from outside the judge."""
    transport = sandbox._transport
    assert isinstance(transport, ContainerTransport)
    listing = transport._container.exec_run(["ls", "/box"], user="0")
    return listing.output.decode().split()


@pytest.mark.docker
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_in_a_container_each_program_gets_its_verdict_and_the_next_is_unharmed(
    docker_sandbox: Sandbox, case: Case
) -> None:
    verdict = docker_sandbox.judge(program(case))
    assert verdict.status is case.status, verdict
    assert docker_sandbox.is_healthy()
    assert verdict.isolation == "docker"


@pytest.mark.docker
def test_programs_that_litter_leave_an_empty_directory(docker_sandbox: Sandbox) -> None:
    littering = [case for case in CASES if case.name in ("files_left_behind", "locked_maze")]
    for case in littering:
        assert docker_sandbox.judge(program(case)).status is Status.AC
        # The next test's own directory stands ready.
        assert len(directories(docker_sandbox)) <= 1


@pytest.mark.parametrize(
    "case", [case for case in CASES if not case.needs_docker], ids=lambda case: case.name
)
def test_as_a_process_each_program_gets_the_same_verdict(
    process_sandbox: Sandbox, case: Case
) -> None:
    verdict = process_sandbox.judge(program(case))
    assert verdict.status is case.status, verdict
    assert verdict.isolation == "none"
    assert process_sandbox.is_healthy()
