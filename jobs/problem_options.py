"""Options of the jobs that take files of problems on their command line."""

import argparse
from collections.abc import Sequence

from pydantic import ValidationError

from jobs.argument_types import day
from pipeline.config import DateWindow, FileProblems
from pipeline.problems.forms import FORMS, STATEMENTS, detect_form, row_form
from pipeline.problems.reading import Reading, read_problems
from pipeline.settings import ConfigError


def add_problem_options(parser: argparse.ArgumentParser) -> None:
    """`--format`, the filters, and `--skip-bad-rows`."""
    parser.add_argument(
        "--format", choices=(*FORMS, STATEMENTS), help="form of the files [that of the first row]"
    )
    parser.add_argument(
        "--before", type=day, metavar="DATE", help="take problems released before [all]"
    )
    parser.add_argument(
        "--after", type=day, metavar="DATE", help="take problems released on this day or after it"
    )
    parser.add_argument("--difficulty", action="append", default=[], help="take only these [all]")
    parser.add_argument("--platform", action="append", default=[], help="take only these [all]")
    parser.add_argument(
        "--skip-bad-rows", action="store_true", help="go on without bad rows, and count them"
    )


def file_problems(chosen: argparse.Namespace, paths: Sequence[str]) -> FileProblems:
    """What the options of `add_problem_options` ask for. Raises ConfigError, UnknownForm and
    OSError; also for recorded candidates, which hold no tests."""
    form = chosen.format or detect_form(paths)
    if form == STATEMENTS:
        raise ConfigError(
            f"{', '.join(paths)}: recorded candidates hold no tests; give LiveCodeBench's own "
            "problem files"
        )
    return _options(chosen, paths, form)


def read_statements(chosen: argparse.Namespace, paths: Sequence[str]) -> tuple[str, Reading]:
    """The form of files of problems, and what they hold; their tests are not needed."""
    form = chosen.format or detect_form(paths)
    config = _options(chosen, paths, "livecodebench" if form == STATEMENTS else form)
    return form, read_problems(config, row_form(form))


def date_window(chosen: argparse.Namespace) -> DateWindow:
    """What --after and --before say. Raises ConfigError."""
    try:
        return DateWindow(after=chosen.after, before=chosen.before)
    except ValidationError as error:
        raise ConfigError(_told(error)) from None


def _options(chosen: argparse.Namespace, paths: Sequence[str], kind: str) -> FileProblems:
    try:
        return FileProblems.model_validate(
            {
                "kind": kind,
                "paths": tuple(paths),
                "before": chosen.before,
                "after": chosen.after,
                "difficulties": tuple(chosen.difficulty),
                "platforms": tuple(chosen.platform),
                "skip_bad_rows": chosen.skip_bad_rows,
            }
        )
    except ValidationError as error:
        raise ConfigError(_told(error)) from None


def _told(error: ValidationError) -> str:
    return "; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())
