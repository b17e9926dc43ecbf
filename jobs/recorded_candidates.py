"""pass@1 of recorded candidates, by their grades or judged again: what `jobs.evaluate --candidates`
does."""

import argparse
import datetime
import json
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress as Bars

from jobs.problem_options import date_window, file_problems
from jobs.slots import local_slots
from pipeline import schemas
from pipeline.config import EvaluationConfig
from pipeline.eval_all import EvalAllError, EvalAllRow, scan_eval_all
from pipeline.evaluation.evaluate import EvaluationError
from pipeline.evaluation.pass_at_1 import Outcome, pass_at_1, pass_at_1_table, to_json
from pipeline.evaluation.recorded import recorded_solutions, recorded_verdicts
from pipeline.files import is_local, read_bytes, write_atomically
from pipeline.judging import Conditions, Judging
from pipeline.lock import stage_lock
from pipeline.part_file import write_rows
from pipeline.problems import load_problems
from pipeline.problems.rows import FieldError, read_date
from pipeline.recorded import RecordedProgram
from pipeline.records import Problem, ProgramVerdict, Solution
from pipeline.settings import ConfigError
from sandbox import IMAGE, Isolation, Status


def evaluate_recorded(chosen: argparse.Namespace, console: Console) -> int:
    """pass@1 of a file of candidates, as a table and as files in `--out`."""
    rows = _read(chosen, console)
    problems: dict[str, Problem] = {}
    if chosen.problems:
        problems = {p.problem_id: p for p in load_problems(file_problems(chosen, chosen.problems))}
        rows, total = [row for row in rows if row.question_id in problems], len(rows)
        console.print(f"candidates of {len(rows):,} of {total:,} problems are in --problems")
        if not rows:
            raise EvalAllError(
                f"{chosen.candidates}: none of its {total:,} problems is among the "
                f"{len(problems):,} of --problems"
            )
    else:
        rows = _filtered(rows, chosen)
    out = chosen.out.rstrip("/")
    _lay_out(out, chosen.candidates)
    solutions = recorded_solutions(rows, f"recorded:{Path(chosen.candidates).name}")
    if chosen.judge:
        verdicts = _judge_again(chosen, out, problems, solutions, console)
    else:
        verdicts = recorded_verdicts(rows, solutions)
    groups = {row.question_id: _group_of(row, problems.get(row.question_id)) for row in rows}
    infra = sum(verdict.verdict.status is Status.INFRA for verdict in verdicts)
    config = EvaluationConfig()
    result = pass_at_1(
        [
            Outcome(v.problem_id, *groups[v.problem_id], v.verdict.status is Status.AC)
            for v in verdicts
            if v.verdict.status is not Status.INFRA
        ],
        config,
    )
    written = to_json(result, config) | {
        "candidates_file": str(chosen.candidates),
        "verdicts": "judged again" if chosen.judge else "recorded",
        "infrastructure_failures": infra,
    }
    write_rows(f"{out}/solutions.arrow", solutions, schemas.SOLUTION)
    write_rows(f"{out}/verdicts.arrow", verdicts, schemas.PROGRAM_VERDICT)
    text = json.dumps(written, indent=2, ensure_ascii=False) + "\n"
    write_atomically(f"{out}/pass_at_1.json", text.encode())
    if chosen.json:
        print(text, end="")
        return 0
    console.print(pass_at_1_table(result, config.confidence))
    console.print(f"verdicts: {written['verdicts']}; infrastructure failures left out: {infra}")
    told = f"written: {out}/pass_at_1.json, solutions.arrow, verdicts.arrow"
    console.print(told, markup=False, soft_wrap=True)
    return 0


def _read(chosen: argparse.Namespace, console: Console) -> list[EvalAllRow]:
    """The candidates. Raises EvalAllError, for bad rows unless they are to be skipped."""
    reading = scan_eval_all(chosen.candidates)
    if reading.bad:
        if not (chosen.skip_bad_rows and reading.rows):
            raise EvalAllError(
                f"{reading.told()}\nmend them, or leave them out: --skip-bad-rows takes the others"
            )
        console.print(f"left out: {reading.told()}", markup=False, soft_wrap=True)
    return list(reading.rows)


def _lay_out(out: str, candidates: str) -> None:
    """Make the folder of the results. Raises ConfigError for a path that can be none, and
    EvaluationError where results of other candidates lie there: they are not written over."""
    if is_local(out):
        try:
            Path(out).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            is_file = isinstance(error, FileExistsError | NotADirectoryError)
            why = "is a file, or below one; a folder is wanted" if is_file else error.strerror
            raise ConfigError(f"--out {out}: {why}") from None
    path = f"{out}/pass_at_1.json"
    try:
        earlier = json.loads(read_bytes(path) or b"{}")
    except ValueError:
        return  # no results: nothing that could be lost
    other = earlier.get("candidates_file") if isinstance(earlier, dict) else None
    if other is not None and os.path.abspath(other) != os.path.abspath(candidates):
        raise EvaluationError(
            f"{path} has the results of {other}, not of {candidates}: give another --out, or "
            "remove them first"
        )


def _filtered(rows: list[EvalAllRow], chosen: argparse.Namespace) -> list[EvalAllRow]:
    """The rows that the filters take, by what the records themselves say. Raises EvalAllError."""
    path, total = chosen.candidates, len(rows)
    for field, wanted in (("difficulty", chosen.difficulty), ("platform", chosen.platform)):
        there = {getattr(row, field) for row in rows}
        for word in wanted:
            if word not in there:
                known = ", ".join(sorted(there - {""})) or "none"
                raise EvalAllError(
                    f"{path}: no problem has the {field} {word!r}; there are {known}"
                )
    rows = [
        row
        for row in rows
        if (not chosen.difficulty or row.difficulty in chosen.difficulty)
        and (not chosen.platform or row.platform in chosen.platform)
    ]
    if chosen.after or chosen.before:
        window = date_window(chosen)
        rows = [row for row in rows if window.contains(_released_on(row, path))]
    if not rows:
        raise EvalAllError(f"{path}: the filters leave out all {total:,} problems")
    return rows


def _released_on(row: EvalAllRow, path: str) -> datetime.date:
    try:
        return read_date("contest_date", row.contest_date)
    except FieldError as error:
        raise EvalAllError(
            f"{path}, problem {row.question_id!r}, {error.field}: {error.reason}"
        ) from None


def _group_of(row: EvalAllRow, problem: Problem | None) -> tuple[str, str]:
    """Difficulty and platform: the problem's own, else the record's."""
    if problem is not None:
        return problem.difficulty, problem.platform
    return row.difficulty, row.platform


def _judge_again(
    chosen: argparse.Namespace,
    out: str,
    problems: dict[str, Problem],
    solutions: Sequence[Solution],
    console: Console,
) -> list[ProgramVerdict]:
    isolation = Isolation.DOCKER if chosen.sandbox == "docker" else Isolation.NONE
    programs = [RecordedProgram(s.problem_id, s.solution_id, s.code) for s in solutions]
    judging = Judging(out, problems, programs, Conditions(isolation, IMAGE, chosen.memory_mb))
    for damage in judging.damaged:
        console.print(f"made again: {damage}", soft_wrap=True)
    if judging.kept:
        console.print(f"kept from an earlier call: {judging.kept:,} verdicts")
    with stage_lock(judging.stage.directory), Bars(console=console) as bars:
        bar = bars.add_task("judging", total=len(programs))
        for standing in judging.run(local_slots(chosen.sandbox, chosen.slots)):
            bars.update(bar, completed=standing.done)
    verdicts = {row.program_id: row for row in judging.verdicts()}
    return [verdicts[solution.solution_id] for solution in solutions]
