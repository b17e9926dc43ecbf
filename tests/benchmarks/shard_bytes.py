"""What a row takes on disk, and a part in the driver's memory: what `jobs.estimate` plans with.

    python -m tests.benchmarks.shard_bytes [--json]

The rows are o1-mini's 880 recorded answers to LiveCodeBench: each a solution, its verdict and its
example, and one completion and one rollout from the middle of its program on, where half of it is
left as on average over its prefixes. Rows of one part share little here, one answer to each problem
and one ending of each prefix, so that they compress worse than those of a run: these are upper
bounds. Bytes are those of the part files, zstd and footer included, over their rows.

The driver holds what each part's footer says, for as long as a stage runs: measured by tracemalloc
on a stage of 20,000 parts.
"""

import argparse
import gzip
import json
import sys
import tempfile
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.functions import split_steps
from pipeline.part_file import describe_part, serialise
from pipeline.records import (
    Completion,
    Example,
    FinishReason,
    PolicyVersion,
    ProgramVerdict,
    Role,
    Rollout,
    Solution,
    content_hash,
)
from pipeline.schemas import COMPLETION, EXAMPLE, PROGRAM_VERDICT, ROLLOUT, SOLUTION, RecordSchema
from pipeline.store import StageStore
from pipeline.survey import Survey
from sandbox.protocol import Comparator, Isolation, Status, Verdict

RECORDED = Path(__file__).parents[3] / "shared/data/livecodebench-o1-mini.jsonl.gz"
ROWS_PER_PART = 128  # 8 solutions of each of 16 problems
PARTS = 20_000
_POLICY = PolicyVersion("o4-mini", '{"reasoning_effort": "high"}', "1")


def measure() -> dict[str, float]:
    """Bytes by what takes them. Raises FileNotFoundError without the recorded answers."""
    with gzip.open(RECORDED, "rt") as lines:
        recorded = [json.loads(line) for line in lines]
    solutions: list[Solution] = []
    verdicts: list[ProgramVerdict] = []
    completions: list[Completion] = []
    rollouts: list[Rollout] = []
    examples: list[Example] = []
    stop = FinishReason.STOP
    verdict = Verdict(
        Status.AC, 30, 30, 30, None, "", 1.25, 1.5, 17.25, Isolation.DOCKER, Comparator.LCB
    )
    for row in recorded:
        problem_id, text, code = row["question_id"], row["output_list"][0], row["code_list"][0]
        key = content_hash(problem_id)
        solutions.append(
            Solution(key, problem_id, _POLICY, 0, text, code, stop, 700, 9000, 8000, 0.04)
        )
        verdicts.append(ProgramVerdict(key, problem_id, verdict))
        steps = split_steps(code)
        examples.append(
            Example(
                solution_id=key,
                problem_id=problem_id,
                role=Role.TRAIN,
                difficulty=row["difficulty"],
                problem=row["question_content"],
                code=code,
                step_ends=tuple(step.end for step in steps),
                step_ids=tuple(content_hash(key, step.start) for step in steps),
                passed=tuple(3 for _ in steps),
                trials=tuple(16 for _ in steps),
                step_truth=None,
                final_label=True,
            )
        )
        lines = code.splitlines(keepends=True)
        rest = "".join(lines[len(lines) // 2 :])
        completions.append(Completion(key, 0, problem_id, _POLICY, rest, code, stop, 700, 350, 0.0))
        rollouts.append(Rollout(key, 0, rest, code, stop, 350, Status.AC))
    return {
        "programs": len(recorded),
        "solution_bytes": _bytes_per_row(SOLUTION, solutions),
        "verdict_bytes": _bytes_per_row(PROGRAM_VERDICT, verdicts),
        "example_bytes": _bytes_per_row(EXAMPLE, examples),
        "completion_bytes": _bytes_per_row(COMPLETION, completions),
        "rollout_bytes": _bytes_per_row(ROLLOUT, rollouts),
        "driver_bytes_per_part": _driver_bytes_per_part(rollouts[:64]),
    }


def _bytes_per_row(schema: RecordSchema[Any], rows: Sequence[Any]) -> float:
    total = 0
    for at in range(0, len(rows), ROWS_PER_PART):
        table = schema.to_table(rows[at : at + ROWS_PER_PART])
        total += len(serialise(table, describe_part(table, schema, {}, ())))
    return total / len(rows)


def _driver_bytes_per_part(rows: Sequence[Rollout]) -> float:
    table = ROLLOUT.to_table(rows)
    inputs = {"problems": "0" * 16, "completions": "0" * 16}
    footer = describe_part(table, ROLLOUT, inputs, ()).to_json()
    with tempfile.TemporaryDirectory() as root:
        stage = StageStore(root, "rollouts", "f00d", ROLLOUT)
        Path(stage.directory).mkdir(parents=True)
        parts = {
            index: [12_345, 1_700_000_000_000_000_000 + index, footer] for index in range(PARTS)
        }
        note = {"format": 1, "parts": parts}
        Path(stage.directory, "survey.json").write_text(json.dumps(note))
        tracemalloc.start()
        survey = Survey(stage)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(survey._known) == PARTS  # the file was understood
    return held / PARTS


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    chosen = parser.parse_args(arguments)
    try:
        figures = {name: round(value, 2) for name, value in measure().items()}
    except FileNotFoundError as error:
        sys.exit(f"{error.filename}: not here; the recorded answers come with the project's data")
    if chosen.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:24} {value:10,.2f}")


if __name__ == "__main__":
    main()
