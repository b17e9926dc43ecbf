"""What a container's memory counts for: the present program, and not those before it; and what the
meter reads of a cgroup, in the form of either version."""

from pathlib import Path

import pytest

from sandbox import Program, Sandbox, Status, TestCase
from sandbox.meter import Meter

MIB = 1 << 20
VERSIONS = ("v1", "v2")


class Cgroup:
    """The files that the kernel shows of a cgroup, in a folder."""

    def __init__(self, folder: Path, version: str) -> None:
        self._folder = folder
        self._version = version
        self.write(used_mb=20, file_mb=5, cpu_s=1.5, ooms=1)

    def write(self, *, used_mb: int, file_mb: int, cpu_s: float, ooms: int) -> None:
        usage, cache = f"{used_mb * MIB}\n", file_mb * MIB
        files = f"inactive_file {cache // 5 * 4}\nactive_file {cache - cache // 5 * 4}\n"
        if self._version == "v2":
            self._put("memory.current", usage)
            self._put("memory.events", f"low 0\nhigh 0\nmax 7\noom {ooms}\noom_kill {ooms}\n")
            self._put("memory.stat", f"anon 4096\nfile 8192\n{files}unevictable 0\n")
            self._put("cpu.stat", f"usage_usec {cpu_s * 1e6:.0f}\nuser_usec 1\nsystem_usec 2\n")
            return
        self._put("memory/memory.usage_in_bytes", usage)
        oom = f"oom_kill_disable 0\nunder_oom 0\noom_kill {ooms}\n"
        self._put("memory/memory.oom_control", oom)
        total = files.replace("inactive", "total_inactive").replace("\nactive", "\ntotal_active")
        self._put("memory/memory.stat", f"cache 8192\n{files}unevictable 0\n{total}")
        self._put("cpuacct/cpuacct.usage", f"{cpu_s * 1e9:.0f}\n")

    def _put(self, name: str, text: str) -> None:
        """In place: the meter keeps its files open."""
        path = self._folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("version", VERSIONS)
def test_either_version_of_cgroups_tells_memory_time_and_kills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr("sandbox.meter._CGROUP", str(tmp_path))
    cgroup = Cgroup(tmp_path, version)
    meter = Meter(has_own_cgroup=True)
    assert (meter.memory_mb(), meter.cpu_s(), meter.ooms()) == (0, 1.5, 1)

    cgroup.write(used_mb=60, file_mb=15, cpu_s=2.25, ooms=3)
    assert meter.memory_mb() == 30  # 40 more, of which 10 are files that the kernel can drop
    assert (meter.cpu_s(), meter.ooms()) == (2.25, 3)
    assert not meter.has_grown()
    meter.rest()
    assert meter.memory_mb() == 0

    cgroup.write(used_mb=80, file_mb=0, cpu_s=2.25, ooms=3)
    assert meter.memory_mb() == 35
    assert meter.has_grown()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_cgroup_that_is_not_the_sandbox_s_alone_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr("sandbox.meter._CGROUP", str(tmp_path))
    Cgroup(tmp_path, version)
    meter = Meter(has_own_cgroup=False)
    assert (meter.memory_mb(), meter.cpu_s(), meter.ooms()) == (0, 0, 0)
    assert not meter.has_grown()


def test_the_root_of_cgroups_v2_is_the_machine_s_and_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.meter._CGROUP", str(tmp_path))
    Cgroup(tmp_path, "v2")
    (tmp_path / "memory.current").unlink()  # the kernel shows none there
    meter = Meter(has_own_cgroup=True)
    assert (meter.memory_mb(), meter.cpu_s(), meter.ooms()) == (0, 0, 0)


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
