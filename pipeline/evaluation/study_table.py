"""A study for the terminal: three tables, each at home in 80 columns with five seeds."""

from collections.abc import Iterator

from rich import box
from rich.table import Table

from pipeline.evaluation.results import Finding
from pipeline.evaluation.study import Spread, Study, StudyDifference
from pipeline.evaluation.table import (
    before_after,
    label_quality_table,
    percent,
    percent_with_interval,
    points,
)


def study_tables(study: Study) -> Iterator[Table]:
    """Accuracies; paired differences; label quality, where the truth is known."""
    yield _accuracies(study)
    if study.differences:
        yield _differences(study)
    if study.labels:
        yield _labels(study)


def _accuracies(study: Study) -> Table:
    seeds = f"{len(study.seeds)} of {study.planned} seeds"
    table = _table(
        f"Best-of-{study.most_candidates} on {study.problems} test problems, % solved, {seeds}"
    )
    table.add_column("method", no_wrap=True)
    table.add_column(f"mean\n[{100 * study.confidence:g}%]", justify="right", no_wrap=True)
    table.add_column("s.d.", justify="right")
    table.add_column("by seed\n" + " ".join(f"{seed:>5}" for seed in study.seeds), no_wrap=True)
    for row in study.methods:
        table.add_row(
            row.title,
            percent_with_interval(row.estimate),
            "" if row.solved.deviation is None else percent(row.solved.deviation),
            " ".join(f"{percent(value):>5}" for value in row.solved.by_seed),
        )
    return table


def _differences(study: Study) -> Table:
    baselines = list(dict.fromkeys(d.baseline for d in study.differences))
    table = _table("Differences in points, paired by seed and problem (* beyond noise)")
    table.add_column("method", no_wrap=True)
    table.add_column("rate", justify="right", no_wrap=True)
    for baseline in baselines:
        table.add_column(f"against\n{study.method(baseline).title}", no_wrap=True)
    for row in study.methods:
        if row.learning_rate is None:
            continue
        cells = (_difference(study.against(row.method, baseline)) for baseline in baselines)
        table.add_row(row.title, f"{row.learning_rate:g}", *cells)
    return table


def _difference(difference: StudyDifference | None) -> str:
    if difference is None:
        return ""
    told = difference.finding in (Finding.HIGHER, Finding.LOWER)
    return points(difference.difference) + (" *" if told else "")


def _labels(study: Study) -> Table:
    rows = [
        (
            study.method(row.method).title,
            before_after(_mean(row.before.auroc), _mean(row.after.auroc)),
            before_after(_mean(row.before.brier), _mean(row.after.brier)),
            before_after(_mean(row.before.ece), _mean(row.after.ece)),
        )
        for row in study.labels
    ]
    return label_quality_table("before → after correction, mean over seeds", rows)


def _mean(spread: Spread | None) -> float | None:
    return None if spread is None else spread.mean


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
