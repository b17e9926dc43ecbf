"""What running a finished job again costs, over a million rows in the store.

python -m tests.benchmarks.resume_overhead [--rows 1000000] [--json]

The store is filled with finished parts; then the job's stages `sample` and `label` are run, each
time in a process of its own: once when nothing is known of the parts, so that each is read and
checked, and once more. Beside it, how long a local Ray takes to start: a job that has nothing to do
starts none. Seconds; imports are counted apart.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.finished_store import PROBLEMS_PER_PART, ROWS_PER_PART, SAMPLES, fill

_AGAIN = f"""
import json, sys, time
from pathlib import Path
started = time.perf_counter()
import jobs.run, pipeline.flow
from tests import scripted_run
imported = time.perf_counter()
config = scripted_run.config(
    Path(sys.argv[1]), samples={SAMPLES}, problems_per_part={PROBLEMS_PER_PART}
)
scripted_run.go(config)
import ray
assert not ray.is_initialized(), "there was nothing to do"
print(json.dumps([imported - started, time.perf_counter() - imported]))
"""
_RAY = """
import json, time
import ray
started = time.perf_counter()
ray.init(address="local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
print(json.dumps([0, time.perf_counter() - started]))
"""


def in_a_process(script: str, *arguments: str) -> tuple[float, float]:
    """Seconds of imports and of work."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imports, work = json.loads(done.stdout.splitlines()[-1])
    return imports, work


def measure(rows: int) -> dict[str, float]:
    parts = -(-rows // ROWS_PER_PART)
    with tempfile.TemporaryDirectory() as place:
        started = time.perf_counter()
        fill(Path(place), parts)
        filled = time.perf_counter() - started
        imports, first = in_a_process(_AGAIN, place)
        _, again = in_a_process(_AGAIN, place)
    _, ray_start = in_a_process(_RAY)
    return {
        "rows": parts * ROWS_PER_PART,
        "parts": parts * 6,
        "fill_s": round(filled, 1),
        "import_s": round(imports, 2),
        "first_rerun_s": round(first, 2),
        "noop_rerun_s": round(again, 2),
        "ray_start_s": round(ray_start, 2),
        "noop_rerun_minus_ray_start_s": round(again - ray_start, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="in the store [1000000]")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    chosen = parser.parse_args()
    figures = measure(chosen.rows)
    if chosen.json:
        print(json.dumps({"benchmark": "resume_overhead"} | figures))
        return
    for name, value in figures.items():
        print(f"{name:30} {value:>12,}")


if __name__ == "__main__":
    main()
