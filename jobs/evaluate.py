"""How good candidates are: pass@1 of recorded ones, best-of-N selection of a run's own.

python -m jobs.evaluate --candidates FILE --out DIR [--problems FILE... [--judge]]
python -m jobs.evaluate --config FILE [--key value ...]

Recorded candidates are files in LiveCodeBench's `eval_all` form. They keep their recorded grades,
or are judged again by their problems' tests (--judge). A run's candidates need a run that was
sampled and labelled (jobs.run); arms without scores yet are left out, and said.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console

from jobs.argument_types import positive
from jobs.command import STOPPED, exit_status, sigterm_as_ctrl_c
from jobs.problem_options import add_problem_options
from jobs.recorded_candidates import evaluate_recorded
from jobs.submitted import refuse_vanishing
from jobs.terminal import Terminal
from pipeline import outcome
from pipeline.config import PipelineConfig
from pipeline.eval_all import EvalAllError
from pipeline.evaluation.evaluate import EvaluationError
from pipeline.files import StoreError, is_local
from pipeline.judging import CannotJudge, OtherVerdicts
from pipeline.lock import StageLocked
from pipeline.part_file import PartSummary
from pipeline.plan import InputMissing, held_out_parts, make_plan
from pipeline.problems import BadRows, NoProblems, UnknownForm
from pipeline.records import Role
from pipeline.run_folder import run_folder
from pipeline.settings import ConfigError, load_config
from pipeline.store import StageStore
from sandbox import Limits, SandboxUnavailable

EXPECTED = (
    EvalAllError, EvaluationError, BadRows, NoProblems, UnknownForm, StoreError, StageLocked,
    SandboxUnavailable, OtherVerdicts, CannotJudge, ConfigError, InputMissing, OSError,
)  # fmt: skip
"""Errors whose own words say everything."""


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
    directory = run_folder(config) / "report"
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
