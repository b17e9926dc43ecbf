"""The report's pictures. A method keeps its colour (of Okabe and Ito's, then of Tol's, which are
safe for colour-blind readers) in all of them, and is named where it is drawn, so that nobody has to
match a legend."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.evaluation.labels import LabelQuality
from pipeline.evaluation.methods import ORACLE, PASS_AT_1
from pipeline.evaluation.metrics import Estimate
from pipeline.evaluation.results import Calibration, CalibrationTarget, Selection
from pipeline.evaluation.run_facts import TrainingPoint

_PALETTE = (
    *("#E69F00", "#56B4E9", "#0072B2", "#D55E00", "#CC79A7", "#009E73"),
    *("#882255", "#999933", "#44AA99"),
)
PANELS_ACROSS = 5
"""More of them side by side cannot be read on a page."""
_INK, _FAINT = "#222222", "#D9D9D9"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": "#8A8A8A",
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
}


def colours(methods: Iterable[str]) -> dict[str, str]:
    """Method name -> its colour in every plot and in the page."""
    arms = [name for name in methods if name not in (PASS_AT_1, ORACLE)]
    chosen = dict(zip(arms, itertools.cycle(_PALETTE), strict=False))
    return {PASS_AT_1: "#7A7A7A"} | chosen | {ORACLE: "#000000"}


def _titles(selection: Selection) -> dict[str, str]:
    return {row.method: row.title for row in selection.methods}


def best_of_n_plot(selection: Selection) -> Figure:
    """Accuracy against N for every method. No intervals: the bands of five methods are one grey."""
    colour = colours(row.method for row in selection.methods)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        axes = figure.subplots()
        n = np.arange(1, selection.most_candidates + 1)
        ends: list[tuple[float, str, str]] = []
        for row in selection.methods:
            values = np.array([100 * estimate.value for estimate in row.curve])
            reference = row.method in (PASS_AT_1, ORACLE)
            axes.plot(
                n,
                values,
                color=colour[row.method],
                linewidth=1.2 if reference else 1.8,
                linestyle=(0, (4, 2)) if reference else "-",
                marker="o" if len(n) == 1 else None,
            )
            ends.append((values[-1], f"{row.title}  {values[-1]:.1f}", colour[row.method]))
        _label_ends(axes, float(n[-1]), ends, gap=0.052)
        axes.set(
            xlabel="N, programs to choose from",
            ylabel="problems solved, %",
            xlim=(1, max(n[-1], 1.01)),
            xticks=n if len(n) <= 16 else n[:: len(n) // 8],
        )
        axes.grid(visible=False, axis="x")
        return figure


def _label_ends(
    axes: Axes, x: float, ends: Sequence[tuple[float, str, str]], *, gap: float
) -> None:
    """Name each line at its right end; labels nearer than `gap` (of the height) are moved apart."""
    low, high = axes.get_ylim()
    rows = sorted(ends)
    places = _apart([y for y, _, _ in rows], gap=(high - low) * gap)
    for (y, text, colour), place in zip(rows, places, strict=True):
        axes.annotate(
            text,
            xy=(x, y),
            xytext=(1.035, place),
            textcoords=("axes fraction", "data"),
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
            annotation_clip=False,
        )
        axes.plot([x], [y], marker="o", markersize=4.5, color=colour, clip_on=False)


def _apart(values: Sequence[float], gap: float) -> list[float]:
    """Sorted places at least `gap` apart, as near to the sorted `values` as their order allows.

    Neighbours that are too close form a block, which is centred on the mean of its members.
    """
    blocks: list[list[float]] = []  # each: the values it holds
    for value in values:
        blocks.append([value])
        while len(blocks) > 1 and _top(blocks[-2], gap) + gap > _bottom(blocks[-1], gap):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [_bottom(block, gap) + index * gap for block in blocks for index in range(len(block))]


def _bottom(block: Sequence[float], gap: float) -> float:
    return sum(block) / len(block) - gap * (len(block) - 1) / 2


def _top(block: Sequence[float], gap: float) -> float:
    return _bottom(block, gap) + gap * (len(block) - 1)


def label_quality_plot(selection: Selection) -> Figure:
    """Before (ring) and after (dot) correction; raises ValueError where no truth is known."""
    if not selection.labels:
        raise ValueError("no label quality to draw: the truth of the training steps is not known")
    panels: list[tuple[str, Callable[[LabelQuality], tuple[Estimate | None, Estimate | None]]]] = [
        ("AUROC, more is better", lambda q: (q.before.auroc, q.after.auroc)),
        ("Brier score, less is better", lambda q: (q.before.brier, q.after.brier)),
    ]
    colour, title = colours(row.method for row in selection.methods), _titles(selection)
    rows = selection.labels[::-1]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 1.2 + 0.42 * len(rows)), layout="constrained")
        both = figure.subplots(1, 2, sharey=True, squeeze=False)[0]
        for axes, (name, pick) in zip(both, panels, strict=True):
            for y, quality in enumerate(rows):
                _before_after(axes, y, *pick(quality), colour=colour[quality.method])
            axes.set_title(name)
            axes.margins(x=0.12, y=0.12)
            axes.set_ylim(-0.5, len(rows) - 0.4)
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="y", length=0, labelcolor=_INK)
        both[0].set_yticks(range(len(rows)), [title[quality.method] for quality in rows])
        return figure


def _before_after(
    axes: Axes, y: int, before: Estimate | None, after: Estimate | None, *, colour: str
) -> None:
    if before is None or after is None:
        return
    if after.interval is not None:
        axes.plot(
            [after.interval.low, after.interval.high],
            [y, y],
            color=colour,
            alpha=0.3,
            linewidth=6,
            solid_capstyle="butt",
        )
    if before.value != after.value:
        axes.annotate(
            "",
            xy=(after.value, y),
            xytext=(before.value, y),
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 1.2},
        )
        axes.plot([before.value], [y], "o", markersize=7, markerfacecolor="white", color=colour)
    axes.plot([after.value], [y], "o", markersize=7, color=colour)
    axes.annotate(
        f"{after.value:.3f}",
        (after.value, y),
        xytext=(0, 7),
        textcoords="offset points",
        ha="center",
        fontsize=8,
    )


def reliability_plot(selection: Selection) -> Figure:
    """Share of right steps against score: a panel per method and target, methods side by side as
    far as a page is wide, targets below each other; raises ValueError where there are no scores."""
    targets = [t for t in CalibrationTarget if any(c.target is t for c in selection.calibration)]
    if not targets:
        raise ValueError("no calibration to draw: no method has scores")
    methods = list(dict.fromkeys(row.method for row in selection.calibration))
    cells = {(row.target, row.method): row for row in selection.calibration}
    colour, title = colours(row.method for row in selection.methods), _titles(selection)
    across = -(-len(methods) // -(-len(methods) // PANELS_ACROSS))  # as even rows as can be
    shown = [
        (target, methods[start : start + across])
        for start in range(0, len(methods), across)
        for target in targets
        if any((target, method) in cells for method in methods[start : start + across])
    ]
    with mpl.rc_context(STYLE):
        size = (max(1.75 * across, 2.6), 0.6 + 1.9 * len(shown))
        figure = Figure(figsize=size, layout="compressed")
        grid = figure.subplots(len(shown), across, sharex=True, sharey=True, squeeze=False)
        for panels, (target, some) in zip(grid, shown, strict=True):
            first = True
            for axes, method in itertools.zip_longest(panels, some):
                if (target, method) not in cells:
                    axes.set_axis_off()
                    continue
                _reliability_panel(axes, cells[target, method], colour[method])
                axes.set_title(title[method].replace(" + ", " +\n"), fontsize=8.5)
                axes.tick_params(labelbottom=True, labelleft=first)
                axes.set_xlabel("score", fontsize=8)
                if first:
                    axes.set_ylabel(_SHARE[target], fontsize=8)
                first = False
        return figure


_SHARE = {
    CalibrationTarget.OUTCOME: "share of programs\nthat pass (last step)",
    CalibrationTarget.TRUTH: "share of prefixes\nthat are right",
}


def _reliability_panel(axes: Axes, row: Calibration, colour: str) -> None:
    axes.plot([0, 1], [0, 1], color="#9A9A9A", linewidth=0.8, linestyle=(0, (3, 3)))
    filled = [b for b in row.reliability.bins if b.mean_score is not None]
    most = max(b.count for b in filled)
    x = [b.mean_score for b in filled if b.mean_score is not None]
    y = [b.positives / b.count for b in filled]
    for at, b in zip(x, filled, strict=True):
        if b.interval is not None:
            axes.plot([at, at], [b.interval.low, b.interval.high], color=colour, alpha=0.45)
    axes.plot(x, y, color=colour, linewidth=1.0)
    axes.scatter(x, y, s=[6 + 40 * b.count / most for b in filled], color=colour, zorder=3)
    axes.text(
        0.97,
        0.04,
        f"ECE {row.reliability.ece:.3f}",
        ha="right",
        fontsize=8,
        transform=axes.transAxes,
    )
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")


def training_plot(selection: Selection, history: Sequence[TrainingPoint]) -> Figure:
    """Training loss, meta loss and mean label against the optimizer step, as far as logged; raises
    ValueError on no history."""
    if not history:
        raise ValueError("no training history to draw")
    panels: list[tuple[str, Callable[[TrainingPoint], float | None]]] = [
        ("training loss", lambda point: point.loss),
        ("meta loss", lambda point: point.meta_loss),
        ("mean label of the earlier steps", lambda point: point.mean_label),
    ]
    panels = [(name, of) for name, of in panels if any(of(p) is not None for p in history)]
    colour, title = colours(row.method for row in selection.methods), _titles(selection)
    arms = [name for name in title if any(point.arm == name for point in history)]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 2.9 * len(panels)), layout="constrained")
        for axes, (name, of) in zip(
            figure.subplots(len(panels), squeeze=False).flat, panels, strict=True
        ):
            ends: list[tuple[float, str, str]] = []
            last = 0
            for arm in arms:
                rows = sorted(
                    (p.step, v) for p in history if p.arm == arm and (v := of(p)) is not None
                )
                if not rows:
                    continue
                steps, values = map(np.array, zip(*rows, strict=True))
                axes.plot(steps, values, color=colour[arm], alpha=0.25, linewidth=0.8)
                smooth = _running_mean(values)
                axes.plot(steps, smooth, color=colour[arm], linewidth=1.8)
                ends.append((float(smooth[-1]), title[arm], colour[arm]))
                last = max(last, int(steps[-1]))
            _label_ends(axes, last, ends, gap=0.085)
            axes.set_title(name)
            axes.grid(visible=False, axis="x")
            axes.set(xlim=(0, max(last, 1)), xlabel="optimizer step")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return figure


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last twentieth of the run, shorter at its beginning."""
    width = max(1, len(values) // 20)
    total = np.cumsum(np.concatenate([[0.0], values]))
    at = np.arange(1, len(values) + 1)
    start = np.maximum(at - width, 0)
    return (total[at] - total[start]) / (at - start)
