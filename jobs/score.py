"""Score candidate programs with a trained PRM: one forward pass per program, batched by length.

python -m jobs.score --model DIR --examples DIR|FILE... --out DIR
python -m jobs.score --model DIR --problems FILE --programs FILE --out DIR

Candidates are Example shards, or recorded programs (JSON lines with `problem_id`, `code` and
perhaps `program_id`) of a file of problems. Scores are written to DIR/scores/*/part-*.arrow:
`solution_id` and one score in (0, 1) per function. Running it again scores what is missing.
"""

import argparse
import hashlib
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from jobs.command import absolute, carry_out, log_of
from jobs.problem_options import add_problem_options, read_statements
from jobs.submitted import refuse_vanishing
from jobs.terminal import Terminal
from pipeline.examples import problem_text
from pipeline.files import StoreError, exists
from pipeline.folders import local_folder
from pipeline.functions import split_steps
from pipeline.lock import StageLocked, stage_lock
from pipeline.part_file import PartSummary, read_table
from pipeline.prm.data import TrainingDataError, example_files
from pipeline.prm.scoring import Scorer
from pipeline.problems import BadRows, NoProblems, UnknownForm
from pipeline.progress import Observer, Progress
from pipeline.recorded import BadPrograms, read_programs
from pipeline.records import Example, Problem, Role, ScoredSolution, content_hash
from pipeline.schemas import EXAMPLE, SCORED_SOLUTION
from pipeline.settings import ConfigError
from pipeline.store import StageStore, fingerprint

CANDIDATES_PER_PART = 512  # the unit of resume
WORKER_RESTARTS = 3

EXPECTED = (
    BadPrograms, BadRows, ConfigError, NoProblems, StageLocked, StoreError, TrainingDataError,
    UnknownForm, OSError,
)  # fmt: skip
"""Errors whose own words say everything."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Ray actors that score; none: this process does, on `device` (None: the GPU where there is
    one). An actor is on the GPUs that it asked for, or on the CPU: it may see others' GPUs."""

    actors: int
    cpus: float
    gpus: float
    device: str | None = None


def score(
    model: str, candidates: Sequence[Example], out: str, pool: Pool, observer: Observer
) -> StageStore[ScoredSolution]:
    """Scores of all candidates, in parts of the store that is returned. Raises OSError for a model
    that is not there, StageLocked where another driver is at it."""
    ids = content_hash(*(f"{c.solution_id}/{content_hash(c.problem, c.code)}" for c in candidates))
    store = StageStore(
        out, "scores", fingerprint(model=_digest(model), candidates=ids), SCORED_SOLUTION
    )
    parts = {
        index: candidates[start : start + CANDIDATES_PER_PART]
        for index, start in enumerate(range(0, len(candidates), CANDIDATES_PER_PART))
    }
    with stage_lock(store.directory):
        seen = {index: store.inspect(index) for index in parts}
        missing = {i: parts[i] for i in parts if not isinstance(seen[i], PartSummary)}
        for damage in seen.values():
            if isinstance(damage, StoreError):
                observer.note(f"redone: {damage}")
        done = len(candidates) - sum(map(len, missing.values()))
        observer.progress(Progress("scores", done, len(candidates), "candidates"))
        for index, scored in _scored(model, missing, pool):
            store.write(index, scored)
            done += len(scored)
            observer.progress(Progress("scores", done, len(candidates), "candidates"))
    return store


class _PartScorer:
    """One model, in this process or in an actor."""

    def __init__(self, model: str, device: str | None) -> None:
        self._scorer = Scorer(model, device=device)

    def score(self, index: int, rows: Sequence[Example]) -> tuple[int, list[ScoredSolution]]:
        return index, self._scorer.score(rows)


def _scored(
    model: str, parts: dict[int, Sequence[Example]], pool: Pool
) -> Iterator[tuple[int, list[ScoredSolution]]]:
    """Every part with its scores, as they come."""
    if not parts:
        return
    if not pool.actors:
        scorer = _PartScorer(model, pool.device)
        yield from (scorer.score(index, rows) for index, rows in parts.items())
        return
    # Imported here: scoring in this process needs no Ray.
    import ray
    from ray.util import ActorPool

    address = os.environ.get("RAY_ADDRESS", "local")
    ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    try:
        remote: Any = ray.remote(
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
            max_restarts=WORKER_RESTARTS,
            max_task_retries=WORKER_RESTARTS,
        )(_PartScorer)
        device = "cuda" if pool.gpus else "cpu"
        actors = [remote.remote(model, device) for _ in range(min(pool.actors, len(parts)))]
        found: Any = ActorPool(actors).map_unordered(
            lambda actor, part: actor.score.remote(*part), list(parts.items())
        )
        yield from found
    finally:
        ray.shutdown()


def read_candidates(chosen: argparse.Namespace) -> list[Example]:
    """What is to be scored. Raises the errors of the readers."""
    if chosen.examples:
        return [
            row
            for path in example_files(chosen.examples)
            for row in EXAMPLE.from_table(read_table(path, EXAMPLE))
        ]
    form, reading = read_statements(chosen, [chosen.problems])
    problems = {problem.problem_id: problem for problem in reading.problems}
    return [
        _candidate(problems[program.problem_id], program.program_id, program.code)
        for program in read_programs(chosen.programs, form, problems)
    ]


def _candidate(problem: Problem, program_id: str, code: str) -> Example:
    """A program as a PRM reads it. Its outcome is not known here, and not looked at."""
    solution_id = f"{problem.problem_id}/{program_id}"
    steps = split_steps(code, solution_id)
    unknown = (0,) * len(steps)
    return Example(
        solution_id=solution_id,
        problem_id=problem.problem_id,
        role=Role.TEST,
        difficulty=problem.difficulty,
        problem=problem_text(problem),
        code=code,
        step_ends=tuple(step.end for step in steps),
        step_ids=tuple(step.step_id for step in steps),
        passed=unknown,
        trials=unknown,
        step_truth=None,
        final_label=False,
    )


def _digest(model: str) -> str:
    """Identifies a model by its files."""
    if not exists(f"{model}/config.json"):
        raise ConfigError(f"--model {model}: no trained PRM (config.json) is there")
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(Path(local_folder(model)).glob("*")):
        if path.is_file() and path.name != "README.md":
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.score",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="folder of a trained PRM, or URI")
    parser.add_argument("--examples", nargs="+", help="Example shards, or folders of part-*.arrow")
    parser.add_argument("--problems", help="file of problems, with --programs")
    parser.add_argument("--programs", help="JSON lines of programs, with --problems")
    parser.add_argument("--out", required=True, help="folder for the scores, or URI")
    parser.add_argument("--actors", type=int, default=0, help="Ray actors; 0: this process [0]")
    parser.add_argument("--cpus", type=float, default=1.0, help="CPUs of one actor [1]")
    parser.add_argument("--gpus", type=float, default=0.0, help="GPUs of one actor [0]")
    parser.add_argument(
        "--device", help="of this process: cpu, cuda, cuda:1 [a GPU if there is one]"
    )
    add_problem_options(parser)
    chosen = parser.parse_args(arguments)
    if bool(chosen.examples) == bool(chosen.problems and chosen.programs):
        parser.error("give --examples, or --problems and --programs")
    if min(chosen.actors, chosen.cpus, chosen.gpus) < 0:
        parser.error("--actors, --cpus and --gpus cannot be negative")
    try:
        refuse_vanishing(out=chosen.out)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    out = absolute(chosen.out)
    started = time.monotonic()

    def work(terminal: Terminal) -> StageStore[ScoredSolution]:
        terminal.stage("Reading candidates")
        candidates = read_candidates(chosen)
        terminal.stage("Scoring")
        pool = Pool(chosen.actors, chosen.cpus, chosen.gpus, chosen.device)
        return score(absolute(chosen.model), candidates, out, pool, terminal)

    def show(console: Console, store: StageStore[ScoredSolution]) -> None:
        rows = store.read_all(store.done())
        unscored = sum(not row.step_scores for row in rows)
        console.print(
            f"{len(rows):,} candidates in {time.monotonic() - started:.1f} s, {unscored:,} "
            f"without a score (no code, or longer than the context)\nscores: {store.directory}",
            soft_wrap=True,
        )

    return carry_out(log_of(out), EXPECTED, work, show)


if __name__ == "__main__":
    sys.exit(main())
