"""The curves of a run: what its observer is told, on the way to TensorBoard, W&B or MLflow.

Only the driver writes. A stage's curves go over its rows, a training's over its optimizer steps:
both are read from what is stored, so that a resumed run continues them. Each piece of work is a
series of its own, so that a viewer lays the losses of all arms over each other.
"""

import hashlib
import importlib
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from pipeline.config import PipelineConfig, Tracker
from pipeline.files import is_local, read_bytes, write_atomically
from pipeline.progress import Observer, Progress
from pipeline.run_folder import METRICS, run_folder
from pipeline.settings import ConfigError

PERIOD_S = 2.0
"""Between two points of a stage."""
_FLUSH_S = 10  # what a killed driver may lose of the curves


class Curves(Protocol):
    """Where points go."""

    def add(self, series: str, step: int, values: Mapping[str, float]) -> None:
        """One point of every named curve of a series."""

    def close(self) -> None:
        """Every point is written when it returns."""


@contextmanager
def metered(config: PipelineConfig, observer: Observer) -> Iterator[Observer]:
    """An observer that tells `observer` everything, and writes the curves that `config` asks for.

    Raises ConfigError, before anything starts, for a tracker whose package is not installed.
    """
    with ExitStack() as stack:
        curves: list[Curves] = []
        for tracker in config.metrics:
            curves.append(_open(tracker, config))
            stack.callback(curves[-1].close)
        yield Metered(observer, curves)


class Metered:
    """See `metered`. Told from several threads."""

    def __init__(self, observer: Observer, curves: list[Curves]) -> None:
        self._observer, self._curves = observer, curves
        self._last: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def stage(self, title: str) -> None:
        self._observer.stage(title)

    def note(self, text: str) -> None:
        self._observer.note(text)

    def progress(self, progress: Progress) -> None:
        self._observer.progress(progress)
        with self._lock:
            values = self._point(progress)
        if values:
            for curves in self._curves:
                curves.add(progress.work, _step(progress), values)

    def _point(self, now: Progress) -> dict[str, float]:
        """What is new; nothing of work that was done before this run."""
        at, step = time.monotonic(), _step(now)
        before = self._last.get(now.work)
        if before is None:
            self._last[now.work] = at, step
            return {} if now.rows or now.done == now.total else dict(now.figures)
        waited, moved = at - before[0], step - before[1]
        if not moved or (now.rows and waited < PERIOD_S and now.done < now.total):
            return {}
        self._last[now.work] = at, step
        if not now.rows:
            return dict(now.figures)
        return {now.unit: now.done, "rows_per_s": moved / max(waited, 1e-9)} | dict(now.figures)


def _step(progress: Progress) -> int:
    return progress.rows or progress.done


class TensorBoard:
    """Event files, one folder per series. What an earlier run wrote beyond the point where this one
    goes on (it was killed after its last checkpoint) is hidden by TensorBoard itself."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writers: dict[str, Any] = {}

    def add(self, series: str, step: int, values: Mapping[str, float]) -> None:
        if series not in self._writers:
            from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingTypeStubs]

            self._writers[series] = SummaryWriter(
                logdir=str(self._directory / series),
                purge_step=step,
                flush_secs=_FLUSH_S,
                # A file is named by the second of its start: two runs in one would share it.
                filename_suffix=f".{secrets.token_hex(4)}",
            )
        for name, value in values.items():
            self._writers[series].add_scalar(name, value, step)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


class WeightsAndBiases:
    """One run of W&B, met again when the pipeline's run goes on. Its project, server and key are
    those of W&B's own environment variables."""

    def __init__(self, config: PipelineConfig, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        identity = hashlib.sha256(f"{config.root} {config.name}".encode()).hexdigest()[:16]
        self._run: Any = _package(Tracker.WANDB).init(
            name=config.name, id=identity, resume="allow", dir=str(directory)
        )
        self._series: set[str] = set()

    def add(self, series: str, step: int, values: Mapping[str, float]) -> None:
        if series not in self._series:
            self._series.add(series)
            self._run.define_metric(f"{series}/*", step_metric=f"{series}/step")
        self._run.log({f"{series}/{name}": value for name, value in values.items()}
                      | {f"{series}/step": step})  # fmt: skip

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """One run of MLflow, met again when the pipeline's run goes on. Its server is that of
    MLFLOW_TRACKING_URI."""

    def __init__(self, config: PipelineConfig, directory: str) -> None:
        mlflow = _package(Tracker.MLFLOW)
        self._metric: Any = mlflow.entities.Metric
        self._client: Any = mlflow.MlflowClient()
        met = f"{directory}/mlflow_run"
        known = read_bytes(met)
        if known is not None:
            self._run = known.decode()
            self._client.update_run(self._run, status="RUNNING")
            return
        experiment = mlflow.set_experiment(config.name)
        self._run = str(self._client.create_run(experiment.experiment_id).info.run_id)
        write_atomically(met, self._run.encode())

    def add(self, series: str, step: int, values: Mapping[str, float]) -> None:
        now_ms = int(time.time() * 1000)
        self._client.log_batch(
            self._run,
            [
                self._metric(f"{series}/{name}", value, now_ms, step)
                for name, value in values.items()
            ],
        )

    def close(self) -> None:
        self._client.set_terminated(self._run)


def _open(tracker: Tracker, config: PipelineConfig) -> Curves:
    directory = run_folder(config) / METRICS
    match tracker:
        case Tracker.TENSORBOARD:
            return TensorBoard(directory)
        case Tracker.WANDB:
            return WeightsAndBiases(config, directory)
        case Tracker.MLFLOW:
            # A driver that goes on elsewhere finds no more than the store.
            kept = f"{config.root.rstrip('/')}/runs/{config.name}"
            return MLflow(config, str(directory) if is_local(config.root) else kept)


def _package(tracker: Tracker) -> Any:
    try:
        return importlib.import_module(tracker.value)
    except ImportError as error:
        raise ConfigError(
            f"metrics: {tracker.value!r} needs its package, which is not installed ({error}): "
            f"pip install {tracker.value}, or leave it out"
        ) from error
