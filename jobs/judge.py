"""Verdicts for recorded programs of any supported benchmark file; running it again resumes.

python -m jobs.judge --problems FILE --programs FILE|canonical --out DIR

Programs are JSON lines with `problem_id` (or `task_id`, `question_id`, as the problems name it),
`code`, and perhaps `program_id`; `canonical` takes the benchmark's own right programs. Verdicts are
written to DIR/verdicts/*/part-*.arrow, counts to DIR/summary.json. They are made in the sandbox
slots of this machine, or, with --address, in those of a Ray cluster.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs.argument_types import cluster_address, folder, positive
from jobs.command import STOPPED, exit_status, sigterm_as_ctrl_c
from jobs.problem_options import add_problem_options, file_problems
from jobs.slots import ClusterError, cluster_slots, local_slots, probe
from jobs.submitted import refuse_vanishing
from jobs.terminal import Terminal, library_output_to
from pipeline.files import StoreError, write_atomically
from pipeline.judging import CannotJudge, Conditions, Judging, OtherVerdicts
from pipeline.judging_queue import OpenSlot
from pipeline.lock import StageLocked, stage_lock
from pipeline.problems import BadRows, NoProblems, UnknownForm, read_files
from pipeline.progress import Observer, Progress
from pipeline.recorded import BadPrograms, RecordedProgram, read_programs
from pipeline.records import ProgramVerdict
from pipeline.settings import ConfigError
from sandbox import IMAGE, Comparator, Isolation, Limits, SandboxUnavailable, Status

CANONICAL = "canonical"
LISTED = 20  # programs that are not AC, on the terminal
LISTED_IN_SUMMARY = 1000


EXPECTED = (
    BadPrograms, BadRows, CannotJudge, ClusterError, ConfigError, NoProblems, OtherVerdicts,
    SandboxUnavailable, StageLocked, StoreError, UnknownForm, OSError,
)  # fmt: skip
"""Errors whose own words say everything."""


def judge(chosen: argparse.Namespace, observer: Observer) -> Judging:
    """Judge what is missing."""
    try:
        Limits(chosen.time_limit_s, chosen.memory_mb)
    except ValueError as error:
        raise ConfigError(f"--time-limit-s, --memory-mb: {error}") from None
    if chosen.address:
        probe(chosen.address)
    observer.stage("Reading problems and programs")
    config = file_problems(chosen, [chosen.problems]).model_copy(
        update={"time_limit_s": chosen.time_limit_s, "comparator": chosen.comparator}
    )
    reading = read_files(config)
    for note in reading.left_out():
        observer.note(note)
    problems = {problem.problem_id: problem for problem in reading.problems}
    if chosen.programs == CANONICAL:
        programs = [
            RecordedProgram(read.problem.problem_id, CANONICAL, read.canonical)
            for read in reading.read
            if read.canonical
        ]
        if not programs:
            raise ConfigError(f"--programs canonical: {chosen.problems} carries no right programs")
    else:
        programs = read_programs(chosen.programs, config.kind, problems)
    programs = programs[: chosen.limit]

    isolation = Isolation.DOCKER if chosen.sandbox == "docker" else Isolation.NONE
    conditions = Conditions(isolation, IMAGE, chosen.memory_mb)
    try:
        judging = Judging(str(chosen.out), problems, programs, conditions)
    except CannotJudge as error:
        programs = [each for each in programs if each.problem_id not in error.reasons]
        if not (chosen.skip_bad_rows and programs):
            raise
        observer.note(f"left out: {error}")
        judging = Judging(str(chosen.out), problems, programs, conditions)
    tests = sum(len(problems[program.problem_id].tests) for program in programs)
    observer.note(f"{len(programs):,} programs of {config.kind} problems, {tests:,} tests")
    for damage in judging.damaged:
        observer.note(f"made again: {damage}")
    if judging.kept:
        observer.note(f"kept from an earlier run: {judging.kept:,} verdicts")
    if isolation is Isolation.NONE:
        observer.note("NO ISOLATION: these programs can read and delete your files")

    observer.stage(f"Judging in {judging.stage.directory}")
    with stage_lock(judging.stage.directory), _slots(chosen, observer) as slots:
        for standing in judging.run(slots):
            detail = ", ".join(f"{count:,} {status}" for status, count in standing.statuses.items())
            observer.progress(
                Progress("programs", standing.done, standing.total, "programs", detail=detail)
            )
    return judging


@contextmanager
def _slots(chosen: argparse.Namespace, observer: Observer) -> Iterator[list[OpenSlot]]:
    """Sandboxes of this machine, or actors of the cluster that --address names."""
    if chosen.address:
        with cluster_slots(chosen.address, chosen.sandbox, chosen.slots, observer.note) as slots:
            yield slots
    else:
        yield local_slots(chosen.sandbox, chosen.slots or os.cpu_count() or 1)


def tell(judging: Judging, console: Console, out: Path, seconds: float) -> int:
    """Table, list and summary, from what is stored; the exit code."""
    statuses: Counter[Status] = Counter()
    rejected: list[ProgramVerdict] = []
    counts: Counter[str] = Counter()
    for row in judging.verdicts():
        verdict = row.verdict
        statuses[verdict.status] += 1
        counts["tests_run"] += verdict.tests_run
        counts["tests_passed"] += verdict.tests_passed
        counts["tests_total"] += verdict.tests_total
        counts["programs_with_forgeable_tests"] += verdict.tests_forgeable > 0
        if verdict.status is not Status.AC and len(rejected) < LISTED_IN_SUMMARY:
            rejected.append(row)
    total = statuses.total()

    table = Table("status", "programs", "%")
    for status in Status:
        if statuses[status]:
            share = f"{100 * statuses[status] / total:.1f}"
            table.add_row(status.value, f"{statuses[status]:,}", share)
    table.add_section()
    table.add_row("all", f"{total:,}", "100.0")
    console.print(table)
    not_accepted = total - statuses[Status.AC]
    for row in rejected[:LISTED]:
        console.print(f"  {_line(row)}", highlight=False, markup=False, soft_wrap=True)
    if not_accepted > LISTED:
        console.print(f"  and {not_accepted - LISTED:,} more that are not AC, see the verdicts")

    summary = out / "summary.json"
    write_atomically(
        str(summary),
        json.dumps(
            {
                "programs": total,
                "kept": judging.kept,
                "statuses": {status.value: statuses[status] for status in Status},
                **counts,
                "seconds": round(seconds, 1),
                "isolation": judging.shaped_by["isolation"],
                "made_with": judging.shaped_by,
                "verdicts": judging.stage.directory,
                "not_accepted": [_facts(row) for row in rejected],
            },
            indent=2,
        ).encode(),
    )
    console.print(f"verdicts: {judging.stage.directory}   summary: {summary}", soft_wrap=True)
    if statuses[Status.INFRA]:
        console.print(
            f"[bold red]the sandbox failed[/bold red] on {statuses[Status.INFRA]:,} programs, "
            "which says nothing about them; the same command tries them again"
        )
        return 1
    return 0


def _line(row: ProgramVerdict) -> str:
    verdict = row.verdict
    test = "" if verdict.first_failure is None else f", test {verdict.first_failure}"
    words = f"{row.problem_id} {row.program_id}: {verdict.status}{test}"
    return f"{words} ({verdict.tests_passed}/{verdict.tests_total} passed) {verdict.detail}".strip()


def _facts(row: ProgramVerdict) -> dict[str, object]:
    verdict = row.verdict
    return {
        "problem_id": row.problem_id,
        "program_id": row.program_id,
        "status": verdict.status.value,
        "first_failure": verdict.first_failure,
        "detail": verdict.detail,
    }


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="python -m jobs.judge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = options.add_argument
    add("--problems", required=True, help="file or folder of problems")
    add("--programs", required=True, help="file of programs, or the word `canonical`")
    add("--out", required=True, type=folder,
        help="folder for verdicts, summary and log; one judging each")  # fmt: skip
    add("--sandbox", choices=("docker", "unsafe-process"), default="docker",
        help="`unsafe-process` protects from honest mistakes only [docker]")  # fmt: skip
    add("--slots", type=positive(int), help="sandboxes at once [one per CPU, or all of a cluster]")
    add("--address", type=cluster_address, default=os.environ.get("RAY_ADDRESS"),
        help="judge on the Ray cluster there: HOST:PORT, ray://HOST:PORT, or `auto` "
        "[RAY_ADDRESS, else on this machine]")  # fmt: skip
    add("--limit", type=positive(int), help="judge only the first so many programs, by problem")
    add("--comparator", choices=[each.value for each in Comparator], type=Comparator,
        default=Comparator.LCB, help="how outputs are compared [lcb]")  # fmt: skip
    add("--time-limit-s", type=positive(float), default=Limits().cpu_s,
        help="CPU seconds of one test where a problem names no limit "
        f"[{Limits().cpu_s:g}]")  # fmt: skip
    add("--memory-mb", type=positive(int), default=Limits().memory_mb,
        help=f"MiB of memory of one test [{Limits().memory_mb}]")  # fmt: skip
    add_problem_options(options)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = parser().parse_args(arguments)
    log = chosen.out / "log.txt"
    try:
        refuse_vanishing(out=chosen.out)
        log.parent.mkdir(parents=True, exist_ok=True)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        why = error.strerror
        if isinstance(error, FileExistsError | NotADirectoryError):
            why = "is a file, or below one; a folder is wanted"
        print(f"--out {chosen.out}: {why}", file=sys.stderr)
        return 2
    with library_output_to(log) as console:
        try:
            started = time.monotonic()
            with sigterm_as_ctrl_c(), Terminal(console) as terminal:
                judging = judge(chosen, terminal)
            return tell(judging, console, chosen.out, time.monotonic() - started)
        except EXPECTED as error:
            console.print("[bold red]stopped:[/bold red]", escape(str(error)), soft_wrap=True)
            return 1
        except KeyboardInterrupt as stop:
            console.print(f"[bold red]stopped[/bold red]; {STOPPED}")
            return exit_status(stop)


if __name__ == "__main__":
    sys.exit(main())
