"""What is in a file of problems: a summary table, bad rows, duplicates.

python -m jobs.problems FILE... [--format NAME] [--before DATE] [--after DATE] [--json]

FILE is a JSON-lines file (plain or compressed), a folder of them, or a dataset of the Hugging Face
hub, `hf://datasets/OWNER/NAME[@REVISION][/FILE]`.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.problem_options import add_problem_options, read_statements
from pipeline.config import SplitsConfig
from pipeline.printable import printable
from pipeline.problems import BadRows, NoProblems, UnknownForm
from pipeline.problems.reading import Reading
from pipeline.problems.summary import Spread, Summary, summarise
from pipeline.settings import ConfigError

_SHOWN = 20
_WIDTH = 30  # with it, the longest bar fits a terminal of 80 columns


def as_json(form: str, reading: Reading, summary: Summary) -> str:
    found = {
        "format": form,
        **dataclasses.asdict(summary),
        "near_duplicates": [str(each) for each in summary.near_duplicates],
        "filtered": reading.filtered,
        "bad_rows": [dataclasses.asdict(row) for row in reading.bad],
        "duplicates": [dataclasses.asdict(each) for each in reading.duplicates],
    }
    return json.dumps(found, indent=2, ensure_ascii=False)


def show(console: Console, form: str, reading: Reading, summary: Summary) -> None:
    table = Table(title=f"{summary.problems:,} problems, format {form}", box=box.SIMPLE_HEAD)
    table.title_justify = "left"
    table.add_column("")
    table.add_column("")
    table.add_column("problems", justify="right")
    sections: list[tuple[str, Mapping[str, int]]] = [
        ("platform", summary.by_platform),
        ("difficulty", summary.by_difficulty),
        ("kind of test", summary.by_kind_of_test),
        ("month", summary.by_month),
        ("role by date *", summary.by_role),
    ]
    for title, counts in sections:
        widest = max([1, *counts.values()])
        for index, (name, count) in enumerate(counts.items()):
            bar = "▇" * round(_WIDTH * count / widest) if title == "month" else ""
            label = Text(printable(name) or "(none)")
            table.add_row("" if index else title, label, f"{count:,}", bar)
        table.add_section()
    console.print(table)
    public = f"{summary.public_tests:,} of {summary.tests.total:,} public"
    console.print(f"tests per problem: {_spread(summary.tests)} ({public})")
    console.print(f"characters per statement: {_spread(summary.statement_characters)}")
    console.print(
        f"left out: {reading.filtered:,} by filters, {reading.bad_rows:,} bad rows, "
        f"{len(reading.duplicates):,} duplicates"
    )
    for note in reading.left_out():
        for line in note.split("\n"):
            console.print(Text(f"  {printable(line)}"), soft_wrap=True)
    dropped = summary.near_duplicates
    console.print(
        f"* as `splits` is by default; {len(dropped):,} near-duplicates across roles would be "
        "dropped",
        soft_wrap=True,
    )
    for each in dropped[:_SHOWN]:
        console.print(Text(f"  {printable(str(each))}"), soft_wrap=True)
    if len(dropped) > _SHOWN:
        console.print(f"  and {len(dropped) - _SHOWN:,} more (--json lists all)")


def _spread(spread: Spread) -> str:
    return f"{spread.least:,} to {spread.most:,}, median {spread.median:,g}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.problems",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE")
    add_problem_options(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        help="one JSON object instead of a table; it "
        "lists every bad row and duplicate, also where bad rows stop the job",
    )
    chosen = parser.parse_args(arguments)
    try:
        form, reading = read_statements(chosen, chosen.files)
    except (BadRows, NoProblems, UnknownForm, ConfigError, OSError) as error:
        if chosen.json and isinstance(error, BadRows):
            rows = [dataclasses.asdict(row) for row in error.rows]
            print(json.dumps({"bad_rows": rows}, indent=2, ensure_ascii=False))
        print(error, file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    summary = summarise(reading.problems, SplitsConfig())
    if chosen.json:
        print(as_json(form, reading, summary))
    else:
        show(Console(), form, reading, summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
