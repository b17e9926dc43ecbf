"""What an evaluation says in the model card of a PRM: the selection table, as Markdown."""

from collections.abc import Iterator

from pipeline.evaluation.results import Selection
from pipeline.evaluation.table import before_after, percent, percent_with_interval


def selection_section(selection: Selection, method: str, run: str) -> str:
    """Best-of-N of every method of a run, that of the card (`ArmConfig.name`) in bold, and its
    label quality where the truth is known."""
    return "\n".join(_lines(selection, method, run))


def _lines(selection: Selection, method: str, run: str) -> Iterator[str]:
    levels = selection.problems_by_difficulty
    yield (
        f"Best-of-{selection.most_candidates} on {selection.problems} test problems in the run "
        f"`{run}`, % solved, with the interval of {100 * selection.confidence:g} % over problems:"
    )
    yield ""
    names = [f"{level} (n={count})" for level, count in levels.items()]
    yield _row(["", "overall", *names, "steps read by"])
    yield _row(["---"] * (len(names) + 3))
    for row in selection.methods:
        cells = [row.title, percent_with_interval(row.overall)]
        cells += [percent(row.by_difficulty[level].value) for level in levels]
        if row.method == method:
            cells = [f"**{cell}**" for cell in cells]
        yield _row([*cells, row.choice.aggregator.value if row.choice else ""])
    for quality in selection.labels:
        if quality.method == method:
            auroc = before_after(
                quality.before.auroc.value if quality.before.auroc else None,
                quality.after.auroc.value if quality.after.auroc else None,
            )
            brier = before_after(quality.before.brier.value, quality.after.brier.value)
            yield ""
            yield (
                f"Its labels against the known truth of {quality.steps} steps: AUROC {auroc}, "
                f"Brier score {brier}."
            )


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
