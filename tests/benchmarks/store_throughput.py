"""How fast parts are written and read through the store, against plain pyarrow.

python -m tests.benchmarks.store_throughput [--json]

Plain pyarrow writes the same table to an Arrow IPC file (zstd), syncs it, renames it, syncs the
folder, and reads it back; the store also checksums, describes and verifies it. Both in turns, on
the same disk, medians of rounds. `records` adds the way between Python records and tables, which
plain pyarrow's `Table.from_pylist` and `to_pylist` of the same rows stand against.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from pipeline.part_file import read_table, write_part
from pipeline.records import FinishReason, PolicyVersion, Solution
from pipeline.schemas import SOLUTION
from pipeline.store import StageStore

ROWS, ROUNDS = 4_000, 7


def solutions(count: int) -> list[Solution]:
    words = random.Random(0)
    vocabulary = ["def ", "return ", "for ", "x", "y", " = ", "(", ")", "\n    ", "0", "1", "range"]
    version = PolicyVersion(
        "some/model", '{"temperature":1.0}', "chain_of_functions-0123456789abcdef"
    )
    made: list[Solution] = []
    for index in range(count):
        code = "".join(words.choices(vocabulary, k=400))
        made.append(
            Solution(f"{words.getrandbits(64):016x}", f"p{index // 8:07d}", version, index % 8,
                     f"```python\n{code}\n```", code, FinishReason.STOP, 900, 400, 0, 0.0)
        )  # fmt: skip
    return made


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def write_plain(path: Path, table: pa.Table) -> None:
    temporary = path.with_suffix(".partial")
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with (
        temporary.open("wb") as file,
        pa.ipc.new_file(file, table.schema, options=options) as writer,
    ):
        writer.write_table(table)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # else the new name need not survive a crash
    finally:
        os.close(folder)


def read_plain(path: Path) -> pa.Table:
    with path.open("rb") as file:
        return pa.ipc.open_file(pa.BufferReader(file.read())).read_all()


def measure(place: Path) -> dict[str, float]:
    rows = solutions(ROWS)
    table = SOLUTION.to_table(rows)
    stage = StageStore(str(place), "solutions", "f00d", SOLUTION)
    plain, stored = place / "plain.arrow", stage.path(0)
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "write": (
            lambda: write_plain(plain, table),
            lambda: write_part(stored, table, SOLUTION, {}),
        ),
        "read": (lambda: read_plain(plain), lambda: read_table(stored, SOLUTION)),
        "write_records": (
            lambda: write_plain(
                plain, pa.Table.from_pylist([_plain(row) for row in rows], schema=table.schema)
            ),
            lambda: stage.write(0, rows),
        ),
        "read_records": (lambda: _records(read_plain(plain)), lambda: stage.read(0)),
    }
    figures: dict[str, float] = {"rows": ROWS, "mb": round(table.nbytes / 1e6, 2)}
    for name, (ours_not, ours) in pairs.items():
        took: tuple[list[float], list[float]] = [], []
        for _ in range(ROUNDS):
            took[0].append(seconds(ours_not))
            took[1].append(seconds(ours))
        reference, store = (statistics.median(times) for times in took)
        figures[f"{name}_rows_per_s"] = round(ROWS / store)
        figures[f"{name}_mb_per_s"] = round(table.nbytes / 1e6 / store, 1)
        figures[f"{name}_ratio_to_pyarrow"] = round(reference / store, 2)
    return figures


def _plain(row: Solution) -> dict[str, object]:
    """What anybody would write by hand for this one record."""
    fields = {name: getattr(row, name) for name in Solution.__slots__}
    policy = {name: getattr(row.policy, name) for name in PolicyVersion.__slots__}
    return fields | {"policy": policy, "finish_reason": row.finish_reason.value}


def _records(table: pa.Table) -> list[Solution]:
    return [
        Solution(
            **row
            | {
                "policy": PolicyVersion(**row["policy"]),
                "finish_reason": FinishReason(row["finish_reason"]),
            }
        )
        for row in table.to_pylist()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        figures = measure(Path(place))
    if chosen.json:
        print(json.dumps({"benchmark": "store_throughput"} | figures))
        return
    for name, value in figures.items():
        print(f"{name:36} {value:>12,}")


if __name__ == "__main__":
    main()
