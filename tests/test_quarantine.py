"""A problem that breaks its worker every time is given up by name; the others are not held up."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from pipeline.part_file import PartSummary, Quarantined, QuarantineReason
from pipeline.plan import Plan
from pipeline.policies.protocol import PolicyError
from pipeline.quarantine import ALONE_TRIES, WHOLE_TRIES, EveryProblemFails, Slice, Tries
from pipeline.records import StepLabel
from pipeline.schemas import STEP_LABEL
from pipeline.store import StageStore
from tests import scripted_run

PROBLEMS = ["a", "b", "c"]


@pytest.fixture
def stage(tmp_path: Path) -> StageStore[StepLabel]:
    return StageStore(str(tmp_path), "labels", "f00d", STEP_LABEL)


class Died(BaseException):
    """Stands for the death of a worker: nothing after it is executed."""


def work(
    stage: StageStore[StepLabel],
    *,
    deadly: str = "",
    raising: str = "",
    run: str = "run",
    retry: bool = False,
    error: Exception | None = None,
) -> list[Slice]:
    """One worker's life: make part 0, or die with it. The slices that were asked for."""
    tries = Tries(stage, 0, run, lambda: PROBLEMS, retry=retry)
    asked: list[Slice] = []
    while (piece := tries.next()) is not None:
        asked.append(piece)
        tries.begin(piece)
        of = PROBLEMS if piece.problem_id is None else [piece.problem_id]
        if deadly and deadly in of:
            raise Died
        if raising and set(raising) & set(of):
            tries.failed(piece, error or ValueError("no"))
        else:
            tries.made(piece, [StepLabel(problem_id, 1, 4) for problem_id in of])
    return asked


def lives(stage: StageStore[StepLabel], **mishaps: str) -> int:
    """How many workers die with the part before it is there."""
    for deaths in range(20):
        try:
            work(stage, **mishaps)  # pyright: ignore[reportArgumentType]
        except Died:
            continue
        return deaths
    raise AssertionError("the part is tried for ever")


def left_over(stage: StageStore[StepLabel]) -> list[str]:
    return os.listdir(f"{stage.directory}/attempts")


def test_a_part_without_mishaps_is_made_whole_and_leaves_no_note(
    stage: StageStore[StepLabel],
) -> None:
    assert work(stage) == [Slice(0)]
    assert left_over(stage) == []


def test_a_deadly_problem_is_given_up_after_bounded_deaths_and_the_others_are_kept(
    stage: StageStore[StepLabel],
) -> None:
    assert lives(stage, deadly="b") == WHOLE_TRIES + ALONE_TRIES
    assert [row.step_id for row in stage.read(0)] == ["a", "c"]
    (given_up,) = stage.quarantined(0)
    assert (given_up.problem_id, given_up.reason) == ("b", QuarantineReason.CRASH)
    assert left_over(stage) == []


def test_what_was_made_before_a_death_is_not_made_again(stage: StageStore[StepLabel]) -> None:
    for _ in range(WHOLE_TRIES + 1):
        with pytest.raises(Died):
            work(stage, deadly="b")
    assert work(stage) == [Slice(0, "b"), Slice(0, "c")]
    assert [row.step_id for row in stage.read(0)] == PROBLEMS


def test_deaths_of_another_run_do_not_count(stage: StageStore[StepLabel]) -> None:
    for number in range(6):
        with pytest.raises(Died):
            work(stage, deadly="b", run=f"run {number}")
    assert work(stage, run="the last") == [Slice(0)]


def test_a_problem_that_raises_is_given_up_with_its_reason(stage: StageStore[StepLabel]) -> None:
    work(stage, raising="b")
    assert [row.step_id for row in stage.read(0)] == ["a", "c"]
    assert stage.quarantined(0) == (Quarantined("b", QuarantineReason.ERROR, "ValueError: no"),)


def test_where_every_problem_raises_none_is_to_blame(stage: StageStore[StepLabel]) -> None:
    with pytest.raises(EveryProblemFails, match=r"all of its 3 problems fail.*ValueError: no"):
        work(stage, raising="abc")
    assert stage.inspect(0) is None


def test_a_failure_of_the_world_around_blames_no_problem(stage: StageStore[StepLabel]) -> None:
    for _ in range(10):
        with pytest.raises(PolicyError):
            work(stage, raising="b", error=PolicyError("the key is wrong"))
    assert work(stage) == [Slice(0)]


def test_a_retry_makes_what_was_given_up_and_nothing_else(stage: StageStore[StepLabel]) -> None:
    work(stage, raising="b")
    before = stage.digest(0)
    assert work(stage) == []
    assert work(stage, retry=True) == [Slice(0, "b")]
    assert [row.step_id for row in stage.read(0)] == PROBLEMS
    assert stage.inspect(0) == PartSummary(0, 3)
    assert stage.digest(0) != before


# --- on Ray, with processes that really die ------------------------------------------------------


STATEMENTS = ["fine", "KILLS_POLICY", "fine", "fine", "fine", "RAISES", "fine", "fine"]
GIVEN_UP = {"p000001": "solutions", "p000005": "solutions"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("poison")
    scripted_run.write_problems(place, STATEMENTS)
    (place / "mishaps").touch()
    return place


@pytest.fixture(scope="module")
def notes(place: Path) -> Iterator[list[str]]:
    yield scripted_run.go(scripted_run.config(place))
    ray.shutdown()


@pytest.fixture
def plan(place: Path, notes: list[str]) -> Plan:
    return scripted_run.plan_of(place)


def given_up(plan: Plan) -> dict[str, str]:
    stages = (plan.solutions, plan.verdicts, plan.completions, plan.rollouts, plan.examples)
    return {
        entry.problem_id: stage.name
        for stage in stages
        for part in stage.done()
        for entry in stage.quarantined(part)
    }


def test_deadly_problems_are_quarantined_and_named_and_the_run_goes_on(
    plan: Plan, notes: list[str]
) -> None:
    assert given_up(plan) == GIVEN_UP
    for problem_id, stage in GIVEN_UP.items():
        assert any(f"quarantined in {stage}: problem {problem_id}" in note for note in notes)


def test_all_other_problems_have_all_their_examples(plan: Plan) -> None:
    examples = plan.examples.read_all(plan.examples.done())
    assert {example.problem_id for example in examples} == {
        f"p{number:06d}" for number, statement in enumerate(STATEMENTS) if statement == "fine"
    }
    assert len(examples) == STATEMENTS.count("fine") * scripted_run.SAMPLES
    assert all(example.trials == (2, 0) for example in examples)


def test_another_run_leaves_quarantined_problems_alone(place: Path, plan: Plan) -> None:
    before = scripted_run.rows_of(plan)
    scripted_run.go(scripted_run.config(place))
    assert scripted_run.rows_of(plan) == before


def test_retried_when_mended_they_are_like_any_other(place: Path, plan: Plan) -> None:
    (place / "mishaps").unlink()
    scripted_run.go(scripted_run.config(place), retry_quarantined=True)
    assert given_up(plan) == {}
    examples = plan.examples.read_all(plan.examples.done())
    assert len(examples) == len(STATEMENTS) * scripted_run.SAMPLES
