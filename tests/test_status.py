"""A run's status is told from its files alone: while it runs, after it died, by another version."""

import dataclasses
import json
from pathlib import Path

import pytest
from rich.console import Console

from jobs import run_status as facts
from jobs import status
from jobs.run import STAGES, run, write_manifest
from jobs.run_status import RunStatus, StageStatus, run_status
from jobs.status import main
from pipeline import groundwork, plan
from pipeline.config import PipelineConfig, ScaleModelPolicy, ScaleModelProblems, VLLMPolicy
from pipeline.lock import StageLocked, stage_lock
from pipeline.part_file import Quarantined, QuarantineReason
from pipeline.plan import Plan
from pipeline.policies.ledger import Account, Ledger
from pipeline.prm.results import Pace, write_pace
from pipeline.records import FinishReason, ProgramVerdict, Role, Rollout, Solution
from sandbox.protocol import Comparator, Isolation, Status, Verdict
from tests import scripted_run
from tests.scripted import VERSION

GIVEN_UP = Quarantined("p001", QuarantineReason.CRASH, "its worker died 2 times")


@pytest.fixture
def half_done(tmp_path: Path) -> Plan:
    """Eight problems in two parts; the first part is sampled and executed."""
    scripted_run.write_problems(tmp_path, ["fine"] * 8)
    plan = scripted_run.plan_of(tmp_path)
    write_manifest(plan, STAGES)
    groundwork.lay_problems(plan, scripted_run.Told())
    solutions = [
        Solution(f"s{i}", "p000", VERSION, i, "", "", FinishReason.STOP, 10, 5, 3, 0.25)
        for i in range(4)
    ]
    plan.solutions.write(0, solutions, (GIVEN_UP,))
    verdicts = [
        Verdict(kind, 0, 1, 1, 0, "", 0.1, 0.1, 9.0, Isolation.NONE, Comparator.LCB)
        for kind in (Status.AC, Status.WA, Status.WA, Status.INFRA)
    ]
    plan.verdicts.write(
        0, [ProgramVerdict(f"s{i}", "p000", verdict) for i, verdict in enumerate(verdicts)]
    )
    return plan


def stages(plan: Plan) -> dict[str, StageStatus]:
    return {stage.stage: stage for stage in run_status(plan.config.root, "scripted").stages}


def test_every_stage_says_what_is_done_and_what_came_of_it(half_done: Plan) -> None:
    told = stages(half_done)
    assert (told["problems"].done, told["problems"].total, told["problems"].rows) == (2, 2, 8)
    assert (told["solutions"].done, told["solutions"].total) == (1, 2)
    assert (told["solutions"].tokens, told["solutions"].dollars) == (60, 1.0)
    assert told["solutions"].quarantined == (GIVEN_UP,)
    assert told["verdicts"].outcomes == {"AC": 1, "INFRA": 1, "WA": 2}
    assert told["rollouts"].done == 0
    assert all(stage.working is None for stage in told.values())


def test_completions_that_keep_no_program_are_told_as_rejected(half_done: Plan) -> None:
    rollouts = [
        Rollout("step", i, "", "", FinishReason.STOP, 0, of)
        for i, of in enumerate([Status.AC, None])
    ]
    half_done.rollouts.write(0, rollouts)
    assert stages(half_done)["rollouts"].outcomes == {"AC": 1, "rejected": 1}


def test_who_is_at_work_is_told(half_done: Plan) -> None:
    with stage_lock(half_done.verdicts.directory):
        assert "pid" in (stages(half_done)["verdicts"].working or "")


def test_a_run_of_another_version_is_told_as_it_was(
    half_done: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stages(half_done)
    monkeypatch.setitem(plan.LOGIC_VERSIONS, "problems", 99)
    assert stages(half_done) == before


def test_a_store_that_was_moved_is_read_where_it_is(half_done: Plan, tmp_path: Path) -> None:
    before = stages(half_done)
    moved = Path(half_done.config.root).rename(tmp_path / "elsewhere")
    assert {s.stage: s for s in run_status(str(moved), "scripted").stages} == before


def test_a_rate_is_that_of_the_newest_parts_of_who_is_at_work_and_tells_the_time_left() -> None:
    day = 86400.0
    assert facts._parts_per_s([0.0, day + 10, day + 20], day, day + 40) == pytest.approx(2 / 40)
    many = [float(at) for at in range(50)]
    assert facts._parts_per_s(many, -9.0, 49.0) == pytest.approx(1.0)
    assert facts._parts_per_s([0.0], day, day + 10) is None


def test_parts_that_take_hours_tell_a_rate_as_well(half_done: Plan) -> None:
    with stage_lock(half_done.solutions.directory):
        lock = Path(half_done.solutions.directory, "lock.json")
        holder = json.loads(lock.read_text())
        lock.write_text(json.dumps(holder | {"since": holder["since"] - 7200}))
        told = stages(half_done)["solutions"]
    assert told.rows_per_s == pytest.approx(4 / 7200, rel=0.05)
    assert told.seconds_left == pytest.approx(7200, rel=0.05)
    assert stages(half_done)["solutions"].rows_per_s is None  # nobody is at work


def test_the_command_prints_a_table_or_json(
    half_done: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    Ledger(Path(half_done.journal_directory) / "spending").write("me", Account(3.5, 0.0))
    arguments = ["--root", half_done.config.root, "--name", "scripted"]
    assert main(arguments) == 0
    table = capsys.readouterr().out
    for words in ("solutions", "1/2", "2 WA", "p001", "its worker died", "3.50 dollars"):
        assert words in table
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["dollars_spent"] == 3.5
    assert told["complete"] is False
    assert told["stages"][1]["quarantined"][0]["problem_id"] == "p001"


def test_a_run_that_nobody_works_on_says_so_while_it_is_not_complete(
    half_done: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--root", half_done.config.root, "--name", "scripted"]
    main(arguments)
    assert "nobody is at work on it" in capsys.readouterr().out
    with stage_lock(half_done.verdicts.directory):
        main(arguments)
    assert "nobody is at work on it" not in capsys.readouterr().out


def test_a_run_is_complete_when_all_is_there_that_it_was_asked_for(half_done: Plan) -> None:
    root = half_done.config.root
    assert not run_status(root, "scripted").complete
    write_manifest(half_done, ["problems"])
    assert run_status(root, "scripted").complete
    write_manifest(half_done, ["problems", "sample"])
    assert not run_status(root, "scripted").complete
    for stage in (half_done.solutions, half_done.verdicts):
        stage.write(1, [])
    assert run_status(root, "scripted").complete
    write_manifest(half_done, STAGES)
    for stage in (half_done.completions, half_done.rollouts, half_done.examples):
        for part in range(2):
            stage.write(part, [])
    told = run_status(root, "scripted")
    assert {s.stage: (s.done, s.total) for s in told.stages if s.done != s.total} == {
        f"training {arm.name}": (0, 1) for arm in half_done.config.training.arms
    }
    assert not told.complete  # labelled, and not trained yet


def test_a_run_of_the_first_stages_does_not_forget_what_was_trained(half_done: Plan) -> None:
    half_done.examples.write(0, [])
    half_done.examples.write(1, [])
    trained = half_done.with_examples(dict.fromkeys(range(2), Role.TRAIN))
    write_manifest(trained, STAGES)
    before = stages(half_done)
    write_manifest(half_done, ["sample"])
    assert stages(half_done).keys() == before.keys()
    first = trained.config.training.arms[0]
    done = Path(trained.prm_directory(first), "done.json")
    done.parent.mkdir(parents=True)
    done.touch()
    assert stages(half_done)[f"training {first.name}"].done == 1


def test_a_run_that_is_refused_leaves_the_manifest_of_the_other_alone(half_done: Plan) -> None:
    root = half_done.config.root
    manifest = Path(root, "runs/scripted.yaml")
    before = manifest.read_bytes()
    other = scripted_run.config(Path(half_done.config.output).parent, samples=2)
    with (
        stage_lock(f"{root}/runs/scripted"),
        pytest.raises(StageLocked, match="another driver is working on it"),
    ):
        run(other, STAGES, scripted_run.Told())
    assert manifest.read_bytes() == before


def test_who_runs_it_is_told_between_two_stages_too(half_done: Plan) -> None:
    with stage_lock(f"{half_done.config.root}/runs/scripted"):
        (who,) = run_status(half_done.config.root, "scripted").working
    assert "pid" in who


def test_a_training_tells_its_steps_and_the_time_left(half_done: Plan) -> None:
    half_done.examples.write(0, [])
    half_done.examples.write(1, [])
    trained = half_done.with_examples(dict.fromkeys(range(2), Role.TRAIN))
    write_manifest(trained, STAGES)
    arm = trained.config.training.arms[0]
    with stage_lock(trained.prm_directory(arm)):
        write_pace(trained.prm_directory(arm), Pace(step=300, total=900, timed=100, seconds=60.0))
        told = stages(half_done)[f"training {arm.name}"]
    assert (told.steps, told.total_steps, told.seconds_left) == (300, 900, 360.0)
    table = Console(width=200, record=True)
    table.print(status.table_of(run_status(half_done.config.root, "scripted")))
    assert "300/900" in table.export_text()


def test_who_trains_the_small_policy_is_told(tmp_path: Path) -> None:
    config = PipelineConfig(
        name="small",
        root=str(tmp_path / "store"),
        output=str(tmp_path / "out"),
        problems=ScaleModelProblems(train=4, meta=2, validation=2, test=2),
        policy=VLLMPolicy(model="scale-model", gpus=0),
        scale_model=ScaleModelPolicy(),
    )
    small = plan.make_plan(config)
    write_manifest(small, STAGES)
    groundwork.lay_problems(small, scripted_run.Told())
    with stage_lock(f"{config.root}/policy"):
        told = run_status(config.root, "small")
        (policy,) = [stage for stage in told.stages if stage.stage == "policy"]
        assert policy.done == 0
        assert told.working == (policy.working,)


def test_watching_outlasts_the_moment_between_two_stages_and_ends_with_the_work(
    half_done: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter("+-+---?")

    def look(*_: str) -> RunStatus:
        """A driver that works, is between two stages, works, and is gone."""
        told = run_status(half_done.config.root, "scripted")
        if next(looks) == "-":
            return told
        stages = (dataclasses.replace(stage, working="a, pid 1") for stage in told.stages)
        return dataclasses.replace(told, stages=tuple(stages))

    monkeypatch.setattr(status, "run_status", look)
    monkeypatch.setattr(status, "WATCH_S", 0.0)
    monkeypatch.setattr(status, "QUIET_LOOKS", 3)
    assert main(["--root", half_done.config.root, "--name", "scripted", "--watch"]) == 0
    assert next(looks) == "?"


def test_a_run_that_is_not_there_is_one_clear_error_that_names_those_that_are(
    half_done: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", half_done.config.root, "--name", "nothing"]) == 1
    assert "nothing.yaml: no such run; --name is one of scripted" in capsys.readouterr().err
    assert main(["--root", str(tmp_path / "empty"), "--name", "nothing"]) == 1
    assert "this --root has none yet" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[", "format: 2"])
def test_a_manifest_that_is_none_is_one_clear_error(
    half_done: Plan, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    Path(half_done.config.root, "runs/scripted.yaml").write_text(text)
    assert main(["--root", half_done.config.root, "--name", "scripted"]) == 1
    assert "is no manifest of a run" in capsys.readouterr().err
