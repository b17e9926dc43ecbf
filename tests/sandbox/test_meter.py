"""What a container's memory counts for: the present program, and not those before it."""

import pytest

from sandbox import Program, Sandbox, Status, TestCase

# Every name that is looked up and not found is kept by the kernel, at the cgroup's expense.
_FILL_THE_KERNEL = """
import os
name = 'x' * 200
for i in range(90_000):
    try: os.stat(f'/{i}{name}')
    except OSError: pass
print(1)"""
_HONEST = """
import time
memory = b'1' * (25 << 20)
end = time.monotonic() + 0.3
while time.monotonic() < end: pass
print(1)"""


@pytest.mark.docker
def test_what_the_kernel_keeps_of_a_program_is_not_held_against_the_next(
    docker_engine: None,
) -> None:
    tests = (TestCase(stdin="", expected="1"),)
    with Sandbox() as sandbox:
        first = sandbox._transport
        for serial in range(2):
            fill = Program(_FILL_THE_KERNEL + f"  # {serial}", tests)
            assert sandbox.judge(fill).status is Status.AC
            honest = sandbox.judge(Program(_HONEST, tests))
            assert honest.status is Status.AC, honest
            if serial == 0:
                assert sandbox._transport is not first, "the container was not given up"
        assert sandbox.is_healthy()
