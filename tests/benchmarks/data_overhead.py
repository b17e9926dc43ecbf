"""What Ray Data and the store's book-keeping add to each row, over a plain loop.

python -m tests.benchmarks.data_overhead [--parts 120] [--json]

The work is joining examples, 128 rows per task: the cheapest stage, so nothing hides the overhead.
The plain loop reads the inputs of each part, joins them and writes the part, in one process. The
flow makes the same parts in one actor; what it takes to start is measured with a single part and
taken off. In a run, the stages before have been looked at when they were made; here that is done
before, and told apart: reading every input part whole and checking it. Microseconds per row;
`driver_cpu` is processor time of the driver, Ray Data's and the flow's, which other load on the
machine does not change much.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import ray

from pipeline import flow
from pipeline.cluster import Cluster
from pipeline.plan import Plan
from pipeline.quarantine import Slice
from pipeline.records import Role
from pipeline.survey import missing_parts
from pipeline.workers import JoinParts
from tests.finished_store import PROBLEMS_PER_PART, SAMPLES, fill
from tests.scripted_run import Told

ROWS_PER_TASK = PROBLEMS_PER_PART * SAMPLES


def remove_examples(plan: Plan) -> None:
    for path in Path(plan.examples.directory).glob("part-*"):
        path.unlink()


def plain_loop(plan: Plan, roles: dict[int, Role]) -> float:
    worker = JoinParts(plan, roles)
    started = time.perf_counter()
    for part in roles:
        plan.examples.write(part, worker.examples(Slice(part)))
    return time.perf_counter() - started


def through_the_flow(plan: Plan, roles: dict[int, Role]) -> float:
    started = time.perf_counter()
    with Cluster(plan.config, Told()) as cluster:
        flow.label(cluster, plan, roles, Told())
    return time.perf_counter() - started


def measure(parts: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as place:
        plan = fill(Path(place), parts, examples=False)
        roles = dict.fromkeys(range(parts), Role.TRAIN)
        plain = plain_loop(plan, roles)
        remove_examples(plan)
        ray.init(address="local", resources={"docker": 1}, include_dashboard=False,
                 logging_level="ERROR", log_to_driver=False)  # fmt: skip
        through_the_flow(plan, {0: Role.TRAIN})  # the first time, Ray imports and forks
        remove_examples(plan)
        start = through_the_flow(plan, {0: Role.TRAIN})
        remove_examples(plan)
        looked = time.perf_counter()
        for stage in plan.examples.inputs:
            missing_parts(stage, list(roles))
        missing_parts(plan.completions, list(roles))
        looked = time.perf_counter() - looked
        cpu = time.process_time()
        whole = through_the_flow(plan, roles)
        cpu = time.process_time() - cpu
        ray.shutdown()
    rows = parts * ROWS_PER_TASK
    return {
        "rows": rows,
        "rows_per_task": ROWS_PER_TASK,
        "plain_us_per_row": round(plain / rows * 1e6, 1),
        "flow_us_per_row": round((whole - start) / (rows - ROWS_PER_TASK) * 1e6, 1),
        "added_us_per_row": round(
            ((whole - start) / (rows - ROWS_PER_TASK) - plain / rows) * 1e6, 1
        ),
        "driver_cpu_us_per_row": round(cpu / rows * 1e6, 1),
        "first_look_us_per_row": round(looked / rows * 1e6, 1),
        "flow_start_s": round(start, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", type=int, default=120, help="tasks of 128 rows [120]")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    chosen = parser.parse_args()
    figures = measure(chosen.parts)
    if chosen.json:
        print(json.dumps({"benchmark": "data_overhead"} | figures))
        return
    for name, value in figures.items():
        print(f"{name:24} {value:>12,}")


if __name__ == "__main__":
    main()
