"""The selection table for the terminal."""

from rich.table import Table

from pipeline.evaluation.metrics import Estimate
from pipeline.evaluation.results import Difference, Finding, Selection


def selection_table(selection: Selection) -> Table:
    """Accuracy of best-of-N in percent, one row per method, overall and per difficulty."""
    table = Table(
        title=f"Best-of-{selection.most_candidates} on {selection.problems} test problems, "
        "% solved",
        caption=_caption(selection),
        caption_justify="left",
        title_justify="left",
    )
    table.add_column("method", no_wrap=True)
    table.add_column(f"overall [{selection.confidence:.0%} interval]", justify="right")
    for level, count in selection.problems_by_difficulty.items():
        table.add_column(f"{difficulty_title(level)}\nn = {count}", justify="right")
    table.add_column("steps read by")
    for row in selection.methods:
        table.add_row(
            row.title,
            percent_with_interval(row.overall),
            *(percent(estimate.value) for estimate in row.by_difficulty.values()),
            row.choice.aggregator.value if row.choice else "",
            end_section=row.choice is None and row is not selection.methods[-1],
        )
    return table


def _caption(selection: Selection) -> str:
    lines = [f"{comparison(selection, d)}." for d in selection.differences if d.planned]
    unscored = [f"{row.title}: {row.unscored}" for row in selection.methods if row.unscored]
    if unscored:
        lines.append(f"Candidates without a score, ranked last: {', '.join(unscored)}.")
    return "\n".join(lines)


def difficulty_title(level: str) -> str:
    """The scale model's difficulty is a number: of the functions in the reference program."""
    return f"{level} functions" if level.isdigit() else level


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def percent_with_interval(estimate: Estimate) -> str:
    if estimate.interval is None:
        return percent(estimate.value)
    low, high = percent(estimate.interval.low), percent(estimate.interval.high)
    return f"{percent(estimate.value)} [{low}, {high}]"


def points(estimate: Estimate) -> str:
    """A difference of accuracies in percentage points, signed."""
    text = f"{100 * estimate.value:+.1f}"
    if estimate.interval is not None:
        low, high = estimate.interval.low, estimate.interval.high
        text += f" [{100 * low:+.1f}, {100 * high:+.1f}]"
    return text.replace("-", "\N{MINUS SIGN}")


def comparison(selection: Selection, difference: Difference) -> str:
    """`PRM soft against ORM: +4.2 [+1.0, +7.4] points, higher`"""
    method, baseline = (
        selection.method(name).title for name in (difference.method, difference.baseline)
    )
    finding = difference.finding
    if finding is Finding.WITHIN_NOISE:
        finding = finding.upper()
    return f"{method} against {baseline}: {points(difference.difference)} points, {finding}"
