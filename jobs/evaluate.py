"""How good candidates are: pass@1 of recorded ones, best-of-N selection of a run's own.

python -m jobs.evaluate --candidates FILE --out DIR [--problems FILE... [--judge]]
python -m jobs.evaluate --config FILE [--key value ...]

Recorded candidates are files in LiveCodeBench's `eval_all` form. They keep their recorded grades,
or are judged again by their problems' tests (--judge). A run's candidates need a run that was
sampled and labelled (jobs.run); arms without scores yet are left out, and said.
"""

import argparse
import dataclasses
import datetime
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import Progress as Bars

from jobs.argument_types import positive
from jobs.command import STOPPED, exit_status, sigterm_as_ctrl_c
from jobs.problem_options import add_problem_options, date_window, file_problems
from jobs.submitted import refuse_vanishing
from jobs.terminal import Terminal
from pipeline import outcome, schemas
from pipeline.config import EvaluationConfig, PipelineConfig
from pipeline.eval_all import EvalAllError, EvalAllRow, scan_eval_all
from pipeline.evaluation.evaluate import EvaluationError
from pipeline.evaluation.pass_at_1 import Outcome, pass_at_1, pass_at_1_table, to_json
from pipeline.evaluation.recorded import recorded_solutions, recorded_verdicts
from pipeline.files import StoreError, is_local, read_bytes, write_atomically
from pipeline.judging import CannotJudge, Conditions, Judging, OtherVerdicts, Slot
from pipeline.lock import StageLocked, stage_lock
from pipeline.part_file import PartSummary, write_rows
from pipeline.plan import InputMissing, held_out_parts, make_plan
from pipeline.problems import BadRows, NoProblems, UnknownForm, load_problems
from pipeline.problems.rows import FieldError, read_date
from pipeline.recorded import RecordedProgram
from pipeline.records import Problem, ProgramVerdict, Role, Solution
from pipeline.settings import ConfigError, load_config
from pipeline.store import StageStore
from sandbox import IMAGE, Isolation, Limits, Sandbox, SandboxUnavailable, Status

EXPECTED = (
    EvalAllError, EvaluationError, BadRows, NoProblems, UnknownForm, StoreError, StageLocked,
    SandboxUnavailable, OtherVerdicts, CannotJudge, ConfigError, InputMissing, OSError,
)  # fmt: skip
"""Errors whose own words say everything."""


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
        for standing in judging.run([partial(_slot, chosen.sandbox)] * chosen.slots):
            bars.update(bar, completed=standing.done)
    verdicts = {row.program_id: row for row in judging.verdicts()}
    return [verdicts[solution.solution_id] for solution in solutions]


@contextmanager
def _slot(isolation: Literal["docker", "unsafe-process"]) -> Iterator[Slot]:
    with Sandbox(isolation) as sandbox:
        yield Slot(sandbox.judge, sandbox.interpreter())


def evaluate_run(config: PipelineConfig, console: Console, *, as_json: bool) -> int:
    """The selection table and the report of a run, from what is in its store."""
    plan = make_plan(config)
    note = plan.problems.note()
    if note is None:
        raise EvaluationError(
            f"{plan.problems.directory}: this run has not begun; start it with jobs.run"
        )
    roles = dict(enumerate(Role(role) for role in note["shaped_by"]["roles"]))
    if todo := _missing(plan.examples, roles):
        raise EvaluationError(
            f"{todo} of {len(roles)} parts of the examples are not there: "
            "`jobs.run --stages sample,label` makes them"
        )
    plan = plan.with_examples(roles)
    scored = [
        arm for arm in config.training.arms if not _missing(plan.scores(arm), held_out_parts(roles))
    ]
    for arm in config.training.arms:
        if arm not in scored:
            console.print(f"left out: arm {arm.name} has no scores yet (`jobs.run` makes them)")
    training = config.training.model_copy(update={"arms": tuple(scored)})
    plan = dataclasses.replace(plan, config=plan.config.model_copy(update={"training": training}))
    with Terminal(console) as terminal:
        selection = outcome.report(plan, roles, terminal)
    directory = Path(config.output) / config.name / "report"
    if as_json:
        print((directory / "selection.json").read_text(), end="")
        return 0
    for table in outcome.result_tables(config, selection):
        console.print(table)
    console.print(f"report: {directory / 'report.html'}", soft_wrap=True)
    return 0


def _missing(stage: StageStore[Any], parts: Iterable[int]) -> int:
    return sum(not isinstance(stage.inspect(part), PartSummary) for part in parts)


_GO_WITH = {
    "candidates": (
        *("out", "problems", "judge", "sandbox", "slots", "memory_mb"),
        *("format", "before", "after", "difficulty", "platform", "skip_bad_rows"),
    ),
    "problems": ("format",),
    "judge": ("sandbox", "slots", "memory_mb"),
}
"""Options that mean nothing without another."""


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--candidates", metavar="FILE", help="recorded candidates, eval_all form")
    what.add_argument("--config", metavar="FILE", help="evaluate the run of this config instead")
    parser.add_argument("--out", metavar="DIR", help="folder for the results, or URI")
    parser.add_argument(
        "--problems", nargs="+", metavar="FILE", help="their problems: candidates of others are "
        "left out, difficulty and platform are these problems' own"
    )  # fmt: skip
    add_problem_options(parser)
    parser.add_argument(
        "--judge", action="store_true", help="judge the candidates again by the problems' tests"
    )
    parser.add_argument(
        "--sandbox", choices=("docker", "unsafe-process"), default="docker",
        help="where they run; unsafe-process has resource limits only [docker]",
    )  # fmt: skip
    parser.add_argument("--slots", type=positive(int), default=2, help="sandboxes at once [2]")
    parser.add_argument(
        "--memory-mb", type=positive(int), default=Limits().memory_mb,
        help=f"memory limit of one test, MiB [{Limits().memory_mb}]",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    chosen, overrides = parser.parse_known_args(arguments)
    if overrides and not chosen.config:
        parser.error(f"unrecognized arguments: {' '.join(overrides)}")
    if chosen.candidates and not chosen.out:
        parser.error("--candidates needs --out DIR")
    if chosen.judge and not chosen.problems:
        parser.error("--judge needs --problems FILE: their tests decide")
    try:
        Limits(memory_mb=chosen.memory_mb)
    except ValueError as error:
        parser.error(f"--memory-mb: {error}")
    given = {name for name, value in vars(chosen).items() if value != parser.get_default(name)}
    for wanted, options in _GO_WITH.items():
        idle = [f"--{name.replace('_', '-')}" for name in options if name in given]
        if idle and wanted not in given:
            parser.error(f"{', '.join(idle)}: heeded only with --{wanted}")
    return chosen, overrides


def main(arguments: Sequence[str] | None = None) -> int:
    chosen, overrides = parse(arguments)
    console = Console(stderr=chosen.json)
    try:
        with sigterm_as_ctrl_c():
            if chosen.config:
                config = load_config(chosen.config, overrides)
                refuse_vanishing(root=config.root)
                if is_local(config.root):  # else the report is copied there
                    refuse_vanishing(output=config.output)
                return evaluate_run(config, console, as_json=chosen.json)
            refuse_vanishing(out=chosen.out)
            return evaluate_recorded(chosen, console)
    except EXPECTED as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt as stop:
        print(f"stopped; {STOPPED}", file=sys.stderr)
        return exit_status(stop)


if __name__ == "__main__":
    sys.exit(main())
