"""What a job is told of a cluster of several nodes that it joins."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import ray

from pipeline import cluster as joining
from pipeline.cluster import Cluster, Workers
from pipeline.rounds import StageFailed
from tests.scripted_run import Told, config
from tests.soak import Nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("on_nodes")]

WITH_DISKS = Workers("training workers", {"disks": 1.0}, 2)


@contextmanager
def node_that_sees_another_folder(nodes: Nodes, root: Path) -> Iterator[None]:
    """A node in a mount namespace of its own, with an empty file system where the root is."""
    command = [
        "unshare", "--map-root-user", "--mount",
        "bash", "-c", f'mount -t tmpfs none {root} && exec "$@"', "bash",
        sys.executable, "-m", "ray.scripts.scripts", "start", "--block",
        f"--address={nodes.address}", "--num-cpus=1",
    ]  # fmt: skip
    before = len(ray.nodes())

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)

    node = start()
    lives = 5  # Ray gives a node 30 s to start, whatever else the machine does
    try:
        while len(ray.nodes()) == before:
            if node.poll() is not None:
                lives -= 1
                assert lives, "no node starts"
                node = start()
            time.sleep(0.2)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGTERM)
        node.wait()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_is_waited_for_is_told_at_once_and_again_until_it_is_there(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "_LOOK_S", 0.2)
    monkeypatch.setattr(joining, "_AGAIN_S", 1.0)
    told = Told()
    with Cluster(config(tmp_path), told) as cluster:
        cluster.join(WITH_DISKS)
        assert len(told.notes) == 1
        assert "room for 2 training workers with 1 disks each" in told.notes[0]
        started = time.monotonic()
        with cluster.telling_of_lacks():
            until(lambda: len(told.notes) > 2)
            assert set(told.notes) == {told.notes[0]}
            assert len(told.notes) <= 1 + time.monotonic() - started
            node = nodes.join(disks=2.0)
            until(lambda: told.notes[-1] == "the cluster has room for this stage now")
            notes = len(told.notes)
            cluster.join(WITH_DISKS)
            assert len(told.notes) == notes
    nodes.kill(node)


def test_a_root_that_is_another_folder_on_some_node_is_refused(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "_NODE_ANSWERS_S", 300.0)
    root = tmp_path / "store"
    root.mkdir()
    chosen = config(tmp_path).model_copy(update={"root": str(root)})
    with Cluster(chosen, Told()) as cluster:
        cluster.join()  # all nodes see it
        unseen = pytest.raises(StageFailed, match=f"root {root} is not the same folder on 1 of")
        with node_that_sees_another_folder(nodes, root), unseen:
            cluster.join()
        with Cluster(chosen, Told(), root="s3://bucket/prefix") as cluster:
            cluster.join()  # nothing to look for
