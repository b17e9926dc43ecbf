"""Verdicts of different isolation never mix unasked: they have different fingerprints, and so
different directories, while what no sandbox has shaped is shared."""

from pathlib import Path

import pytest
import ray

from jobs.run import run
from pipeline.config import PipelineConfig, SandboxConfig, ScaleModelProblems, VLLMPolicy
from pipeline.plan import Plan, make_plan
from pipeline.rounds import StageFailed
from tests.scripted_run import Told, config, write_problems


def plan(place: Path, sandbox: SandboxConfig) -> Plan:
    return make_plan(
        PipelineConfig(
            problems=ScaleModelProblems(),
            policy=VLLMPolicy(model="somewhere", gpus=0),
            sandbox=sandbox,
            root=str(place),
        )
    )


def test_every_stage_that_executes_keeps_isolations_apart(tmp_path: Path) -> None:
    safe = plan(tmp_path, SandboxConfig(isolation="docker"))
    unsafe = plan(tmp_path, SandboxConfig(isolation="unsafe-process"))
    assert safe.truths is not None
    assert unsafe.truths is not None
    executed = (
        (safe.verdicts, unsafe.verdicts),
        (safe.truths, unsafe.truths),
        (safe.examples, unsafe.examples),
        *((a.rollouts, b.rollouts) for a, b in zip(safe.waves, unsafe.waves, strict=True)),
    )
    for one, other in executed:
        assert one.path(0) != other.path(0)
    asked = [(safe.problems, unsafe.problems), (safe.solutions, unsafe.solutions)]
    asked += [(a.completions, b.completions) for a, b in zip(safe.waves, unsafe.waves, strict=True)]
    for one, other in asked:
        assert one.path(0) == other.path(0)


def test_a_run_is_isolated_unless_it_asks_not_to_be() -> None:
    assert SandboxConfig().isolation == "docker"


def test_a_run_on_a_machine_without_an_engine_stops_before_anything_is_started_or_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody-listens")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    write_problems(tmp_path, ["Double it."])
    with pytest.raises(StageFailed, match=f"{tmp_path}/nobody-listens"):
        run(config(tmp_path, isolation="docker"), ["sample"], Told())
    assert not ray.is_initialized()
