"""Right programs are accepted however they read and write; hostile ones get the verdict they have
earned, leave nothing behind, and do the next program no harm."""

import re
import threading

import pytest

from sandbox import Program, Sandbox, Status, TestCase
from tests.sandbox.hostile import ENTRIES, Category, Entry
from tests.sandbox.hostile.trial import Court


@pytest.fixture(scope="module")
def court(docker_sandbox: Sandbox) -> Court:
    return Court(docker_sandbox)


@pytest.mark.docker
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_a_program_gets_its_verdict_and_leaves_its_slot_empty_and_sound(
    court: Court, entry: Entry
) -> None:
    trial = court.try_(entry)
    assert trial.verdict.status is entry.status, trial.verdict
    assert entry.why in trial.verdict.detail
    assert trial.verdict.isolation == "docker"
    assert trial.is_canary_accepted
    assert trial.remains == ()


@pytest.mark.parametrize(
    "entry", [entry for entry in ENTRIES if not entry.is_for_docker], ids=lambda entry: entry.name
)
def test_as_a_mere_process_an_honest_or_mistaken_program_gets_the_same_verdict(
    process_sandbox: Sandbox, entry: Entry
) -> None:
    verdict = process_sandbox.judge(entry.program)
    assert verdict.status is entry.status, verdict
    assert entry.why in verdict.detail
    assert verdict.isolation == "none"


def test_the_suite_covers_every_kind_of_attack_under_distinct_names() -> None:
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES) >= 180
    for category in Category:
        assert sum(entry.category is category for entry in ENTRIES) >= 15


# A word that only the other program, or the other test, knows; the searcher cannot spell it.
_SECRET = "zs" + "7c0d5e1b"
_SEARCH = """
import ctypes, re
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self is its own
found = set()
with open('/proc/self/maps') as maps, open('/proc/self/mem', 'rb', 0) as memory:
    for line in maps:
        start, end = (int(x, 16) for x in line.split()[0].split('-'))
        try:
            memory.seek(start)
            found.update(re.findall(rb'zs[0-9a-f]{8}', memory.read(end - start)))
        except (OSError, ValueError, OverflowError):
            pass
print(*(word.decode() for word in found))
"""


def said(sandbox: Sandbox, code: str, stdin: str = "") -> str:
    """What a program prints, by way of the difference to an answer that nobody gives."""
    verdict = sandbox.judge(Program(code, (TestCase(stdin=stdin, expected="?"),)))
    assert verdict.status is Status.WA, verdict
    found = re.fullmatch(r"line 1: expected '\?', got '(.*)'", verdict.detail)
    assert found, verdict
    return found[1]


@pytest.mark.docker
def test_a_program_finds_nothing_of_the_one_before_it_in_its_memory(
    docker_sandbox: Sandbox,
) -> None:
    assert said(docker_sandbox, _SEARCH, stdin=_SECRET) == ""  # it has not read its input
    assert said(docker_sandbox, "x = input()\n" + _SEARCH, stdin=_SECRET) == _SECRET
    assert said(docker_sandbox, f"print('{_SECRET}')") == _SECRET
    assert said(docker_sandbox, _SEARCH) == ""


@pytest.mark.docker
def test_slots_of_one_machine_never_share_a_uid_nor_its_quota_of_processes(
    docker_sandbox: Sandbox,
) -> None:
    who = "import os\nprint(os.getuid())"
    with Sandbox() as other:
        uids = {int(said(slot, who)) for slot in (docker_sandbox, other) for _ in range(10)}
    assert len(uids) == 20
    assert min(uids) >= 1 << 16  # no user of the host


@pytest.mark.docker
def test_a_slot_accepts_right_programs_while_a_neighbour_is_under_attack(
    docker_sandbox: Sandbox,
) -> None:
    attacks = [e for e in ENTRIES if e.name in ("fork_bomb", "memory_across_forks", "full_disk")]
    threads = (
        "from concurrent.futures import ThreadPoolExecutor as P\nprint(*P(8).map(int, '1234'))"
    )
    with Sandbox() as neighbour:
        attacking = threading.Thread(
            target=neighbour.judge_all, args=([entry.program for entry in attacks],)
        )
        attacking.start()
        judged = 0
        while attacking.is_alive() or judged == 0:
            assert said(docker_sandbox, threads) == "1 2 3 4"
            judged += 1
        attacking.join()
