"""An estimate as a person reads it: calls, tokens, dollars, hours, and what they rest on."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from pipeline.estimate import Asked, Estimate


def show(console: Console, result: Estimate, notes: Sequence[str]) -> None:
    stages = (result.sampling, result.rollouts)
    table = Table(title="What it will cost", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for asked in stages:
        table.add_column(f"{asked.stage}\n{asked.policy.rsplit('/', 1)[-1]}", justify="right")
    table.add_column("both", justify="right")
    for name, read in (
        ("calls", lambda a: a.calls),
        ("tokens in", lambda a: a.tokens.prompt),
        ("  of them cached", lambda a: a.tokens.cached),
        ("tokens out", lambda a: a.tokens.answer),
        ("tokens of reasoning", lambda a: a.tokens.reasoning),
    ):
        values = [read(asked) for asked in stages]
        table.add_row(name, *(f"{round(value):,}" for value in (*values, sum(values))))
    table.add_section()
    _add(table, "dollars", stages, lambda a: a.usd, "${:,.2f}")
    _add(table, "  by the Batch API", stages, lambda a: a.batch_usd, "${:,.2f}")
    _add(table, "  if every answer is longest", stages, lambda a: a.worst_usd, "${:,.2f}")
    _add(table, "hours", stages, lambda a: a.hours, "{:,.1f}")
    _add(table, "  by the Batch API *", stages, lambda a: a.batch_hours, "{:,.0f}")
    _add(table, "GPU-hours", stages, lambda a: a.gpu_hours, "{:,.1f}")
    table.add_section()
    run = result.executed
    table.add_row(
        "programs executed", *(f"{n:,.0f}" for n in (run.solutions, run.rollouts, run.programs))
    )
    table.add_row("core-hours, at most", "", "", f"{run.core_hours:,.1f}")
    table.add_row("hours in all slots, at most", "", "", f"{run.hours:,.1f}")
    table.add_section()
    kept = result.footprint
    table.add_row("parts", "", "", f"{kept.parts:,}")
    table.add_row("shards, at most", "", "", f"{kept.shard_bytes / 1e9:,.1f} GB")
    table.add_row("driver's memory for them", "", "", f"{kept.driver_bytes / 1e6:,.1f} MB")
    console.print(table)
    if any(asked.batch_hours for asked in stages):
        console.print(
            "* if every batch is answered within its day: requests that expire, or that find the "
            "queue full, take another",
            highlight=False,
            soft_wrap=True,
        )
    roles = ", ".join(f"{count:,} {role}" for role, count in result.problems_by_role.items())
    console.print(f"problems: {roles}", highlight=False)
    assumed = Table(title="It rests on", title_justify="left", box=box.SIMPLE_HEAD)
    assumed.add_column("", justify="right")
    assumed.add_column("")
    assumed.add_column("source")
    for name in _relevant(result):
        each = getattr(result.assumptions, name)
        assumed.add_row(f"{each.value:,.6g}", each.unit, each.source)
    console.print(assumed)
    for note in notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def _relevant(result: Estimate) -> list[str]:
    """The assumptions that this estimate rests on, by name."""
    stages = (result.sampling, result.rollouts)
    of_an_api = {"reasoning_tokens", "rollout_reasoning_tokens", "cache_hits"}
    unused = {"gpu_tokens_per_s"} if all(a.usd is not None for a in stages) else set()
    if all(asked.usd is None for asked in stages):
        unused |= of_an_api | {"stream_tokens_per_s"}
    fields = dataclasses.fields(result.assumptions)
    return [field.name for field in fields if field.name not in unused]


def _add(table: Table, name: str, stages: Sequence[Asked], read: Any, form: str) -> None:
    values = [read(asked) for asked in stages]
    known = [value for value in values if value is not None]
    if known:
        shown = ("" if value is None else form.format(value) for value in (*values, sum(known)))
        table.add_row(name, *shown)
