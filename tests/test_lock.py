"""Two drivers never work on one stage; a dead one's lock is taken over."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.lock import STALE_AFTER_S, StageLocked, stage_lock

HOLD = """
import sys, time
from pipeline.lock import stage_lock
with stage_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other_driver(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_driver_is_told_who_holds_the_stage(
    tmp_path: Path, other_driver: subprocess.Popen[str]
) -> None:
    with (
        pytest.raises(StageLocked, match=f"pid {other_driver.pid}, since"),
        stage_lock(str(tmp_path)),
    ):
        pass


def test_a_killed_driver_leaves_a_lock_that_is_taken_over(
    tmp_path: Path, other_driver: subprocess.Popen[str]
) -> None:
    other_driver.send_signal(signal.SIGKILL)
    other_driver.wait()
    with stage_lock(str(tmp_path)):
        assert json.loads((tmp_path / "lock.json").read_text())["pid"] == os.getpid()


def test_a_lock_of_another_host_is_stale_without_heartbeats(tmp_path: Path) -> None:
    long_ago = time.time() - STALE_AFTER_S - 1
    holder = {"host": "elsewhere", "pid": 1, "token": "t", "since": long_ago, "renewed": long_ago}
    (tmp_path / "lock.json").write_text(json.dumps(holder))
    with stage_lock(str(tmp_path)):
        pass


def test_a_released_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    with stage_lock(str(tmp_path)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_of_drivers_that_start_at_once_one_holds_the_stage(tmp_path: Path) -> None:
    script = HOLD.replace("time.sleep(60)", "time.sleep(1)")
    script = "import time; time.sleep(max(0, " + str(time.time() + 3) + " - time.time()))" + script
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    outputs = [driver.communicate(timeout=60) for driver in drivers]
    assert sum(output == "held\n" for output, _ in outputs) == 1
    assert sum("StageLocked" in error for _, error in outputs) == 3


def test_a_lock_that_was_taken_over_is_not_released_by_its_first_holder(tmp_path: Path) -> None:
    with stage_lock(str(tmp_path)):
        lock = tmp_path / "lock.json"
        holder = json.loads(lock.read_text())
        lock.write_text(json.dumps(holder | {"token": "another", "pid": os.getppid()}))
    assert json.loads(lock.read_text())["token"] == "another"
