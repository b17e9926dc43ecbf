"""What a sweep over settings found on the validation problems: which is best, as table and plot."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from matplotlib.figure import Figure
from rich.table import Table

from pipeline.config import ArmConfig, Correction, PipelineConfig, Targets
from pipeline.evaluation.selection import Aggregator


@dataclass(frozen=True, slots=True)
class Setting:
    """What is swept. The last three are of correcting arms alone; None leaves the config's value.
    `label_rate` is `corrector_rate` where a network corrects."""

    learning_rate: float | None = None
    label_rate: float | None = None
    warmup: float | None = None
    every: int | None = None

    def applied(self, config: PipelineConfig, arm: ArmConfig, seed: int | None) -> PipelineConfig:
        """The config of one trial. Raises ValidationError for values out of range."""
        raw = config.model_dump(mode="json")
        training = raw["training"]
        training["arms"] = [arm.model_dump(mode="json")]
        rate = "corrector_rate" if arm.correction is Correction.CORRECTOR else "label_rate"
        for section, option, value in (
            (training["optimizer"], "learning_rate", self.learning_rate),
            (training["correction"], rate, self.label_rate),
            (training["correction"], "warmup", self.warmup),
            (training["correction"], "every", self.every),
            (training, "seed", seed),
        ):
            if value is not None:
                section[option] = value
        return PipelineConfig.model_validate(raw)

    def __str__(self) -> str:
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return ", ".join(f"{name} {value:g}" for name, value in given.items()) or "as configured"


@dataclass(frozen=True, slots=True)
class SettingResult:
    """Best-of-N accuracy of one setting on validation, in [0, 1], by aggregator: the mean over the
    seeds. `aggregator` is the best of them, `by_seed` its accuracy with each seed."""

    setting: Setting
    aggregator: str
    accuracy: float
    by_aggregator: Mapping[str, float]
    by_seed: Mapping[int, float]


def setting_result(
    setting: Setting, arm: ArmConfig, by_seed: Mapping[int, Mapping[str, float]]
) -> SettingResult:
    """`by_seed`: accuracy by aggregator, of each seed. An outcome model has one way to be read."""
    names = list(next(iter(by_seed.values())))
    if arm.targets is Targets.FINAL:
        names = [Aggregator.LAST.value]
    means = {name: sum(row[name] for row in by_seed.values()) / len(by_seed) for name in names}
    # Rounded, so that the order of summation cannot decide between equals.
    best = max(means, key=lambda name: round(means[name], 12))
    of_seed = {seed: row[best] for seed, row in by_seed.items()}
    return SettingResult(setting, best, means[best], means, of_seed)


def sweep_json(arm: ArmConfig, problems: int, results: Sequence[SettingResult]) -> str:
    """`results`, best first, on so many validation problems."""
    rows = [asdict(result) for result in results]
    told = {"arm": arm.name, "validation_problems": problems, "results": rows}
    return json.dumps(told, indent=2) + "\n"


def sweep_table(results: Sequence[SettingResult], problems: int) -> Table:
    title = f"best-of-N accuracy on {problems} validation problems, %"
    table = Table("setting", "aggregator", "mean", "seeds", title=title)
    for result in results:
        seeds = " ".join(f"{100 * value:.1f}" for value in result.by_seed.values())
        table.add_row(str(result.setting), result.aggregator, f"{100 * result.accuracy:.1f}", seeds)
    return table


def sweep_plot(results: Sequence[SettingResult]) -> Figure:
    """One panel per swept option, one for the aggregators of the best setting."""
    swept = [
        name
        for name in asdict(results[0].setting)
        if len({getattr(result.setting, name) for result in results}) > 1
    ]
    figure = Figure(figsize=(3.2 * (len(swept) + 1), 3.2), layout="constrained")
    panels = figure.subplots(1, len(swept) + 1, squeeze=False, sharey=True)[0]
    for axes, name in zip(panels, swept, strict=False):
        for result in results:
            values = [100 * value for value in result.by_seed.values()]
            axes.plot([getattr(result.setting, name)] * len(values), values, "o", alpha=0.35)
        levels = sorted({getattr(result.setting, name) for result in results})
        means = [
            [100 * r.accuracy for r in results if getattr(r.setting, name) == level]
            for level in levels
        ]
        axes.plot(levels, [sum(each) / len(each) for each in means], "k-")
        axes.set_xlabel(name)
        if name.endswith("rate"):
            axes.set_xscale("log")
    best = results[0].by_aggregator
    panels[-1].plot(list(best), [100 * value for value in best.values()], "ko")
    panels[-1].set_xlabel(f"aggregator, at {results[0].setting}", fontsize=7)
    panels[-1].tick_params(axis="x", labelrotation=30)
    panels[0].set_ylabel("best-of-N, % of validation problems")
    return figure
