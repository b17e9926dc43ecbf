"""The tables of the report's page: problems solved, label quality, other pairs, the papers'."""

from collections.abc import Callable, Mapping
from html import escape

from pipeline.evaluation.html import badge, details, small_range, table
from pipeline.evaluation.labels import LabelQuality
from pipeline.evaluation.metrics import Estimate
from pipeline.evaluation.paper import LEVELS, beside_ours, paper_caption
from pipeline.evaluation.plots import colours
from pipeline.evaluation.results import MethodResult, Selection
from pipeline.evaluation.selection import Aggregator
from pipeline.evaluation.table import percent, points


def accuracy_table(selection: Selection) -> str:
    colour = colours(row.method for row in selection.methods)
    levels = selection.problems_by_difficulty
    return table(
        [
            *("method", "overall, %"),
            f"0 to 100 %<small>bar: {100 * selection.confidence:g}% interval</small>",
            *(f"{escape(level)}<small>n = {n}</small>" for level, n in levels.items()),
            "steps read by",
        ],
        [
            [
                f'<i class="dot" style="background:{colour[row.method]}"></i>{escape(row.title)}',
                _cell(row.overall),
                _strip(row.overall, colour[row.method]),
                *(_cell(estimate) for estimate in row.by_difficulty.values()),
                _choice(row),
            ]
            for row in selection.methods
        ],
    )


def aggregator_tables(selection: Selection) -> str:
    """What each aggregator would have solved, on validation and here; folded away."""
    rows = [row for row in selection.methods if row.choice is not None]
    text = ""
    problems = max((row.choice.problems for row in rows if row.choice), default=0)
    if problems:
        text += details(
            f"How steps are read: all {len(Aggregator)} ways on {problems} validation problems, "
            "% solved",
            _by_aggregator(rows, lambda row: row.choice.validation_accuracy if row.choice else {}),
        )
    if rows:
        text += details(
            f"The same on the {selection.problems} test problems: to be looked at, never to "
            "choose by",
            _by_aggregator(
                rows, lambda row: {name: each.value for name, each in row.by_aggregator.items()}
            ),
        )
    return text


def _by_aggregator(
    rows: list[MethodResult], of: Callable[[MethodResult], Mapping[Aggregator, float]]
) -> str:
    def cell(row: MethodResult, name: Aggregator) -> str:
        value = of(row).get(name)
        text = "" if value is None else percent(value)
        chosen = row.choice is not None and row.choice.aggregator is name
        return f"<strong>{text}</strong>" if chosen else text

    return table(
        ["method", *Aggregator],
        [[escape(row.title), *(cell(row, name) for name in Aggregator)] for row in rows],
    )


def other_pairs(selection: Selection) -> str:
    others = [d for d in selection.differences if not d.planned]
    if not others:
        return ""
    rows = [
        [
            escape(selection.method(d.method).title),
            escape(selection.method(d.baseline).title),
            points(d.difference),
            badge(d.finding),
        ]
        for d in others
    ]
    return details(
        f"All {len(others)} other pairs",
        "<p>The comparisons above were decided before any result. Among all these pairs some "
        "intervals leave out 0 by chance alone: take them as questions for another run.</p>"
        + table(["method", "against", "points", "finding"], rows),
    )


def paper_comparison(selection: Selection) -> str:
    rows = [[escape(name), *map(escape, cells)] for name, cells in beside_ours(selection)]
    return (
        table(["method, theirs / ours", *LEVELS, "overall"], rows)
        + f"<p>{escape(paper_caption(selection))}</p>"
    )


def label_table(selection: Selection) -> str:
    columns: list[tuple[str, Callable[[LabelQuality], str]]] = [
        ("labels of", lambda q: escape(selection.method(q.method).title)),
        ("steps<small>really right</small>", lambda q: f"{q.steps:,}<small>{q.right:,}</small>"),
        ("AUROC", lambda q: _before_after(q.before.auroc, q.after.auroc, q.auroc_change)),
        ("Brier score", lambda q: _before_after(q.before.brier, q.after.brier, q.brier_change)),
        ("ECE", lambda q: _arrow(f"{q.before.ece:.3f}", f"{q.after.ece:.3f}")),
        ("right, below ½", lambda q: _arrow(f"{q.before.missed:,}", f"{q.after.missed:,}")),
        ("wrong, ½ or more", lambda q: _arrow(f"{q.before.trusted:,}", f"{q.after.trusted:,}")),
    ]
    return table(
        [name for name, _ in columns],
        [[of(quality) for _, of in columns] for quality in selection.labels],
    )


def _strip(estimate: Estimate, colour: str) -> str:
    """The value as a tick and its interval as a bar, on a scale from 0 to 100 %."""
    bar = ""
    if estimate.interval is not None:
        low, high = 100 * estimate.interval.low, 100 * estimate.interval.high
        bar = f'<b style="left:{low:.2f}%;width:{high - low:.2f}%;background:{colour}"></b>'
    tick = f'<u style="left:{100 * estimate.value:.2f}%;background:{colour}"></u>'
    return f'<div class="strip">{bar}{tick}</div>'


def _cell(estimate: Estimate) -> str:
    text = percent(estimate.value)
    if estimate.interval is None:
        return f"{text}<small>one problem</small>"
    return text + small_range(percent(estimate.interval.low), percent(estimate.interval.high))


def _choice(row: MethodResult) -> str:
    if row.choice is None:
        return ""
    return f"{row.choice.aggregator}<small>{escape(row.choice.reason)}</small>"


def _before_after(before: Estimate | None, after: Estimate | None, change: Estimate | None) -> str:
    """`0.946 → 0.964` with the interval of the change; one value and its own where nothing did."""
    if before is None or after is None or change is None:
        return "<small>one class only</small>"
    text = _arrow(f"{before.value:.3f}", f"{after.value:.3f}")
    shown, form, note = (
        (before.interval, "{:.3f}", "")
        if change.value == 0.0
        else (change.interval, "{:+.3f}", "change ")
    )
    if shown is None:
        return text
    low, high = (form.format(end).replace("-", "\N{MINUS SIGN}") for end in (shown.low, shown.high))
    return text + small_range(note + low, high)


def _arrow(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"
