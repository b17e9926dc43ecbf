"""The curves of a run, read back from the event files that TensorBoard reads."""

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportMissingTypeStubs]

from pipeline import metrics
from pipeline.config import PipelineConfig, Tracker
from pipeline.metrics import metered
from pipeline.progress import Progress, watched
from pipeline.records import FinishReason, PolicyVersion, Solution
from pipeline.schemas import SOLUTION
from pipeline.settings import ConfigError
from pipeline.store import StageStore
from pipeline.survey import Survey
from tests import scripted_run

Curve = dict[int, float]


@pytest.fixture(autouse=True)
def every_point_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PERIOD_S", 0.0)


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    return scripted_run.config(tmp_path)


def events(folder: Path) -> Iterator[Event]:
    """TFRecords: length, its checksum, the event, its checksum."""
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            yield Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length


def curves(config: PipelineConfig, series: str) -> dict[str, Curve]:
    """As TensorBoard shows them: a writer that starts hides what was written beyond its start."""
    found: dict[str, Curve] = {}
    for event in events(Path(config.output) / config.name / "metrics" / series):
        if event.HasField("session_log"):
            for name, curve in found.items():
                found[name] = {s: value for s, value in curve.items() if s < event.step}
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = round(value.simple_value, 4)
    return found


def step(number: int, loss: float) -> Progress:
    return Progress("arm", number, 10, "optimizer steps", figures={"loss": loss})


def test_a_training_that_goes_on_from_its_checkpoint_continues_its_curves(
    config: PipelineConfig,
) -> None:
    with metered(config, scripted_run.Told()) as observer:
        for number in range(1, 7):
            observer.progress(step(number, 1 / number))
    with metered(config, scripted_run.Told()) as observer:  # the checkpoint was of step 4
        for number in range(5, 11):
            observer.progress(step(number, 1 / number))
    assert curves(config, "arm") == {"loss": {n: round(1 / n, 4) for n in range(1, 11)}}


def test_a_run_that_finds_its_work_done_writes_no_curve(config: PipelineConfig) -> None:
    with metered(config, scripted_run.Told()) as observer:
        observer.progress(step(10, 0.1))
        observer.progress(Progress("solutions", 4, 4, "parts", rows=100))
    assert not (Path(config.output) / config.name / "metrics").exists()


def test_a_stage_draws_rows_rates_outcomes_tokens_and_dollars_over_its_rows(
    config: PipelineConfig,
) -> None:
    stage = StageStore(config.root, "solutions", "f00d", SOLUTION)
    version = PolicyVersion("m", "{}", "1")

    def write(part: int) -> None:
        stage.write(
            part,
            [
                Solution(f"{part}-{i}", "p", version, i, "", "", FinishReason.STOP, 9, 30, 5, 0.25)
                for i in range(4)
            ],
        )

    write(0)  # by an earlier run
    with (
        metered(config, scripted_run.Told()) as observer,
        watched(observer, [(Survey(stage), range(3))]),
    ):
        write(1)
        write(2)
    found = curves(config, "solutions")
    assert found["parts"][12] == 3
    assert found["cost_usd"][12] == 3.0
    assert found["completion_tokens"][12] == 360
    assert found["rows_per_s"][12] > 0
    assert 4 not in found["parts"]  # that run has drawn it


def test_outcomes_are_counted_by_kind(config: PipelineConfig) -> None:
    with metered(config, scripted_run.Told()) as observer:
        for rows in (0, 8):
            observer.progress(
                Progress("verdicts", rows // 4, 4, "parts", rows, figures={"outcomes/WA": rows / 2})
            )
    assert curves(config, "verdicts")["outcomes/WA"] == {0: 0.0, 8: 4.0}


class Server:
    """What MLflow's client does with a server, as far as a run needs it."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.logged: list[str] = []

    def set_experiment(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(experiment_id=name)

    def create_run(self, experiment: str) -> SimpleNamespace:
        self.runs.append(f"{experiment}-{len(self.runs)}")
        return SimpleNamespace(info=SimpleNamespace(run_id=self.runs[-1]))

    def log_batch(self, run: str, values: list[object]) -> None:
        self.logged.append(run)

    def update_run(self, run: str, status: str) -> None: ...

    def set_terminated(self, run: str) -> None: ...


@pytest.mark.parametrize("root", ["", "memory://curves"])
def test_a_run_that_goes_on_goes_on_in_its_run_of_mlflow_on_another_machine_too(
    config: PipelineConfig, tmp_path: Path, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    mlflow = SimpleNamespace(
        set_experiment=server.set_experiment,
        MlflowClient=lambda: server,
        entities=SimpleNamespace(Metric=lambda *values: values),
    )
    monkeypatch.setitem(sys.modules, "mlflow", cast(Any, mlflow))
    for number in (1, 2):
        chosen: dict[str, object] = {"metrics": (Tracker.MLFLOW,)}
        if root:  # what lies on a machine goes with it
            chosen |= {"root": root, "output": str(tmp_path / f"machine-{number}")}
        with metered(config.model_copy(update=chosen), scripted_run.Told()) as observer:
            observer.progress(step(number, 0.5))
    assert len(server.runs) == 1
    assert server.logged == server.runs * 2


@pytest.mark.parametrize("tracker", [Tracker.WANDB, Tracker.MLFLOW])
def test_a_tracker_that_is_not_installed_is_refused_before_anything_starts(
    config: PipelineConfig, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, tracker.value, None)  # as where it is not installed
    with (
        pytest.raises(ConfigError, match=f"pip install {tracker.value}, or leave it out"),
        metered(config.model_copy(update={"metrics": (tracker,)}), scripted_run.Told()),
    ):
        pass
