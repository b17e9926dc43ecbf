"""Write a report: `selection.json`, one PNG per picture, and `report.html`, which needs neither."""

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from pipeline.evaluation.page import report_page
from pipeline.evaluation.plots import (
    best_of_n_plot,
    label_quality_plot,
    reliability_plot,
    training_plot,
)
from pipeline.evaluation.results import CalibrationTarget, Selection, to_json
from pipeline.evaluation.run_facts import RunFacts, TrainingPoint


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """Where a report lies."""

    selection: Path
    page: Path
    pictures: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Picture:
    """A plot with its file name and what to look for in it."""

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure]


def write_report(
    directory: Path,
    selection: Selection,
    facts: RunFacts,
    history: Sequence[TrainingPoint] = (),
) -> ReportFiles:
    """Write the report into `directory`, which is made, and replace what an earlier one left.

    A picture whose data is not there (no truth, no scores, no history) is left out. Raises OSError
    where the directory cannot be written; no file is ever left half-written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    drawn = [(picture, _png(picture.draw())) for picture in _pictures(selection, history)]
    paths = [_replace(directory / f"{picture.name}.png", png) for picture, png in drawn]
    page = report_page(selection, facts, [(p.title, p.caption, png) for p, png in drawn])
    return ReportFiles(
        selection=_replace(directory / "selection.json", to_json(selection, run=facts).encode()),
        page=_replace(directory / "report.html", page.encode()),
        pictures=tuple(paths),
    )


def _pictures(selection: Selection, history: Sequence[TrainingPoint]) -> list[_Picture]:
    pictures = [
        _Picture(
            "best_of_n",
            "More programs to choose from",
            "A good scorer climbs towards the oracle as N grows; one that bends down prefers "
            "confident wrong programs. At N = 1 there is no choice, so all start at pass@1. "
            "Whether two methods differ is said under 'What was found', not by this picture.",
            lambda: best_of_n_plot(selection),
        )
    ]
    if selection.labels:
        pictures.append(
            _Picture(
                "label_quality",
                "Label quality before and after correction",
                "Rings are labels before correction, dots after, bars the interval after, held "
                "against which prefixes are really right. Correction that works moves dots right "
                "in the first panel and left in the second. Better labels by these measures need "
                "not select better programs: look at the table for that.",
                lambda: label_quality_plot(selection),
            )
        )
    if selection.calibration:
        shown = "The score of the last step against the unit tests. "
        if any(held.target is CalibrationTarget.TRUTH for held in selection.calibration):
            shown = (
                "By rows, the score of the last step against the unit tests, or scores of earlier "
                "steps against the truth. "
            )
        pictures.append(
            _Picture(
                "reliability",
                "Can the scores be taken as probabilities?",
                shown + "On the dashed line, a score of 0.7 "
                "is right in 70 % of the cases; below it the method is overconfident. A dot's "
                "area is the number of scores, its bar the interval, ECE the mean distance from "
                "the line. Selection needs a good order only, so a curve off the line may still "
                "select well.",
                lambda: reliability_plot(selection),
            )
        )
    if history:
        pictures.append(
            _Picture(
                "training",
                "Training",
                "Thin lines are logged steps, thick ones their running mean. Losses of methods "
                "with different targets have different floors: compare shapes, not heights. A mean "
                "label that runs towards 0 or 1 means that correction drifts instead of "
                "correcting.",
                lambda: training_plot(selection, history),
            )
        )
    return pictures


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # No creation date and no library version inside: the same result gives the same file.
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def _replace(path: Path, content: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(content)
    os.replace(temporary, path)
    return path
