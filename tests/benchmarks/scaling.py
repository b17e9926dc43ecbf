"""How the flow's rate grows with nodes, while the work is latency.

python -m tests.benchmarks.scaling [--nodes 1,2,4,8] [--json]

Nodes are simulated on one machine (ray.cluster_utils.Cluster, CPUs and slots set by hand), one
policy actor and one sandbox actor on each. The policy waits for its answers and computes nothing,
like an API: what a node adds is another part that is waited for. All nodes' own work, Ray's and the
flow's, runs on this machine's cores, some 100 ms a part; so the wait must be long enough that it
fits beside: with 8 nodes, 4 parts each, and 8 s a part, 4 parts end per second, which takes less
than half of a core. A shorter wait would measure the cores of this machine and not the flow.

The rate is that of the parts that end after each node's first three rounds of parts, for actors
start before, and before the last round, in which less and less is in flight. Efficiency at n nodes
is their rate over n times the rate of one node.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from pipeline.config import PoolConfig
from tests import scripted_run, waiting_work

PROBLEMS_PER_PART, SAMPLES = 8, 16
ROWS_PER_PART = PROBLEMS_PER_PART * SAMPLES
PARTS_IN_FLIGHT = 4  # of one actor
WARM_UP, MEASURED, LAST = 3, 5, 1  # rounds of parts in flight


def rows_per_s(nodes: int, place: Path) -> float:
    """The rate of a cluster of `nodes`, when all of its actors work."""
    pool = PoolConfig(min_size=nodes, max_size=nodes, cpus=1.0, parts_in_flight=PARTS_IN_FLIGHT)
    config = scripted_run.config(
        place, samples=SAMPLES, problems_per_part=PROBLEMS_PER_PART, pool=pool
    )
    sandbox = config.sandbox.model_copy(update={"slots": nodes})
    config = config.model_copy(update={"sandbox": sandbox})
    at_once = nodes * PARTS_IN_FLIGHT
    parts = (WARM_UP + MEASURED + LAST) * at_once
    plan, roles = waiting_work.lay(config, parts, PROBLEMS_PER_PART)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, resources={"docker": 1})
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        waiting_work.run(plan, roles)
    finally:
        ray.shutdown()
        cluster.shutdown()
    ended = sorted(Path(plan.verdicts.path(part)).stat().st_mtime for part in roles)
    measured = ended[WARM_UP * at_once - 1 : -LAST * at_once]
    return (len(measured) - 1) * ROWS_PER_PART / (measured[-1] - measured[0])


def measure(nodes: list[int]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for count in nodes:
        with tempfile.TemporaryDirectory() as place:
            rate = rows_per_s(count, Path(place) / "run")
        figures[f"rows_per_s_{count}"] = round(rate, 1)
        alone = figures[f"rows_per_s_{nodes[0]}"] / nodes[0]
        figures[f"efficiency_{count}"] = round(rate / count / alone, 3)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", default="1,2,4,8", help="simulated, ascending [1,2,4,8]")
    parser.add_argument("--answer-s", default="8", help="seconds that a part's answers take [8]")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    chosen = parser.parse_args()
    os.environ["ANSWER_S"], os.environ["JUDGE_S"] = chosen.answer_s, "0.05"
    figures = measure([int(count) for count in chosen.nodes.split(",")])
    if chosen.json:
        print(json.dumps({"benchmark": "scaling"} | figures))
        return
    for name, value in figures.items():
        print(f"{name:16} {value:>10,}")


if __name__ == "__main__":
    main()
