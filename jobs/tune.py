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
import hashlib
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import ray
from pydantic import ValidationError
from rich.console import Console

from jobs.argument_types import folder
from jobs.command import absolute, carry_out, config_parser
from jobs.submitted import refuse_vanishing
from jobs.train import EXPECTED
from jobs.trials import Sweep, candidates, run_trials
from pipeline import flow
from pipeline.cluster import Cluster
from pipeline.config import SCALE_MODEL, Correction, PipelineConfig
from pipeline.config.idle import idle_options
from pipeline.evaluation.sweep import (
    Setting,
    SettingResult,
    setting_result,
    sweep_json,
    sweep_plot,
    sweep_table,
)
from pipeline.files import StoreError, open_file, write_atomically
from pipeline.lock import stage_lock
from pipeline.prm.data import TrainingDataError, example_files
from pipeline.progress import Observer, Progress
from pipeline.settings import ConfigError, dump_config, load_config


def sweep_settings(
    sweep: Sweep,
    settings: Sequence[Setting],
    seeds: Sequence[int],
    concurrent: int,
    observer: Observer,
) -> list[SettingResult]:
    """The results, best first. Only trials that are not done are run. Raises TrainingDataError
    where one failed."""
    points = list(itertools.product(settings, seeds))
    missing = [point for point in points if sweep.accuracy(*point) is None]
    done = len(points) - len(missing)

    def tell(more: int) -> None:
        nonlocal done
        done += more
        observer.progress(Progress("trials", done, len(points), "trials"))

    tell(0)
    if missing:
        run_trials(sweep, missing, concurrent, lambda: tell(1))
    results: list[SettingResult] = []
    for setting in settings:
        by_seed = {seed: accuracy for seed in seeds if (accuracy := sweep.accuracy(setting, seed))}
        results.append(setting_result(setting, sweep.arm, by_seed))
    return sorted(results, key=lambda result: -result.accuracy)


def best_config(sweep: Sweep, best: SettingResult) -> PipelineConfig:
    """The config of the sweep with all of its arms and the best setting."""
    chosen = best.setting.applied(sweep.config, sweep.arm, None)
    training = chosen.training.model_copy(update={"arms": sweep.config.training.arms})
    return chosen.model_copy(update={"training": training})


def run(
    sweep: Sweep,
    settings: Sequence[Setting],
    seeds: Sequence[int],
    at_once: int,
    observer: Observer,
) -> list[SettingResult]:
    """The sweep on a cluster, `at_once` trials at a time (0: as many as there is room for)."""
    training = sweep.config.training
    workers = flow.training_workers(training)
    for sentence in idle_options(training):
        observer.note(sentence)
    observer.stage(f"Sweeping {len(settings)} settings of {sweep.arm.name}")
    with Cluster(sweep.config, observer, root=sweep.out) as cluster:
        cluster.join(workers)
        room = max(1, workers.room_on(ray.cluster_resources()) // workers.count)
        return sweep_settings(sweep, settings, seeds, min(at_once or room, room), observer)


def _write(sweep: Sweep, results: Sequence[SettingResult], problems: int) -> None:
    out = Path(sweep.out)
    told = sweep_json(sweep.arm, problems, results)
    write_atomically(str(out / "tune.json"), told.encode())
    sweep_plot(results).savefig(out / "tune.png", dpi=150)
    best = dump_config(best_config(sweep, results[0]))
    write_atomically(str(out / "best.yaml"), best.encode())


def _sweep_of(chosen: argparse.Namespace, config: PipelineConfig) -> Sweep:
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
        tuple(map(absolute, example_files(paths))) for paths in (chosen.examples, chosen.validation)
    )
    digest = f"{_digest(examples)} {_digest(validation)}"
    return Sweep(config, arm, examples, validation, digest, str(chosen.out.absolute()))


def _digest(paths: Sequence[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        with open_file(path) as file:
            digest.update(hashlib.file_digest(cast(Any, file), "blake2b").digest())
    return digest.hexdigest()


def _settings(chosen: argparse.Namespace, sweep: Sweep) -> list[Setting]:
    """Raises ConfigError for a value that the config refuses."""
    swept = (chosen.learning_rates, chosen.label_rates, chosen.warmups, chosen.every)
    settings = [Setting(*values) for values in itertools.product(*swept)]
    for setting in settings:
        try:
            setting.applied(sweep.config, sweep.arm, None)
        except ValidationError as error:
            detail = error.errors()[0]
            where = ".".join(str(part) for part in detail["loc"])
            raise ConfigError(f"{where}: {detail['msg']}; found {detail['input']!r}") from None
    return settings


def _problems(sweep: Sweep) -> int:
    """How many validation problems there are. Raises ConfigError for none."""
    problems = {row.problem_id for row in candidates(sweep.validation)}
    if not problems:
        raise ConfigError(
            f"--validation {sweep.validation[0]}: holds no candidate of a validation problem"
        )
    return len(problems)


def _numbers(kind: type[int] | type[float]) -> Callable[[str], list[Any]]:
    def numbers(text: str) -> list[Any]:
        try:
            return [kind(word) for word in text.split(",")]
        except ValueError:
            whole = "whole numbers" if kind is int else "numbers"
            raise argparse.ArgumentTypeError(
                f"{text!r} is no list of {whole} such as 1,2"
            ) from None

    return numbers


def _parser() -> argparse.ArgumentParser:
    parser = config_parser("tune", __doc__, "training.")
    for name, what in (
        ("examples", "training and meta problems"),
        ("validation", "validation problems; candidates of other roles are left out"),
    ):
        parser.add_argument(
            f"--{name}", required=True, nargs="+", help=f"Example shards or folders: {what}"
        )
    parser.add_argument("--out", required=True, type=folder, help="folder that all nodes share")
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
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    chosen, overrides = _parser().parse_known_args(arguments)
    try:
        refuse_vanishing(out=chosen.out)
        sweep = _sweep_of(chosen, load_config(chosen.config, overrides))
        settings, problems = _settings(chosen, sweep), _problems(sweep)
    except (ConfigError, StoreError, TrainingDataError, OSError) as error:
        print(error, file=sys.stderr)
        return 2

    def work(observer: Observer) -> list[SettingResult]:
        with stage_lock(sweep.out):
            results = run(sweep, settings, chosen.seeds, chosen.concurrent, observer)
            _write(sweep, results, problems)
        return results

    def show(console: Console, results: list[SettingResult]) -> None:
        console.print(sweep_table(results, problems))
        for name in ("tune.json", "tune.png", "best.yaml"):
            console.print(str(Path(sweep.out) / name), soft_wrap=True)

    return carry_out(Path(sweep.out) / "log.txt", EXPECTED, work, show)


if __name__ == "__main__":
    sys.exit(main())
