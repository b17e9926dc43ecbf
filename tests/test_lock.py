"""Two drivers never work on one stage; a dead one's lock is taken over."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from pipeline.lock import STALE_AFTER_S, StageLocked, stage_lock
from sandbox.owner import this_process

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
    wait = "print('ready', flush=True); sys.stdin.readline()\nwith"
    script = HOLD.replace("with", wait).replace("time.sleep(60)", "time.sleep(3)")
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    for driver in drivers:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "ready\n"
    for driver in drivers:
        assert driver.stdin is not None
        driver.stdin.write("\n")
        driver.stdin.flush()
    outputs = [driver.communicate(timeout=60) for driver in drivers]
    assert sum(output == "held\n" for output, _ in outputs) == 1
    assert sum("StageLocked" in error for _, error in outputs) == 3


def seize(directory: Path) -> None:
    """Another driver, on another machine, takes the lock over."""
    now = time.time()
    holder = {"host": "elsewhere", "pid": 7, "token": "another", "since": now, "renewed": now}
    (directory / "lock.json").write_text(json.dumps(holder))


def work_on(directory: Path) -> None:
    """Hold the stage until another driver has it."""
    with stage_lock(str(directory)) as lock:
        lock.check()
        seize(directory)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            lock.check()
            time.sleep(0.05)
        pytest.fail("nobody told it")


def fail_on(directory: Path) -> None:
    with stage_lock(str(directory)):
        seize(directory)
        raise ValueError("the work")


def test_a_lock_that_was_taken_over_is_not_released_by_its_first_holder(tmp_path: Path) -> None:
    with pytest.raises(StageLocked, match="host elsewhere, pid 7"), stage_lock(str(tmp_path)):
        seize(tmp_path)
    assert json.loads((tmp_path / "lock.json").read_text())["token"] == "another"


def test_a_driver_whose_lock_is_taken_over_learns_of_it_while_it_works(tmp_path: Path) -> None:
    with pytest.raises(StageLocked, match="elsewhere, pid 7"):
        work_on(tmp_path)


def test_an_error_of_the_work_is_told_rather_than_that_the_lock_was_lost(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the work"):
        fail_on(tmp_path)


def _holder(owner: str) -> str:
    """A lock that was renewed just now, by a pid that is not seen here."""
    now = time.time()
    seen = {"host": socket.gethostname(), "pid": 2**22 + 5, "token": "t", "since": now}
    return json.dumps(seen | {"renewed": now, "owner": owner})


@pytest.mark.parametrize("place", ["another pid namespace", "another machine", "unknown"])
def test_a_pid_that_is_not_seen_here_is_dead_only_if_it_would_be_seen(
    tmp_path: Path, place: str
) -> None:
    boot_id, namespace, *_ = this_process().split("/")
    owner = {
        "another pid namespace": f"{boot_id}/pid:[1]/{2**22 + 5}/1",
        "another machine": f"a-copy-of-it/{namespace}/{2**22 + 5}/1",
        "unknown": "",
    }[place]
    (tmp_path / "lock.json").write_text(_holder(owner))
    with pytest.raises(StageLocked, match="another driver is working"), stage_lock(str(tmp_path)):
        pass


def test_a_pid_that_belongs_to_another_process_by_now_is_dead(tmp_path: Path) -> None:
    here, pid, started = this_process().rsplit("/", 2)
    (tmp_path / "lock.json").write_text(_holder(f"{here}/{pid}/{int(started) - 1}"))
    with stage_lock(str(tmp_path)):
        pass


class SlowlyWritten(LocalFileSystem):
    """A store, such as one behind a slow line, where a file takes a second to appear."""

    protocol = "slowly"
    is_writing = threading.Event()

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return super()._strip_protocol("/" + path.removeprefix("slowly://").lstrip("/"))

    def _open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        if "w" in mode:
            self.is_writing.set()
            time.sleep(1.0)
        return super()._open(path, mode, *args, **kwargs)


def test_of_two_drivers_one_of_which_writes_slowly_one_works_in_the_end(tmp_path: Path) -> None:
    fsspec.register_implementation("slowly", SlowlyWritten, clobber=True)
    held: list[str] = []
    refused: list[str] = []
    done = threading.Event()

    def drive(name: str, directory: str) -> None:
        try:
            with stage_lock(directory) as lock:
                held.append(name)
                while not done.wait(0.05):
                    lock.check()
        except StageLocked:
            refused.append(name)

    drivers = [
        threading.Thread(target=drive, args=("slow", f"slowly:/{tmp_path}")),
        threading.Thread(target=drive, args=("quick", str(tmp_path))),
    ]
    drivers[0].start()
    assert SlowlyWritten.is_writing.wait(60)  # and has seen that nobody is at work
    drivers[1].start()
    deadline = time.monotonic() + 60
    while "slow" not in held and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        assert "slow" in held  # it wrote last
        assert refused == ["quick"]  # and had been told when the other began
    finally:
        done.set()
        for driver in drivers:
            driver.join()
