"""How far a run is, from files alone: works while it runs, after it died, and from elsewhere.

python -m jobs.status [--root runs/store] [--name demo] [--watch] [--json]
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from jobs.run_status import RunStatus, StatusError, run_status
from pipeline.files import StoreError

WATCH_S = 2.0
QUIET_LOOKS = 5
"""Between two stages, for a moment, nobody holds any: so many looks in a row must find nobody."""


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
    lines = [f"at work: {who}" for who in status.working]
    if not status.working and not status.complete:
        lines.append("nobody is at work on it now; the command that started it goes on from here")
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
        "steps": [
            f"{stage.steps:,}/{stage.total_steps:,}" if stage.total_steps else ""
            for stage in stages
        ],
        "rows": [f"{stage.rows:,}" if stage.rows else "" for stage in stages],
        "rows/s": [f"{stage.rows_per_s:,.1f}" if stage.rows_per_s else "" for stage in stages],
        "left": [_clock(stage.seconds_left) if stage.seconds_left else "" for stage in stages],
        "tokens": [f"{stage.tokens:,}" if stage.tokens else "" for stage in stages],
        "dollars of rows": [f"{stage.dollars:,.2f}" if stage.dollars else "" for stage in stages],
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
    """Until it is complete or nobody is at work on it any more, or Ctrl-C."""
    quiet = QUIET_LOOKS - 1  # where nobody is at work from the start, one look says it
    with Live(console=console, auto_refresh=False) as live:
        while True:
            status = run_status(root, name)
            live.update(table_of(status), refresh=True)
            quiet = 0 if status.working else quiet + 1
            if status.complete or quiet >= QUIET_LOOKS:
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
    except (StatusError, StoreError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if chosen.json:
        print(json.dumps(dataclasses.asdict(status) | {"complete": status.complete}, indent=2))
    else:
        console.print(table_of(status))
    return 0


if __name__ == "__main__":
    sys.exit(main())
