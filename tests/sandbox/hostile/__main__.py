"""`python -m tests.sandbox.hostile [NAME ...]`: the suite's table, on the local Docker engine."""

import argparse
import sys
from collections import Counter

from rich.console import Console
from rich.table import Table

from sandbox import Sandbox
from sandbox.image import ensure_image
from tests.sandbox.hostile import ENTRIES
from tests.sandbox.hostile.trial import Court, Trial


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.sandbox.hostile", description=__doc__)
    parser.add_argument("names", nargs="*", help="only these programs; default: all")
    names = parser.parse_args().names
    if unknown := set(names) - {entry.name for entry in ENTRIES}:
        parser.error(f"no such program: {', '.join(sorted(unknown))}")
    ensure_image()
    table = Table("program", "category", "expected", "verdict", "detail", "s", "canary", "empty")
    trials = []
    with Sandbox("docker") as sandbox:
        court = Court(sandbox)
        for entry in ENTRIES:
            if not names or entry.name in names:
                print(f"\r\033[K{entry.name}", end="", file=sys.stderr, flush=True)  # noqa: T201
                trials.append(court.try_(entry))
                style = None if trials[-1].is_as_it_must_be else "red"
                table.add_row(*_cells(trials[-1]), style=style)
    print("\r\033[K", end="", file=sys.stderr)  # noqa: T201
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    failed = [trial.entry.name for trial in trials if not trial.is_as_it_must_be]
    statuses = Counter(trial.verdict.status.value for trial in trials)
    console.print(
        f"{len(trials)} programs in {sum(trial.seconds for trial in trials):.0f} s: "
        f"{', '.join(f'{count} {status}' for status, count in sorted(statuses.items()))}; "
        f"{sum(trial.was_recycled for trial in trials)} recycled the container; "
        f"{len(failed)} not as they must be{': ' + ', '.join(failed) if failed else ''}"
    )
    sys.exit(bool(failed))


def _cells(trial: Trial) -> tuple[str, ...]:
    return (
        trial.entry.name,
        trial.entry.category.value,
        trial.entry.status.value,
        trial.verdict.status.value,
        trial.verdict.detail[:60],
        f"{trial.seconds:.2f}",
        "AC" if trial.is_canary_accepted else "rejected",
        "yes" if not trial.remains else " ".join(trial.remains),
    )


if __name__ == "__main__":
    main()
