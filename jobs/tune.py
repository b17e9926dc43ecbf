"""Choose the settings of one arm on the validation problems, by a Ray Tune sweep.

python -m jobs.tune --config FILE --examples DIR|FILE... --validation DIR|FILE... --out DIR \\
    [--arm NAME] [--learning-rates 3e-4,1e-3] [--label-rates 0.05,0.15] [--warmups 0.1,0.3] \\
    [--every 2,4] [--seeds 0,1] [--concurrent N] [--training.key value ...]

Every combination is trained and ranks the validation candidates; its aggregator is the best of all
on them. A setting counts with its mean over the seeds. DIR/tune.json and DIR/tune.png hold the
result, DIR/best.yaml the config with the best setting. Running it again resumes: trials that are
done are read, one that was interrupted goes on from its last checkpoint.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
from matplotlib.figure import Figure
from ray import tune
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs.terminal import Terminal, library_output_to
from jobs.train import EXPECTED
from pipeline import flow
from pipeline.config import SCALE_MODEL, ArmConfig, Correction, PipelineConfig, Targets
from pipeline.evaluation.selection import Candidate, choose_aggregator
from pipeline.files import write_atomically
from pipeline.part_file import read_table
from pipeline.prm.data import TrainingDataError, example_files
from pipeline.prm.scoring import Scorer
from pipeline.prm.trainer import train_prms
from pipeline.progress import Observer, Progress
from pipeline.records import Example, content_hash
from pipeline.schemas import EXAMPLE
from pipeline.settings import ConfigError, dump_config, load_config


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
class Result:
    """Best-of-N accuracy of one setting on validation, by aggregator: the mean over `seeds`."""

    setting: Setting
    aggregator: str
    accuracy: float
    by_aggregator: dict[str, float]
    by_seed: dict[int, float]


@dataclass(frozen=True, slots=True)
class _Sweep:
    """What every trial is told. Paths are absolute: trials run in directories of their own."""

    config: PipelineConfig
    arm: ArmConfig
    examples: tuple[str, ...]
    validation: tuple[str, ...]
    out: str

    def directory(self, setting: Setting, seed: int) -> Path:
        trial = setting.applied(self.config, self.arm, seed).training.model_dump_json()
        return Path(self.out) / "trials" / content_hash(trial, *self.examples, *self.validation)


def _trial(point: dict[str, Any], sweep: _Sweep) -> None:
    """Train, score the validation candidates, leave their accuracy in a file."""
    setting, seed = Setting(**point["setting"]), point["seed"]
    directory = sweep.directory(setting, seed)
    result = directory / "result.json"
    if not result.exists():
        training = setting.applied(sweep.config, sweep.arm, seed).training
        storage = {sweep.arm.name: str(directory)}
        trained = train_prms(training, sweep.examples, storage, lambda _: None)
        rows = _read(sweep.validation)
        scored = Scorer(trained[sweep.arm.name].model).score(rows)
        choice = choose_aggregator(
            [Candidate.from_example(row) for row in rows],
            {row.solution_id: row.step_scores for row in scored},
        )
        accuracy = {name.value: value for name, value in choice.validation_accuracy.items()}
        write_atomically(str(result), json.dumps(accuracy).encode())
    tune.report(json.loads(result.read_text()))


class _Watch(tune.Callback):
    def __init__(self, observer: Observer, total: int) -> None:
        self._observer, self._total, self._done = observer, total, 0

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves its callbacks; a terminal cannot be saved, and nothing is lost

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._done += 1
        self._observer.progress(Progress("trials", self._done, self._total, "trials"))


def sweep_settings(
    sweep: _Sweep,
    settings: Sequence[Setting],
    seeds: Sequence[int],
    concurrent: int,
    observer: Observer,
) -> list[Result]:
    """The results, best first. Raises TrainingDataError where a trial failed."""
    points = [{"setting": asdict(setting), "seed": seed} for setting in settings for seed in seeds]
    observer.progress(Progress("trials", 0, len(points), "trials"))
    # A trial only waits for its training's workers, which ask for their own resources. Tune wants
    # it to ask for something: one byte.
    trainable = tune.with_resources(tune.with_parameters(_waiting, sweep=sweep), {"memory": 1})
    grid = tune.Tuner(
        trainable,
        param_space={"point": tune.grid_search(points)},
        tune_config=tune.TuneConfig(max_concurrent_trials=concurrent),
        run_config=tune.RunConfig(
            storage_path=f"{sweep.out}/ray",
            name="sweep",
            verbose=0,
            callbacks=[_Watch(observer, len(points))],
        ),
    ).fit()
    if grid.errors:
        raise TrainingDataError(
            f"{len(grid.errors)} of {len(points)} trials failed; the others are kept. The first "
            f"error: {grid.errors[0]}"
        )
    return sorted(
        (_result(sweep, setting, seeds) for setting in settings),
        key=lambda result: -result.accuracy,
    )


def _waiting(parameters: dict[str, Any], sweep: _Sweep) -> None:
    _trial(parameters["point"], sweep)


def _result(sweep: _Sweep, setting: Setting, seeds: Sequence[int]) -> Result:
    by_seed = {
        seed: json.loads((sweep.directory(setting, seed) / "result.json").read_text())
        for seed in seeds
    }
    names = list(next(iter(by_seed.values())))
    if sweep.arm.targets is Targets.FINAL:
        names = ["last"]  # the one step that it is trained on
    means = {name: sum(row[name] for row in by_seed.values()) / len(by_seed) for name in names}
    best = max(means, key=lambda name: round(means[name], 12))
    of_seed = {seed: row[best] for seed, row in by_seed.items()}
    return Result(setting, best, means[best], means, of_seed)


def results_table(results: Sequence[Result], problems: int) -> Table:
    title = f"best-of-N accuracy on {problems} validation problems, %"
    table = Table("setting", "aggregator", "mean", "seeds", title=title)
    for result in results:
        seeds = " ".join(f"{100 * value:.1f}" for value in result.by_seed.values())
        table.add_row(str(result.setting), result.aggregator, f"{100 * result.accuracy:.1f}", seeds)
    return table


def plot(results: Sequence[Result]) -> Figure:
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


def best_config(sweep: _Sweep, best: Result) -> PipelineConfig:
    """The config of the sweep with all of its arms and the best setting."""
    chosen = best.setting.applied(sweep.config, sweep.arm, None)
    training = chosen.training.model_copy(update={"arms": sweep.config.training.arms})
    return chosen.model_copy(update={"training": training})


def run(sweep: _Sweep, chosen: argparse.Namespace, observer: Observer, console: Console) -> None:
    settings = [
        Setting(*values)
        for values in itertools.product(
            chosen.learning_rates, chosen.label_rates, chosen.warmups, chosen.every
        )
    ]
    problems = len({row.problem_id for row in _read(sweep.validation)})
    training = sweep.config.training
    needs = {"CPU": training.workers * training.cpus_per_worker}
    needs["GPU"] = float(training.workers * training.use_gpu)
    observer.stage(f"Sweeping {len(settings)} settings of {sweep.arm.name}")
    with flow.Cluster(sweep.config) as cluster:
        cluster.join(**needs)
        there = ray.cluster_resources()
        room = min(there.get(name, 0) // amount for name, amount in needs.items() if amount)
        concurrent = min(chosen.concurrent or int(room), int(room))
        results = sweep_settings(sweep, settings, chosen.seeds, concurrent, observer)
    out = Path(sweep.out)
    lines = [asdict(result) for result in results]
    told = {"arm": sweep.arm.name, "validation_problems": problems, "results": lines}
    write_atomically(str(out / "tune.json"), json.dumps(told, indent=2).encode())
    plot(results).savefig(out / "tune.png", dpi=150)
    best = dump_config(best_config(sweep, results[0]))
    write_atomically(str(out / "best.yaml"), best.encode())
    console.print(results_table(results, problems))
    for name in ("tune.json", "tune.png", "best.yaml"):
        console.print(str(out / name), soft_wrap=True)


def _read(paths: Sequence[str]) -> list[Example]:
    return [row for path in paths for row in EXAMPLE.from_table(read_table(path, EXAMPLE))]


def _sweep_of(chosen: argparse.Namespace, config: PipelineConfig) -> _Sweep:
    """Raises ConfigError and TrainingDataError for what cannot be swept."""
    arms = {arm.name: arm for arm in config.training.arms}
    correcting = [arm for arm in arms.values() if arm.correction is not Correction.NONE]
    arm = arms.get(chosen.arm) if chosen.arm else (correcting or list(arms.values()))[0]
    if arm is None:
        raise ConfigError(f"--arm {chosen.arm}: arms are {', '.join(arms)}")
    if config.training.model.base == SCALE_MODEL:
        raise ConfigError("training.model.base: name a directory: --training.model.base DIR")
    for option in ("label_rates", "warmups", "every"):
        if arm.correction is Correction.NONE and getattr(chosen, option) != [None]:
            raise ConfigError(
                f"--{option.replace('_', '-')}: arm {arm.name!r} corrects nothing, so it changes "
                "nothing; sweep another arm (--arm)"
            )
    examples, validation = (
        tuple(str(Path(path).absolute()) for path in example_files(paths))
        for paths in (chosen.examples, chosen.validation)
    )
    return _Sweep(config, arm, examples, validation, str(chosen.out.absolute()))


def _numbers(kind: type) -> Any:
    def parse(text: str) -> list[Any]:
        return [kind(word) for word in text.split(",")]

    return parse


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.tune",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="YAML file; see jobs/configs/")
    for name, what in (("examples", "training and meta"), ("validation", "validation")):
        parser.add_argument(
            f"--{name}", required=True, nargs="+", help=f"Example shards or folders: {what}"
        )
    parser.add_argument("--out", required=True, type=Path, help="folder that all nodes share")
    parser.add_argument("--arm", help="what to tune [the first that corrects, else the first]")
    for name, kind, what in (
        ("learning-rates", float, "training.optimizer.learning_rate"),
        ("label-rates", float, "training.correction.label_rate (corrector_rate)"),
        ("warmups", float, "training.correction.warmup, fractions of the steps"),
        ("every", int, "training.correction.every, optimizer steps"),
    ):
        parser.add_argument(
            f"--{name}", type=_numbers(kind), default=[None], help=f"{what} [the config's]"
        )
    parser.add_argument("--seeds", type=_numbers(int), default=[0], help="training seeds [0]")
    parser.add_argument(
        "--concurrent", type=int, default=0, help="trials at once [as many as there is room for]"
    )
    chosen, overrides = parser.parse_known_args(arguments)
    try:
        sweep = _sweep_of(chosen, load_config(chosen.config, overrides))
    except (ConfigError, TrainingDataError) as error:
        print(error, file=sys.stderr)
        return 2
    with library_output_to(Path(sweep.out) / "log.txt") as console:
        console.print(f"[dim]library logs: {sweep.out}/log.txt[/dim]", soft_wrap=True)
        try:
            with Terminal(console) as terminal:
                run(sweep, chosen, terminal, console)
        except (*EXPECTED, ValueError) as error:
            console.print("[bold red]stopped:[/bold red]", escape(str(error)), soft_wrap=True)
            return 1
        except KeyboardInterrupt:
            console.print("[bold red]stopped[/bold red]; the same command resumes")
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
