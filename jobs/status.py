"""How far a run is, from files alone: works while it runs, after it died, and from elsewhere.

python -m jobs.status [--root runs/store] [--name demo] [--watch] [--json]
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from pipeline import schemas
from pipeline.config import PipelineConfig
from pipeline.files import StoreError, exists, is_local, read_bytes
from pipeline.lock import Holder, read_holder
from pipeline.part_file import Quarantined, Tally
from pipeline.plan import InputMissing, Plan, make_plan
from pipeline.policies.ledger import Ledger
from pipeline.records import Role
from pipeline.schemas import RecordSchema
from pipeline.store import STORE_FORMAT, StageStore
from pipeline.survey import Survey

RATE_WINDOW_S = 600.0
"""A rate is that of the parts written in the last so many seconds before the newest."""

WATCH_S = 2.0

_SCHEMAS: dict[str, RecordSchema[Any]] = {
    "problems": schemas.PROBLEM,
    "solutions": schemas.SOLUTION,
    "verdicts": schemas.PROGRAM_VERDICT,
    "completions": schemas.COMPLETION,
    "rollouts": schemas.ROLLOUT,
    "truths": schemas.STEP_TRUTH,
    "examples": schemas.EXAMPLE,
    "scores": schemas.SCORED_SOLUTION,
}
_LABELLED = ("completions", "rollouts", "truths")
"""Stages that are made for the roles that are labelled step by step alone."""


class StatusError(Exception):
    """There is no such run, or this version cannot read it."""


@dataclass(frozen=True, slots=True)
class StageStatus:
    """One line. Rates and the time left are None where fewer than two parts tell them."""

    stage: str
    done: int  # parts
    total: int
    rows: int
    rows_per_s: float | None = None
    seconds_left: float | None = None
    outcomes: dict[str, int] = dataclasses.field(default_factory=dict[str, int])
    """Verdicts by status; `rejected`: completions that keep no program, and were not executed."""
    tokens: int = 0
    dollars: float = 0.0
    quarantined: tuple[Quarantined, ...] = ()
    working: str | None = None
    """The driver at work: host and pid."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    name: str
    root: str
    stages: tuple[StageStatus, ...]
    dollars_spent: float
    """By all runs of this store: they share their paid answers."""
    dollars_cap: float | None


def read_manifest(root: str, name: str) -> dict[str, Any]:
    """What `jobs.run` wrote when it started. Raises StatusError."""
    path = f"{root.rstrip('/')}/runs/{name}.yaml"
    data = read_bytes(path)
    if data is None:
        raise StatusError(f"{path}: no such run; give --root and --name of one that was started")
    manifest = yaml.safe_load(data)
    if manifest.get("format") != STORE_FORMAT:
        raise StatusError(
            f"{path}: written in store format {manifest.get('format')}, but this version reads "
            f"format {STORE_FORMAT}: run it again under another --root"
        )
    return manifest


def read_plan(root: str, name: str) -> Plan:
    """The plan of a run from its manifest, as this version would make it. Raises StatusError."""
    manifest = read_manifest(root, name)
    try:
        return make_plan(PipelineConfig.model_validate(manifest["config"] | {"root": root}))
    except (ValueError, InputMissing) as error:
        raise StatusError(f"run {name}: cannot be read by this version: {error}") from error


def run_status(root: str, name: str) -> RunStatus:
    """Where a run stands. Stages are found by the fingerprints in its manifest, so that a run of
    another version of this code is told as it was. Raises StatusError, StoreError."""
    manifest = read_manifest(root, name)
    return RunStatus(
        name,
        root,
        tuple(_stage_statuses(root, manifest)),
        _dollars_spent(root),
        _dollars_cap(manifest["config"]),
    )


def _stage_statuses(root: str, manifest: dict[str, Any]) -> Iterator[StageStatus]:
    """Every stage in the order of the story."""
    directories = dict(manifest["stages"])
    directories.pop("policy", None)
    trained = directories.pop("prm", {})
    scored = directories.pop("scores", {})
    problems = _stage(root, "problems", directories["problems"])
    note = problems.note()
    if note is None:
        yield StageStatus("problems", 0, 0, 0, working=_working(_holder(problems.directory)))
        return
    roles = [Role(role) for role in note["shaped_by"]["roles"]]
    labelled = [Role(role) for role in manifest["config"]["rollouts"]["roles"]]
    for name, directory in directories.items():
        if directory is None:
            continue
        of_labelled = name.partition("-")[0] in _LABELLED
        parts = [p for p, role in enumerate(roles) if role in labelled or not of_labelled]
        yield _status(name, _stage(root, name, directory), parts)
    held_out = [p for p, role in enumerate(roles) if role in (Role.VALIDATION, Role.TEST)]
    for arm, directory in trained.items():
        directory = f"{root.rstrip('/')}/prm/{_fingerprint(directory)}"
        done = int(exists(f"{directory}/done.json"))
        working = _working(_holder(directory))
        yield StageStatus(f"training {arm}", done, 1, 0, working=working)
        yield _status(f"scores of {arm}", _stage(root, "scores", scored[arm]), held_out)


def _stage(root: str, name: str, directory: str) -> StageStore[Any]:
    """A stage by the fingerprint in the manifest; the store may have been moved since."""
    schema = _SCHEMAS[name.partition("-")[0]]
    return StageStore(root, name, _fingerprint(directory), schema)


def _fingerprint(directory: str) -> str:
    return directory.rstrip("/").rpartition("/")[2]


def _status(name: str, stage: StageStore[Any], parts: Sequence[int]) -> StageStatus:
    survey = Survey(stage)
    summaries = survey.summaries(parts)
    tally = Tally()
    for part in summaries.values():
        tally = tally.plus(part.tally)
    holder = _holder(stage.directory)
    written = {part: at for part, at in survey.modified().items() if part in summaries}
    parts_per_s = _parts_per_s(list(written.values()), time.time() if holder else None)
    rows, missing = sum(part.rows for part in summaries.values()), len(parts) - len(summaries)
    return StageStatus(
        stage=name,
        done=len(summaries),
        total=len(parts),
        rows=rows,
        rows_per_s=parts_per_s * rows / len(summaries) if parts_per_s else None,
        seconds_left=missing / parts_per_s if parts_per_s and missing and holder else None,
        outcomes={_OUTCOMES.get(kind, kind): count for kind, count in tally.counts.items()},
        tokens=int(sum(value for key, value in tally.sums.items() if key in _TOKENS)),
        dollars=tally.sums.get("cost_usd", 0.0),
        quarantined=tuple(entry for part in summaries.values() for entry in part.quarantined),
        working=_working(holder),
    )


_OUTCOMES = {"none": "rejected"}
"""What a rollout without a verdict is called, for people."""
_TOKENS = ("prompt_tokens", "completion_tokens")  # reasoning is part of the completion


def _parts_per_s(written: list[float], now: float | None) -> float | None:
    """The rate of the newest parts, up to `now` while somebody is at work on more."""
    if len(written) < 2:
        return None
    newest = max(written)
    recent = [at for at in written if newest - at <= RATE_WINDOW_S]
    elapsed = max(newest, now or newest) - min(recent)
    return (len(recent) - 1) / elapsed if len(recent) > 1 and elapsed > 0 else None


def _dollars_spent(root: str) -> float:
    if not is_local(root):
        return 0.0
    return Ledger(Path(root) / "journal" / "spending").others("").spent_usd


def _dollars_cap(config: dict[str, Any]) -> float | None:
    policies = (config.get("policy"), config["rollouts"].get("policy"))
    caps = [policy.get("budget_usd") for policy in policies if policy]
    return next((cap for cap in caps if cap is not None), None)


def _holder(directory: str) -> Holder | None:
    holder = read_holder(f"{directory}/lock.json")
    return holder if holder and holder.is_alive() else None


def _working(holder: Holder | None) -> str | None:
    return f"{holder.host}, pid {holder.pid}" if holder else None


# --- as people see it ----------------------------------------------------------------------------


def table_of(status: RunStatus) -> Group:
    """A table, and below it what no table holds: who is at work, quarantined problems, dollars."""
    table = Table(title=f"{status.name} in {status.root}", box=SIMPLE_HEAD, padding=(0, 1))
    columns = _columns(status)
    table.add_column("stage", no_wrap=True)
    for heading, cells in columns.items():
        if any(cells):
            table.add_column(heading, justify="left" if heading == "outcomes" else "right")
    for number, stage in enumerate(status.stages):
        style = "green" if stage.done == stage.total else "yellow" if stage.done else "dim"
        cells = (column[number] for column in columns.values() if any(column))
        table.add_row(stage.stage, *cells, style=style)
    lines = [f"at work: {who}" for who in sorted({s.working for s in status.stages if s.working})]
    lines += [
        f"quarantined in {stage.stage}: problem {entry.problem_id}: {entry.told}"
        for stage in status.stages
        for entry in stage.quarantined
    ]
    if any(stage.quarantined for stage in status.stages):
        lines.append("another chance for the quarantined: jobs.run --retry-quarantined")
    if status.dollars_spent or status.dollars_cap:
        cap = f" of at most {status.dollars_cap:,.2f}" if status.dollars_cap else ""
        lines.append(f"paid by all runs of this store: {status.dollars_spent:,.2f} dollars{cap}")
    return Group(table, *lines)


def _columns(status: RunStatus) -> dict[str, list[str]]:
    """The cells of each column, in the order of the stages; "" where nothing is known."""
    stages = status.stages
    return {
        "parts": [f"{stage.done:,}/{stage.total:,}" for stage in stages],
        "rows": [f"{stage.rows:,}" if stage.rows else "" for stage in stages],
        "rows/s": [f"{stage.rows_per_s:,.1f}" if stage.rows_per_s else "" for stage in stages],
        "left": [_clock(stage.seconds_left) if stage.seconds_left else "" for stage in stages],
        "tokens": [f"{stage.tokens:,}" if stage.tokens else "" for stage in stages],
        "dollars": [f"{stage.dollars:,.2f}" if stage.dollars else "" for stage in stages],
        "outcomes": [
            " ".join(f"{count:,} {name}" for name, count in stage.outcomes.items())
            for stage in stages
        ],
    }


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _watch(root: str, name: str, console: Console) -> None:
    """Until nobody is at work on the run any more, or Ctrl-C."""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            status = run_status(root, name)
            live.update(table_of(status), refresh=True)
            if not any(stage.working for stage in status.stages):
                return
            time.sleep(WATCH_S)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.status",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", default="runs/store", help="the store [runs/store]")
    parser.add_argument("--name", default="demo", help="the run [demo]")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    how.add_argument(
        "--watch",
        action="store_true",
        help="show it again every 2 seconds until nobody works on it",
    )
    chosen = parser.parse_args(arguments)
    console = Console()
    try:
        if chosen.watch:
            _watch(chosen.root, chosen.name, console)
            return 0
        status = run_status(chosen.root, chosen.name)
    except KeyboardInterrupt:
        return 0
    except (StatusError, StoreError) as error:
        print(error, file=sys.stderr)
        return 1
    if chosen.json:
        print(json.dumps(dataclasses.asdict(status), indent=2))
    else:
        console.print(table_of(status))
    return 0


if __name__ == "__main__":
    sys.exit(main())
