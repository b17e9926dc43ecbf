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
    holder = {"host": "elsewhere", "pid": 1, "since": long_ago, "renewed": long_ago}
    (tmp_path / "lock.json").write_text(json.dumps(holder))
    with stage_lock(str(tmp_path)):
        pass


def test_a_released_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    with stage_lock(str(tmp_path)):
        pass
    assert list(tmp_path.iterdir()) == []
