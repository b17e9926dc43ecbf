"""What is forked for a test: an interpreter in huge pages, by calls that Python has no function
for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import Program, Sandbox, Status, TestCase

_THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def in_a_process_of_its_own(code: str) -> list[str]:
    """The lines that it prints: both modules change the process that uses them."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.splitlines()


def test_code_moves_to_huge_pages_and_goes_on_working() -> None:
    moved, left, in_huge_pages, result = in_a_process_of_its_own("""
import re
from sandbox import hugepages
print(hugepages.move_code())
print(hugepages.move_code())
rollup = open("/proc/self/smaps_rollup").read()
print(int(re.search(r"AnonHugePages: *(\\d+) kB", rollup)[1]) << 10)
import ast, decimal, sqlite3, subprocess, threading
thread = threading.Thread(target=ast.parse, args=("f(x)[0] + 1",))
thread.start(), thread.join()
print(decimal.Decimal(1) / 8, subprocess.check_output(["echo", "forked"], text=True).strip())
""")
    assert result == "0.125 forked"
    assert left == "0"  # nothing is moved twice
    assert int(moved) <= int(in_huge_pages)
    if "[never]" not in (_THP.read_text() if _THP.exists() else "[never]"):
        assert int(moved) > 0


def test_code_stays_where_no_huge_page_is_to_be_had() -> None:
    moved, result = in_a_process_of_its_own("""
import ctypes
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE
from sandbox import hugepages
print(hugepages.move_code())
print(sum(map(int, "20 22".split())))
""")
    assert (moved, result) == ("0", "42")


def test_what_is_no_code_stays_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(b"x" * (8 << 20))
    code = f"""
import ctypes, mmap, os
from sandbox import hugepages
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *3 * (ctypes.c_int,), ctypes.c_long)
file = os.open({str(file)!r}, os.O_RDONLY)
for protection in (0, mmap.PROT_READ, 0):  # libraries have gaps that nobody may read, too
    libc.mmap(None, 8 << 20, protection, mmap.MAP_PRIVATE, file, 0)
hugepages.move_code()
print([line.split()[1] for line in open("/proc/self/maps") if line.endswith("/data\\n")])
"""
    assert in_a_process_of_its_own(code) == ["['---p', 'r--p', '---p']"]


def test_a_fork_is_waited_for_and_accounted() -> None:
    status, cpu_s, peak_mb, grown_mb = in_a_process_of_its_own("""
import os, time
from sandbox import linux
pid = linux.fork()
if pid == 0:
    ballast = bytearray(64 << 20)
    while time.process_time() < 0.2:
        pass
    os._exit(7)
ended = linux.Ended.read(linux.wait(pid))
small = linux.fork()
if small == 0:
    os.kill(os.getpid(), linux.SIGKILL)
killed = linux.Ended.read(linux.wait(small))
assert os.WTERMSIG(killed.status) == 9
for figure in (os.waitstatus_to_exitcode(ended.status), ended.cpu_s, ended.peak_mb):
    print(figure)
print(ended.peak_mb - killed.peak_mb)
""")
    assert status == "7"
    assert 0.2 <= float(cpu_s) < 1
    assert float(peak_mb) > 64
    assert 60 < float(grown_mb) < 90


def test_a_process_stays_on_its_cpu_until_it_may_roam() -> None:
    alike, one, child = in_a_process_of_its_own("""
import os
from sandbox import linux
before = os.sched_getaffinity(0)
linux.stay()
stayed = os.sched_getaffinity(0)
if linux.fork() == 0:
    linux.roam()
    print(os.sched_getaffinity(0) == before, flush=True)
    os._exit(0)
os.wait()
print(len(stayed) == 1 and stayed <= before)
linux.roam()
print(os.sched_getaffinity(0) == before)
""")
    assert (alike, one, child) == ("True", "True", "True")


def test_every_test_may_use_all_cpus(process_sandbox: Sandbox) -> None:
    cpus = f"{len(os.sched_getaffinity(0))}\n"
    code = "import os\nprint(len(os.sched_getaffinity(0)))"
    call = "import os\ndef f(x): return len(os.sched_getaffinity(0))"
    for count in (1, 2):
        tests = count * (TestCase(stdin="", expected=cpus),)
        assert process_sandbox.judge(Program(code, tests)).status is Status.AC
        calls = count * (TestCase(args="[0]", expected=cpus),)
        verdict = process_sandbox.judge(Program(call, calls, entry_point="f"))
        assert verdict.status is Status.AC, verdict


def test_a_fork_that_the_limit_forbids_is_an_error() -> None:
    lines = in_a_process_of_its_own("""
import os, resource
from sandbox import linux
os.setresuid(64_999, 64_999, 64_999)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
try:
    linux.fork()
except OSError as error:
    print(error)
""")
    assert lines == ["cannot fork"]


@pytest.mark.docker
def test_memory_that_runs_out_takes_the_test_and_not_its_stem(docker_sandbox: Sandbox) -> None:
    code = """
import os, time
time.sleep(0.1)
for pid in (os.getpid(), os.getppid()):
    print(open(f"/proc/{pid}/oom_score_adj").read().strip())
"""
    for count in (1, 2):  # without a stem of its own, and with one
        tests = count * (TestCase(stdin="", expected="1000\n0\n"),)
        verdict = docker_sandbox.judge(Program(code, tests))
        assert verdict.status is Status.AC, verdict


def test_a_program_forks_with_the_hooks_of_its_modules(process_sandbox: Sandbox) -> None:
    code = """
import os, random
random.seed(1)
undisturbed = random.Random(1).random()
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, repr(random.random()).encode())
    os._exit(0)
os.wait()
print(float(os.read(read, 99)) == undisturbed, random.random() == undisturbed)
"""
    for count in (1, 2):
        tests = count * (TestCase(stdin="", expected="False True\n"),)
        verdict = process_sandbox.judge(Program(code, tests))
        assert verdict.status is Status.AC, verdict
