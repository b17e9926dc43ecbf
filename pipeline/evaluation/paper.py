"""The papers' own figures, to stand beside ours where the test problems are LiveCodeBench's.

Table of DreamPRM-Code (arXiv 2512.15000): one program per problem chosen among candidates of
o4-mini with reasoning effort high, on the 131 problems of LiveCodeBench released from 2025-02-01.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rich import box
from rich.table import Table

from pipeline.config import Correction, Targets
from pipeline.evaluation.methods import kind_title
from pipeline.evaluation.results import MethodResult, Selection

LEVELS = ("easy", "medium", "hard")
PROBLEMS = 131


@dataclass(frozen=True, slots=True)
class PaperRow:
    """A method of the paper, % solved at each of `LEVELS` and overall, and the title that the same
    method has in our tables."""

    name: str
    by_level: tuple[float, float, float]
    overall: float
    ours: str


PAPER = (
    PaperRow("o4-mini-high", (100.0, 89.7, 57.4), 77.1, "pass@1"),
    PaperRow("ORM", (100.0, 89.7, 62.3), 79.4, kind_title(Targets.FINAL)),
    PaperRow("PRM-CoF", (100.0, 92.3, 62.3), 80.2, kind_title(Targets.SOFT)),
    PaperRow(
        "DreamPRM-Code",
        (100.0, 92.3, 63.9),
        80.9,
        kind_title(Targets.SOFT, Correction.LABELS),
    ),
)


def beside_ours(selection: Selection) -> Iterator[tuple[str, list[str]]]:
    """Row by row, (method, cells): easy, medium, hard and overall, each as `paper / ours`; a dash
    where this run has no such method or no problem of that difficulty."""
    for row in PAPER:
        ours = next((m for m in selection.methods if _is(m, row)), None)
        paper = dict(zip(LEVELS, row.by_level, strict=True))
        cells = [f"{paper[level]:.1f} / {_at(ours, level)}" for level in LEVELS]
        yield (
            f"{row.name} / {row.ours}",
            [*cells, f"{row.overall:.1f} / {_percent(ours.overall.value if ours else None)}"],
        )


def paper_caption(selection: Selection) -> str:
    return (
        f"The papers': {PROBLEMS} problems released from 2025-02-01, candidates of o4-mini-high "
        f"(arXiv 2512.15000). Ours: {selection.problems} problems, best of "
        f"{selection.most_candidates}."
    )


def paper_table(selection: Selection) -> Table:
    """For the terminal."""
    table = Table(
        title="Beside the papers' figures: % solved, theirs / ours",
        title_justify="left",
        caption=paper_caption(selection),
        caption_justify="left",
        caption_style="",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("method, theirs / ours")
    for name in (*LEVELS, "overall"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, cells in beside_ours(selection):
        table.add_row(name, *cells)
    return table


def _is(method: MethodResult, row: PaperRow) -> bool:
    return row.ours == method.title


def _at(method: MethodResult | None, level: str) -> str:
    found = method.by_difficulty.get(level) if method else None
    return _percent(found.value if found else None)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
