"""A study in one picture: what every arm solves, and how that differs from uncorrected labels."""

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.evaluation.metrics import Estimate
from pipeline.evaluation.plots import STYLE, colours
from pipeline.evaluation.study import Study


def study_plot(study: Study) -> Figure:
    """A row per method: rings are seeds, the dot is their mean, the bar its interval over seeds and
    problems. A panel per baseline holds the paired differences."""
    baselines = list(dict.fromkeys(d.baseline for d in study.differences))
    colour = colours(row.method for row in study.methods)
    rows = {row.method: place for place, row in enumerate(reversed(study.methods))}
    with mpl.rc_context(STYLE):
        size = (4.2 + 2.9 * len(baselines), 1.1 + 0.36 * len(rows))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, 1 + len(baselines), sharey=True, squeeze=False)[0]
        for row in study.methods:
            place = rows[row.method]
            _row(panels[0], place, row.estimate, row.solved.by_seed, colour[row.method])
        panels[0].set_title(f"best-of-{study.most_candidates}, % solved")
        titles = {row.method: row.title for row in study.methods}
        for axes, baseline in zip(panels[1:], baselines, strict=True):
            axes.axvline(0, color="#8A8A8A", linewidth=1)
            for d in study.differences:
                if d.baseline == baseline:
                    _row(axes, rows[d.method], d.difference, d.by_seed, colour[d.method])
            axes.set_title(f"points against {titles[baseline]}")
        panels[0].set_yticks(list(rows.values()), [titles[name] for name in rows])
        for axes in panels:
            axes.set_ylim(-0.6, len(rows) - 0.4)
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="y", length=0)
        return figure


def _row(
    axes: Axes, place: int, estimate: Estimate, by_seed: tuple[float, ...], colour: str
) -> None:
    if estimate.interval is not None:
        ends = [100 * estimate.interval.low, 100 * estimate.interval.high]
        axes.plot(ends, [place] * 2, color=colour, alpha=0.3, linewidth=6, solid_capstyle="butt")
    axes.plot(
        [100 * value for value in by_seed],
        [place] * len(by_seed),
        "o",
        markersize=5,
        markerfacecolor="none",
        color=colour,
        alpha=0.7,
    )
    axes.plot([100 * estimate.value], [place], "o", markersize=7, color=colour)
