"""How far a run is, from files alone: works while it runs, after it died, and from elsewhere.

python -m jobs.status [--root runs/store] [--name demo] [--json]
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import fsspec
import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from pipeline.config import ArmConfig, PipelineConfig
from pipeline.files import StoreError, exists
from pipeline.lock import read_holder
from pipeline.plan import InputMissing, Plan, held_out_parts, make_plan
from pipeline.records import Role
from pipeline.store import STORE_FORMAT, DamagedPart, StageStore


@dataclass(frozen=True, slots=True)
class StageStatus:
    """One line: parts done of all, the rows in them, and who is at work (`host, pid`)."""

    stage: str
    done: int
    total: int
    rows: int
    working: str | None


class StatusError(Exception):
    """There is no such run, or this version cannot read it."""


def read_plan(root: str, name: str) -> Plan:
    """The plan of a run from its manifest. Raises StatusError."""
    path = f"{root.rstrip('/')}/runs/{name}.yaml"
    if not exists(path):
        raise StatusError(f"{path}: no such run; give --root and --name of one that was started")
    with fsspec.open(path, "rb") as file:
        manifest = yaml.safe_load(file)  # pyright: ignore[reportArgumentType]
    if manifest.get("format") != STORE_FORMAT:
        raise StatusError(
            f"{path}: written in store format {manifest.get('format')}, but this version reads "
            f"format {STORE_FORMAT}: run it again under another --root"
        )
    try:
        config = PipelineConfig.model_validate(manifest["config"] | {"root": root})
        return make_plan(config)
    except (ValidationError, InputMissing) as error:
        raise StatusError(f"{path}: cannot be read by this version: {error}") from error


def stage_statuses(plan: Plan) -> list[StageStatus]:
    """Every stage in the order of the story."""
    note = plan.problems.note()
    if note is None:
        return [StageStatus("problems", 0, 0, 0, _holder(plan.problems.directory))]
    roles = [Role(role) for role in note["shaped_by"]["roles"]]
    everything = range(len(roles))
    labelled = [part for part in everything if roles[part] in plan.config.rollouts.roles]
    scored = held_out_parts(dict(enumerate(roles)))
    stages: list[tuple[str, StageStore[Any], Sequence[int]]] = [
        ("problems", plan.problems, everything),
        ("solutions", plan.solutions, everything),
        ("verdicts", plan.verdicts, everything),
        ("completions", plan.completions, labelled),
        ("rollouts", plan.rollouts, labelled),
        *([("truths", plan.truths, labelled)] if plan.truths else []),
        ("examples", plan.examples, everything),
    ]
    statuses = [_status(name, stage, parts) for name, stage, parts in stages]
    if statuses[-1].done < statuses[-1].total:
        return statuses
    plan = plan.with_examples(dict(enumerate(roles)))
    for arm in plan.config.training.arms:
        statuses.append(_training_status(plan, arm))
        statuses.append(_status(f"scores of {arm.name}", plan.scores(arm), scored))
    return statuses


def _training_status(plan: Plan, arm: ArmConfig) -> StageStatus:
    directory = plan.prm_directory(arm)
    done = int(exists(f"{directory}/done.json"))
    return StageStatus(f"training {arm.name}", done, 1, 0, _holder(directory))


def _status(name: str, stage: StageStore[Any], parts: Sequence[int]) -> StageStatus:
    rows: list[int] = []
    for part in set(parts).intersection(stage.done()):
        with suppress(DamagedPart):  # it will be redone
            rows.append(stage.count_rows(part))
    return StageStatus(name, len(rows), len(parts), sum(rows), _holder(stage.directory))


def _holder(directory: str) -> str | None:
    holder = read_holder(f"{directory}/lock.json")
    return f"{holder.host}, pid {holder.pid}" if holder and holder.is_alive() else None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.status",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", default="runs/store", help="the store [runs/store]")
    parser.add_argument("--name", default="demo", help="the run [demo]")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of a table")
    chosen = parser.parse_args(arguments)
    try:
        statuses = stage_statuses(read_plan(chosen.root, chosen.name))
    except (StatusError, StoreError) as error:
        print(error, file=sys.stderr)
        return 1
    if chosen.json:
        print(json.dumps([dataclasses.asdict(status) for status in statuses], indent=2))
        return 0
    table = Table("stage", "parts", "rows", "at work", title=f"{chosen.name} in {chosen.root}")
    for status in statuses:
        style = "green" if status.done == status.total else "yellow" if status.done else "dim"
        table.add_row(
            status.stage,
            f"{status.done:,}/{status.total:,}",
            f"{status.rows:,}",
            status.working or "",
            style=style,
        )
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
