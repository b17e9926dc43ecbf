"""The trials of a sweep (`jobs.tune`), as Ray Tune runs them: each trains one arm with one setting
and leaves in its own folder what every aggregator solves of the validation problems."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from pipeline.config import EXECUTION, ArmConfig, PipelineConfig
from pipeline.evaluation.selection import Candidate, choose_aggregator
from pipeline.evaluation.sweep import Setting
from pipeline.files import write_atomically
from pipeline.own_thread import in_own_thread
from pipeline.part_file import read_table
from pipeline.prm.data import TrainingDataError
from pipeline.prm.trainer import train_prms
from pipeline.records import Example, Role, ScoredSolution, content_hash
from pipeline.schemas import EXAMPLE


@dataclass(frozen=True, slots=True)
class Sweep:
    """What every trial is told. Paths are absolute: trials run in directories of their own."""

    config: PipelineConfig
    arm: ArmConfig
    examples: tuple[str, ...]
    validation: tuple[str, ...]
    digest: str  # of what the shards hold: other data never meets an older trial's result
    out: str

    def directory(self, setting: Setting, seed: int) -> Path:
        """Of a trial; the same however and wherever it is computed."""
        training = setting.applied(self.config, self.arm, seed).training.shaping()
        trial = training.model_dump_json(exclude=dict.fromkeys(EXECUTION, True))
        return Path(self.out) / "trials" / content_hash(trial, self.digest)

    def accuracy(self, setting: Setting, seed: int) -> dict[str, float] | None:
        """By aggregator, on validation; None where the trial is not done."""
        result = self.directory(setting, seed) / "result.json"
        return json.loads(result.read_text()) if result.exists() else None


def _trial(point: Mapping[str, Any], sweep: Sweep) -> None:
    """Train, score the validation candidates, leave their accuracy in a file."""
    setting, seed = Setting(**point["setting"]), point["seed"]
    directory = sweep.directory(setting, seed)
    training = setting.applied(sweep.config, sweep.arm, seed).training
    trained = train_prms(training, sweep.examples, {sweep.arm.name: str(directory)}, lambda _: None)
    rows = candidates(sweep.validation)
    model = trained[sweep.arm.name].model
    # The trial itself holds no GPU, and would score beside others' training on one that it sees.
    scored = (
        ray.get(_on_gpu.remote(model, rows)) if training.use_gpu else _scores(model, rows, "cpu")
    )
    choice = choose_aggregator(
        [Candidate.from_example(row) for row in rows],
        {row.solution_id: row.step_scores for row in scored},
    )
    accuracy = {name.value: value for name, value in choice.validation_accuracy.items()}
    write_atomically(str(directory / "result.json"), json.dumps(accuracy).encode())
    tune.report(accuracy)


@ray.remote(num_gpus=1)
def _on_gpu(model: str, rows: Sequence[Example]) -> list[ScoredSolution]:
    return _scores(model, rows, "cuda")


def _scores(model: str, rows: Sequence[Example], device: str) -> list[ScoredSolution]:
    from pipeline.prm.scoring import Scorer  # brings torch and transformers; the driver scores none

    return Scorer(model, device=device).score(rows)


class _Watch(tune.Callback):
    def __init__(self, on_done: Callable[[], None]) -> None:
        self._on_done = on_done

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves its callbacks; a terminal cannot be saved, and nothing is lost

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._on_done()


def run_trials(
    sweep: Sweep,
    points: Sequence[tuple[Setting, int]],
    concurrent: int,
    on_done: Callable[[], None],
) -> None:
    """One Tune trial per (setting, seed). Raises TrainingDataError where one failed."""
    space = [{"setting": asdict(setting), "seed": seed} for setting, seed in points]
    # A trial only waits for its training's workers, which ask for their own resources. Tune wants
    # it to ask for something: one byte.
    trainable = tune.with_resources(tune.with_parameters(_waiting, sweep=sweep), {"memory": 1})
    tuner = tune.Tuner(
        trainable,
        param_space={"point": tune.grid_search(space)},
        tune_config=tune.TuneConfig(max_concurrent_trials=concurrent),
        run_config=tune.RunConfig(
            storage_path=f"{sweep.out}/ray", name="sweep", verbose=0, callbacks=[_Watch(on_done)]
        ),
    )
    grid = in_own_thread(tuner.fit)
    if grid.errors:
        # Of a remote traceback the last line is the error itself.
        *_, reason = (line for line in str(grid.errors[0]).splitlines() if line.strip())
        raise TrainingDataError(
            f"{len(grid.errors)} of {len(points)} trials failed; what the others found is kept. "
            f"The first error: {reason.strip()}"
        )


def _waiting(parameters: dict[str, Any], sweep: Sweep) -> None:
    _trial(parameters["point"], sweep)


def candidates(paths: Sequence[str]) -> list[Example]:
    """The validation candidates; where shards hold other roles too, those are no part of it."""
    rows = [row for path in paths for row in EXAMPLE.from_table(read_table(path, EXAMPLE))]
    return [row for row in rows if row.role is Role.VALIDATION]
