"""The selection table for the terminal, and the label table beside it."""

from collections.abc import Iterable

from rich import box
from rich.table import Table
from rich.text import Text

from pipeline.evaluation.metrics import Estimate
from pipeline.evaluation.results import Difference, Finding, Selection

FUNCTIONS = " functions"
"""How the scale model's difficulties end: they count the functions of the reference program."""


def selection_table(selection: Selection) -> Table:
    """Accuracy of best-of-N in percent, one row per method, overall and per difficulty.

    It fits a terminal of 80 columns with three difficulties.
    """
    levels = selection.problems_by_difficulty
    by_functions = all(level.endswith(FUNCTIONS) for level in levels)
    table = Table(
        title=f"Best-of-{selection.most_candidates} on {selection.problems} test problems, "
        f"% solved, by {'number of functions' if by_functions else 'difficulty'}",
        caption=_caption(selection),
        caption_justify="left",
        caption_style="",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("method", no_wrap=True)
    table.add_column(f"overall\n[{100 * selection.confidence:g}%]", justify="right", no_wrap=True)
    for level, count in levels.items():
        name = level.removesuffix(FUNCTIONS) if by_functions else level
        table.add_column(f"{name}\nn={count}", justify="right", no_wrap=True)
    table.add_column("steps\nread by", no_wrap=True)
    for row in selection.methods:
        table.add_row(
            row.title,
            percent_with_interval(row.overall),
            *(percent(estimate.value) for estimate in row.by_difficulty.values()),
            row.choice.aggregator.value if row.choice else "",
        )
    return table


def label_table(selection: Selection) -> Table:
    """How good the training labels of intermediate steps are, where the truth is known."""
    rows = [
        (
            selection.method(quality.method).title,
            before_after(
                quality.before.auroc.value if quality.before.auroc else None,
                quality.after.auroc.value if quality.after.auroc else None,
            ),
            before_after(quality.before.brier.value, quality.after.brier.value),
            before_after(quality.before.ece, quality.after.ece),
        )
        for quality in selection.labels
    ]
    return label_quality_table("before → after correction", rows)


def label_quality_table(what: str, rows: Iterable[tuple[str, str, str, str]]) -> Table:
    """Rows are (method, AUROC, Brier score, expected calibration error)."""
    table = Table(
        title=f"Step labels against the known truth, {what}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in ("labels of", "AUROC", "Brier score", "ECE"):
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def before_after(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return "one class only"
    return f"{before:.3f}" if before == after else f"{before:.3f} → {after:.3f}"


def _caption(selection: Selection) -> Text:
    lines = [_comparison(selection, d) for d in selection.differences if d.planned]
    if lines:
        lines.insert(0, "Differences in points, on the same problems:")
    unscored = [f"{row.title}: {row.unscored}" for row in selection.methods if row.unscored]
    if unscored:
        lines.append(f"Candidates without a score, ranked last: {', '.join(unscored)}")
    return Text("\n".join(lines))


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


def _comparison(selection: Selection, difference: Difference) -> str:
    """`PRM soft against ORM: +4.2 [+1.0, +7.4], higher`"""
    method, baseline = (
        selection.method(name).title for name in (difference.method, difference.baseline)
    )
    finding = difference.finding
    if finding is Finding.WITHIN_NOISE:
        finding = finding.upper()
    return f"{method} against {baseline}: {points(difference.difference)}, {finding}"
