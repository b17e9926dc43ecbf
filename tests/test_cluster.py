"""What a stage needs, held against the nodes there are."""

import pytest

from pipeline.cluster import Cluster, Workers, lacking
from pipeline.rounds import StageFailed
from tests.scripted_run import Told, config

BIG, SMALL = {"CPU": 8.0, "GPU": 2.0}, {"CPU": 4.0}
TRAINING = {"CPU": 2.0, "GPU": 1.0}


@pytest.mark.parametrize(
    ("count", "nodes"),
    [
        (1, [BIG]),
        (2, [BIG]),
        (4, [BIG, SMALL, BIG]),
    ],
)
def test_workers_that_fit_on_the_nodes_lack_nothing(
    count: int, nodes: list[dict[str, float]]
) -> None:
    assert lacking([Workers("training workers", TRAINING, count)], nodes) == []


@pytest.mark.parametrize(
    ("count", "nodes"),
    [
        (1, []),
        (1, [SMALL]),  # no GPU
        (3, [BIG]),  # two GPUs
        (1, [{"CPU": 1.0}, {"GPU": 1.0}]),  # a worker is on one node
        (2, [{"CPU": 3.0, "GPU": 2.0}, SMALL]),  # CPUs of another node do not count
    ],
)
def test_workers_without_room_are_named(count: int, nodes: list[dict[str, float]]) -> None:
    need = Workers("training workers", TRAINING, count)
    assert lacking([need], nodes) == [need]


def test_a_worker_that_asks_for_nothing_fits_anywhere() -> None:
    assert lacking([Workers("policy worker", {"CPU": 0.0, "GPU": 0.0})], [SMALL]) == []


def test_each_kind_is_looked_at_by_itself() -> None:
    sandboxes, policy = Workers("sandbox worker", {"docker": 1}), Workers("policy worker", TRAINING)
    assert lacking([policy, sandboxes], [BIG]) == [sandboxes]


@pytest.mark.slow
def test_a_local_cluster_that_is_too_small_is_refused_with_what_is_there(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    told = Told()
    with Cluster(config(tmp_path), told) as cluster:
        cluster.join(Workers("policy worker", {"CPU": 1.0}), Workers("sandbox", {"docker": 1}))
        with pytest.raises(StageFailed, match="needs 1 policy worker with 1 CPU, 512 GPU"):
            cluster.join(Workers("policy worker", {"CPU": 1.0, "GPU": 512.0}))
    assert told.notes == []
