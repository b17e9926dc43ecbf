"""PRM training as one Ray Train job.

All arms are trained one after another by the same worker group, because starting workers costs more
than a small arm does; each arm keeps its own storage. Workers read checkpoints from the storage, so
a job that is restarted, after a worker died or by a person after the driver was killed, goes on
from the last one; arms that are done are not trained again. Workers may die any number of times, as
those on spot nodes do, as long as one start of them in three gets further.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.config import EXECUTION, ArmConfig, Correction, Targets, TrainingConfig
from pipeline.files import FileState, tree
from pipeline.own_thread import in_own_thread
from pipeline.prm.base_identity import base_identity
from pipeline.prm.data import TrainingDataError, read_examples
from pipeline.prm.results import HistoryRow, TrainedPRM, finished
from pipeline.records import content_hash

POLL_S = 0.5
FRUITLESS_STARTS = 3
"""Starts of the workers in a row, none of which gets further, after which a training has failed."""

_MARKS_OF_PROGRESS = ("checkpoint.pt", "done.json")


class TrainingFailedError(Exception):
    """The Ray Train job failed for a reason that is not in the data. What its checkpoints hold is
    kept: the same job again goes on from there."""


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """How far a job is: arm `arm_index` of `arms` has made `step` of `total` optimizer steps."""

    arm: str
    arm_index: int
    arms: int
    step: int
    total: int
    solutions_per_s: float
    row: HistoryRow
    """What that step gave."""


@dataclass(frozen=True, slots=True)
class _Job:
    """What every worker is told. Paths are absolute: Ray Train workers change directory."""

    config: TrainingConfig
    examples: tuple[str, ...]
    storage: dict[str, str]
    fingerprint: str  # of the options and the data; an arm's own adds its ArmConfig


class _Board:
    """Where the first worker writes how far it is, and the driver reads it. One that died starts
    again, empty: no more than the curves' points of half a second is lost."""

    def __init__(self) -> None:
        self._steps: list[TrainingProgress] = []

    def publish(self, progress: TrainingProgress) -> None:
        self._steps.append(progress)

    def take(self) -> list[TrainingProgress]:
        """The steps since the last time."""
        steps, self._steps = self._steps, []
        return steps


def train_prms(
    config: TrainingConfig,
    examples: Sequence[str],
    storage: Mapping[str, str],
    on_progress: Callable[[TrainingProgress], None],
) -> dict[str, TrainedPRM]:
    """Train every arm of `config` on Example shards; Ray must have been started.

    `storage` names a directory (or fsspec URI that all nodes reach) for each arm. `on_progress` is
    called for every step, by a thread of its own that looks for new ones about twice a second.
    Finished arms are only looked up; without any other, no worker is started.

    Raises TrainingDataError for data that cannot train what was asked for, and for a loss that is
    no longer finite; TrainingFailedError where the workers died several times without getting on.
    """
    config = config.model_copy(
        update={"model": config.model.model_copy(update={"base": _absolute(config.model.base)})}
    )
    job = _Job(
        config,
        tuple(_absolute(path) for path in examples),
        {arm.name: _absolute(storage[arm.name], make=True) for arm in config.arms},
        content_hash(
            _shaping_options(config),
            base_identity(config.model.base),
            read_examples(examples, config).fingerprint(),
        ),
    )
    done = _finished_arms(job)
    if len(done) < len(config.arms):
        _run(job, on_progress)
        done = _finished_arms(job)
    return {arm.name: done[arm.name] for arm in config.arms}


def _run(job: _Job, on_progress: Callable[[TrainingProgress], None]) -> None:
    anywhere: Any = ray.remote(_Board)
    board = anywhere.options(
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        # Beside the driver: Ray puts an actor that asks for nothing on any node, one that may be
        # reclaimed too.
        scheduling_strategy=NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        ),
    ).remote()
    with _reporting(board, on_progress):
        persist(lambda: _start(job, board), lambda: _progress(job))


def persist(start: Callable[[], None], progress: Callable[[], object]) -> None:
    """Start again what fails, until it succeeds. Raises the TrainingFailedError of the last of
    FRUITLESS_STARTS starts in a row that left `progress` as it was."""
    before, fruitless = progress(), 0
    while True:
        try:
            return start()
        except TrainingFailedError:
            now = progress()
            fruitless = fruitless + 1 if now == before else 0
            if fruitless == FRUITLESS_STARTS:
                raise
            before = now


def _progress(job: _Job) -> dict[str, FileState]:
    """Changes when any arm leaves another checkpoint, or its results."""
    return {
        f"{storage}/{name}": state
        for storage in job.storage.values()
        for name, state in tree(storage).items()
        if os.path.basename(name) in _MARKS_OF_PROGRESS
    }


def _start(job: _Job, board: Any) -> None:
    """Start the workers, once, and wait for their end."""
    # Not at the top: they bring torch, which a job that finds all models trained does without.
    from ray import train as ray_train
    from ray.train.torch import TorchTrainer

    resources = {"CPU": job.config.cpus_per_worker}
    if job.config.use_gpu:
        resources["GPU"] = 1
    trainer = TorchTrainer(
        _work,
        train_loop_config={"job": job, "board": board},
        scaling_config=ray_train.ScalingConfig(
            num_workers=job.config.workers,
            use_gpu=job.config.use_gpu,
            resources_per_worker=resources,
        ),
        run_config=ray_train.RunConfig(
            name="ray_train",
            storage_path=next(iter(job.storage.values())),
            # Whether another start is worth it is seen from the checkpoints, which Ray does not
            # know. Nodes that are announced to go it survives by itself.
            failure_config=ray_train.FailureConfig(max_failures=0),
            # Its full account is in the session's logs/train; a person sees progress and errors.
            logging_config=ray_train.LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        in_own_thread(trainer.fit)
    except (ray_train.TrainingFailedError, ray.exceptions.RayActorError) as error:
        if isinstance(error, ray_train.WorkerGroupError):
            for reason in error.worker_failures.values():
                if isinstance(reason, TrainingDataError):  # every other start would meet it too
                    raise reason from error
        raise TrainingFailedError(f"training {', '.join(job.storage)} failed: {error}") from error


@contextmanager
def _reporting(board: Any, on_progress: Callable[[TrainingProgress], None]) -> Iterator[None]:
    """While open, hand the board's steps on to the callback."""
    stopped = threading.Event()

    def look() -> None:
        try:
            steps: list[TrainingProgress] = ray.get(board.take.remote())  # pyright: ignore[reportAssignmentType]
        except ray.exceptions.RayActorError:  # it starts again; a training is worth more
            return
        for step in steps:
            on_progress(step)

    def watch() -> None:
        while not stopped.wait(POLL_S):
            look()

    thread = threading.Thread(target=watch, name="training-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        look()


# --- in the workers ------------------------------------------------------------------------------


def _work(loop: dict[str, Any]) -> None:
    """The training function of every worker."""
    _train_arms(loop["job"], loop["board"])


def _train_arms(job: _Job, board: Any) -> None:
    # Imported here and not in the driver, which would wait for transformers to no purpose.
    import torch
    from ray import train as ray_train
    from ray.train.torch import get_device

    from pipeline.prm.arms import ArmTraining
    from pipeline.prm.encoding import Encoder
    from pipeline.prm.fitting import StepReport
    from pipeline.prm.model import build_tokenizer
    from pipeline.prm.parallel import Ranks
    from pipeline.prm.training_set import prepare

    context = ray_train.get_context()
    device = get_device()
    ranks = Ranks(context.get_world_rank(), context.get_world_size(), device)
    config = job.config
    if job.config.threads_per_worker:
        torch.set_num_threads(job.config.threads_per_worker)
    # Read before the first arm, so that all ranks agree on which arms are done.
    done = _finished_arms(job)
    encoder = Encoder(build_tokenizer(config.model))
    data = prepare(read_examples(job.examples, config), encoder, config)
    for arm_index, arm in enumerate(job.config.arms):
        if arm.name in done:
            continue

        def publish(name: str, report: StepReport, arm_index: int = arm_index) -> None:
            if ranks.rank == 0:
                board.publish.remote(
                    TrainingProgress(
                        name,
                        arm_index,
                        len(job.config.arms),
                        report.row.step + 1,
                        report.total,
                        report.solutions_per_s,
                        report.row,
                    )
                )

        loss = ArmTraining(
            config,
            arm,
            data,
            job.storage[arm.name],
            _arm_fingerprint(job, arm),
            ranks,
            device,
            publish,
        ).run()
        # A barrier, and what Ray Tune and the dashboard see of an arm.
        ray_train.report({"arm": arm.name, "loss": loss})


# --- in both -------------------------------------------------------------------------------------


def _finished_arms(job: _Job) -> dict[str, TrainedPRM]:
    found = {
        arm.name: finished(job.storage[arm.name], _arm_fingerprint(job, arm))
        for arm in job.config.arms
    }
    return {name: result for name, result in found.items() if result}


def _arm_fingerprint(job: _Job, arm: ArmConfig) -> str:
    correction = "" if arm.correction is Correction.NONE else job.config.correction
    crossfit = job.config.crossfit_strength if arm.targets is Targets.CROSSFIT else ""
    return content_hash(job.fingerprint, arm.targets, arm.correction, correction, crossfit)


def _shaping_options(config: TrainingConfig) -> str:
    """The options that shape a model; where and how it is computed does not."""
    return config.shaping().model_dump_json(
        exclude={
            **dict.fromkeys(EXECUTION, True),
            "arms": True,
            "correction": True,  # counts for the arms that correct
            "crossfit_strength": True,  # counts for the arms that cross-fit
            "model": {"base": True},  # counts by what it is, not by where
        }
    )


def _absolute(path: str, *, make: bool = False) -> str:
    """A local path made absolute; a URI, or the name of a public model, as it is."""
    if "://" in path:
        return path
    if make:
        os.makedirs(path, exist_ok=True)
    return os.path.abspath(path) if os.path.exists(path) else path
