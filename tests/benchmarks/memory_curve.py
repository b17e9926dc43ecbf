"""What a stage over a million rows takes of memory, while its first half is faster than its second.

python -m tests.benchmarks.memory_curve [--rows 1000000] [--out DIR] [--json]

`flow.sample` over light rows: the policy answers at once, the sandbox takes its time, so finished
parts pile up between them. They pile up in the store: what waits in Ray is a part's number. Over
the run are sampled: the resident memory of the driver and of all workers together, the bytes in
Ray's object stores, and how many parts the producer is ahead. Prints a table of 12 moments and
draws all of them to `memory_curve.png` in --out ($OUT where that is set, else a temporary folder).

The driver keeps, for each part and not for each row, what its footer says, and its task's row in
Ray Data; its growth per part is printed. MB are 10^6 bytes.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import ray

from pipeline.config import PoolConfig
from pipeline.plan import Plan
from pipeline.store import part_files
from tests import scripted_run, waiting_work

PROBLEMS_PER_PART, SAMPLES = 16, 64
ROWS_PER_PART = PROBLEMS_PER_PART * SAMPLES
CONSUMERS = 2
EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Moment:
    seconds: float
    driver_mb: float
    workers_mb: float
    object_store_mb: float
    produced: int  # parts
    consumed: int


class Sampler:
    """Looks every second, from a thread of the driver."""

    def __init__(self, plan: Plan) -> None:
        self.moments: list[Moment] = []
        self._plan, self._started = plan, time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sampler")

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped.set()
        self._thread.join()
        self.moments.append(self._look())

    def _watch(self) -> None:
        while not self._stopped.wait(EVERY_S):
            self.moments.append(self._look())

    def _look(self) -> Moment:
        driver = psutil.Process()
        total, left = ray.cluster_resources(), ray.available_resources()
        stored = total["object_store_memory"] - left.get("object_store_memory", 0.0)
        return Moment(
            time.monotonic() - self._started,
            driver.memory_info().rss / 1e6,
            sum(map(_worker_bytes, driver.children(recursive=True))) / 1e6,
            stored / 1e6,
            _parts_in(self._plan.solutions.directory),
            _parts_in(self._plan.verdicts.directory),
        )


def _parts_in(directory: str) -> int:
    with os.scandir(directory) as entries:
        return len(part_files({entry.name: None for entry in entries}))


def _worker_bytes(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss if process.name().startswith("ray::") else 0
    except psutil.NoSuchProcess:
        return 0


def measure(rows: int) -> list[Moment]:
    parts = -(-rows // ROWS_PER_PART)
    with tempfile.TemporaryDirectory() as place:
        config = scripted_run.config(
            Path(place), samples=SAMPLES, problems_per_part=PROBLEMS_PER_PART,
            pool=PoolConfig(cpus=0.1),
        )  # fmt: skip
        sandbox = config.sandbox.model_copy(update={"slots": CONSUMERS})
        config = config.model_copy(update={"sandbox": sandbox})
        plan, roles = waiting_work.lay(config, parts, PROBLEMS_PER_PART)
        for stage in (plan.solutions, plan.verdicts):
            Path(stage.directory).mkdir(parents=True)
        ray.init(address="local", resources={"docker": CONSUMERS}, include_dashboard=False,
                 logging_level="ERROR", log_to_driver=False)  # fmt: skip
        with Sampler(plan) as sampler:
            waiting_work.run(plan, roles)
        ray.shutdown()
    return sampler.moments


def figures_of(moments: list[Moment]) -> dict[str, float]:
    """Growth is between the moments at which a fifth and all of the parts were consumed: before,
    actors start and libraries are loaded."""
    parts = moments[-1].consumed
    settled = next(moment for moment in moments if moment.consumed >= parts / 5)
    last = moments[-1]
    grown_kb = (last.driver_mb - settled.driver_mb) * 1e3
    return {
        "rows": parts * ROWS_PER_PART,
        "parts": parts,
        "seconds": round(last.seconds, 1),
        "driver_mb_at_a_fifth": round(settled.driver_mb, 1),
        "driver_mb_at_the_end": round(last.driver_mb, 1),
        "driver_mb_peak": round(max(moment.driver_mb for moment in moments), 1),
        "driver_kb_per_part": round(grown_kb / max(parts - settled.consumed, 1), 2),
        "workers_mb_peak": round(max(moment.workers_mb for moment in moments), 1),
        "object_store_mb_peak": round(max(moment.object_store_mb for moment in moments), 2),
        "parts_ahead_peak": max(moment.produced - moment.consumed for moment in moments),
    }


def draw(moments: list[Moment], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (memory, ahead) = plt.subplots(2, 1, sharex=True, figsize=(7, 5))
    seconds = [moment.seconds for moment in moments]
    memory.plot(seconds, [moment.driver_mb for moment in moments], label="driver")
    memory.plot(seconds, [moment.workers_mb for moment in moments], label="workers, together")
    memory.plot(seconds, [moment.object_store_mb for moment in moments], label="object store")
    memory.set_ylabel("MB")
    memory.set_ylim(bottom=0)
    memory.legend()
    rows = [moment.consumed * ROWS_PER_PART / 1e6 for moment in moments]
    made = [moment.produced * ROWS_PER_PART / 1e6 for moment in moments]
    ahead.plot(seconds, made, label="sampled")
    ahead.plot(seconds, rows, label="judged")
    ahead.set_ylabel("million rows")
    ahead.set_xlabel("seconds")
    ahead.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def table_of(moments: list[Moment]) -> str:
    lines = [f"{'s':>6} {'driver MB':>10} {'workers MB':>11} {'objects MB':>11} "
             f"{'sampled':>10} {'judged':>10}"]  # fmt: skip
    step = max(1, len(moments) // 12)
    lines += [
        f"{m.seconds:6.0f} {m.driver_mb:10.1f} {m.workers_mb:11.1f} {m.object_store_mb:11.2f} "
        f"{m.produced * ROWS_PER_PART:10,} {m.consumed * ROWS_PER_PART:10,}"
        for m in [*moments[:-1:step], moments[-1]]
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="of solutions [1000000]")
    parser.add_argument("--judge-s", default="0.2", help="seconds that a part is judged for [0.2]")
    parser.add_argument("--out", type=Path, help="folder of the picture [$OUT or a temporary one]")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    chosen = parser.parse_args()
    os.environ["ANSWER_S"], os.environ["JUDGE_S"] = "0", chosen.judge_s
    out = chosen.out or Path(os.environ.get("OUT") or tempfile.mkdtemp(prefix="memory-curve-"))
    out.mkdir(parents=True, exist_ok=True)
    moments = measure(chosen.rows)
    figures = figures_of(moments)
    draw(moments, out / "memory_curve.png")
    if chosen.json:
        print(json.dumps({"benchmark": "memory_curve"} | figures))
        return
    print(table_of(moments))
    for name, value in figures.items():
        print(f"{name:22} {value:>12,}")
    print(out / "memory_curve.png")


if __name__ == "__main__":
    main()
