"""A problem that breaks its worker every time is given up by name; the others are not held up."""

import os
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import docker.errors
import pytest

from pipeline.attempts import (
    UNPLACED,
    Place,
    Token,
    at_work,
    note_path,
    read_note,
    save_note,
)
from pipeline.part_file import PartSummary, Quarantined, QuarantineReason
from pipeline.plan import Plan
from pipeline.policies.protocol import PolicyError
from pipeline.quarantine import ALONE_TRIES, WHOLE_TRIES, EveryProblemFails, Slice, Tries
from pipeline.records import StepLabel
from pipeline.schemas import STEP_LABEL
from pipeline.store import StageStore
from sandbox.container import OWNER_LABEL, connect
from sandbox.owner import this_process
from sandbox.protocol import Status
from tests import scripted_run

PROBLEMS = ["a", "b", "c"]
TOKEN = Token("run")


@pytest.fixture
def stage(tmp_path: Path) -> StageStore[StepLabel]:
    return StageStore(str(tmp_path), "labels", "f00d", STEP_LABEL)


class Died(BaseException):
    """Stands for the death of a worker: nothing after it is executed."""


def bury(stage: StageStore[StepLabel]) -> None:
    """Make the note of part 0 one of a process of this machine that has ended."""
    here, pid, _ = this_process().rsplit("/", 2)
    path = note_path(stage, 0)
    note = read_note(path)
    assert note is not None
    save_note(path, replace(note, owner=f"{here}/{pid}/1"))


def work(
    stage: StageStore[StepLabel],
    *,
    deadly: str = "",
    raising: str = "",
    dies: bool = True,
    token: Token = TOKEN,
    place: Place = UNPLACED,
    retry: bool = False,
    give_up: bool = False,
    error: Exception | None = None,
) -> list[Slice]:
    """One worker's life: make part 0, or die with it. The slices that were asked for."""
    tries = Tries(stage, 0, token, lambda: PROBLEMS, place=place, retry=retry, give_up=give_up)
    asked: list[Slice] = []
    while (piece := tries.next()) is not None:
        asked.append(piece)
        tries.begin(piece)
        of = PROBLEMS if piece.problem_id is None else [piece.problem_id]
        if deadly and deadly in of:
            if dies:
                bury(stage)
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
            work(stage, deadly="b", token=Token(f"run {number}"))
    assert work(stage, token=Token("the last")) == [Slice(0)]


def test_a_part_that_a_healthy_worker_made_when_its_round_was_ended_is_not_held_against_it(
    stage: StageStore[StepLabel],
) -> None:
    for number in range(6):
        with pytest.raises(Died):
            work(stage, deadly="b", token=Token("run", number))
    assert work(stage, token=Token("run", 6)) == [Slice(0)]
    assert stage.quarantined(0) == ()


def test_deaths_of_an_earlier_round_of_the_run_are_remembered(
    stage: StageStore[StepLabel],
) -> None:
    for _ in range(WHOLE_TRIES + 1):
        with pytest.raises(Died):
            work(stage, deadly="b", token=Token("run", 1))
    assert work(stage, token=Token("run", 2)) == [Slice(0, "b"), Slice(0, "c")]


def test_a_worker_that_still_lives_has_not_died_of_its_part(stage: StageStore[StepLabel]) -> None:
    for _ in range(6):
        with pytest.raises(Died):
            work(stage, deadly="b", dies=False)
    assert work(stage) == [Slice(0)]


def test_a_worker_whose_node_is_lost_did_not_die_of_its_part(stage: StageStore[StepLabel]) -> None:
    gone = {f"node {number}" for number in range(6)}
    for node in sorted(gone):
        with pytest.raises(Died):
            work(stage, deadly="b", place=Place(node, gone.__contains__))
    assert work(stage, place=Place("another", gone.__contains__)) == [Slice(0)]


def test_who_is_at_work_in_a_round_is_told_by_the_notes(stage: StageStore[StepLabel]) -> None:
    with pytest.raises(Died):
        work(stage, deadly="b", dies=False)
    assert at_work(stage, range(9), TOKEN) == {this_process()}
    assert at_work(stage, range(9), Token("run", 2)) == set()
    with pytest.raises(PolicyError):
        work(stage, raising="b", error=PolicyError("the key is wrong"))
    assert at_work(stage, range(9), TOKEN) == set()


def test_a_problem_that_raises_is_given_up_with_its_reason(stage: StageStore[StepLabel]) -> None:
    work(stage, raising="b")
    assert [row.step_id for row in stage.read(0)] == ["a", "c"]
    assert stage.quarantined(0) == (Quarantined("b", QuarantineReason.ERROR, "ValueError: no"),)


def test_where_every_problem_raises_none_is_to_blame(stage: StageStore[StepLabel]) -> None:
    with pytest.raises(EveryProblemFails, match=r"all of its 3 problems fail.*ValueError: no"):
        work(stage, raising="abc")
    assert stage.inspect(0) is None


def test_where_other_parts_could_be_made_a_part_may_lose_all_of_its_problems(
    stage: StageStore[StepLabel],
) -> None:
    work(stage, raising="abc", give_up=True)
    assert stage.read(0) == []
    assert [entry.problem_id for entry in stage.quarantined(0)] == PROBLEMS


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


STATEMENTS = ["fine", "KILLS_POLICY", "fine", "fine", "fine", "RAISES", "fine", "LEAVES_A_TRACE"]
GIVEN_UP = {"p000001": "solutions", "p000005": "solutions", "p000007": "verdicts"}
LOST = "p000007"


class ContainerKiller:
    """Kills the container of every program that leaves a file `trace`, as soon as it is there."""

    def __init__(self) -> None:
        self.killed: set[str] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        client = connect()
        while not self._stopped.wait(0.02):
            for container in client.containers.list(
                filters={"label": OWNER_LABEL}, ignore_removed=True
            ):
                root = Path(f"/proc/{container.attrs['State']['Pid']}/root/box")
                with suppress(OSError, docker.errors.APIError):  # it went by itself
                    if any(root.glob("*/trace")):
                        container.kill()
                        self.killed.add(str(container.id))
        client.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("poison")
    scripted_run.write_problems(place, STATEMENTS)
    (place / "mishaps").touch()
    return place


@pytest.fixture(scope="module")
def poisoned(docker_engine: None, on_nodes: None, place: Path) -> tuple[list[str], set[str]]:
    """A run over poisonous problems: what it told, and the containers that were killed."""
    killer = ContainerKiller()
    try:
        return scripted_run.go(scripted_run.config(place, isolation="docker")), killer.killed
    finally:
        killer.stop()


@pytest.fixture
def plan(place: Path, poisoned: tuple[list[str], set[str]]) -> Plan:
    return scripted_run.plan_of(place, isolation="docker")


def given_up(plan: Plan) -> dict[str, str]:
    stages = (plan.solutions, plan.verdicts, plan.completions, plan.rollouts, plan.examples)
    return {
        entry.problem_id: stage.name
        for stage in stages
        for part in stage.done()
        for entry in stage.quarantined(part)
    }


@pytest.mark.docker
@pytest.mark.slow
class TestPoisonousProblems:
    """In this order: the last two run the job again."""

    def test_they_are_quarantined_and_named_and_the_run_goes_on(
        self, plan: Plan, poisoned: tuple[list[str], set[str]]
    ) -> None:
        assert given_up(plan) == GIVEN_UP
        notes, _ = poisoned
        for problem_id, stage in GIVEN_UP.items():
            assert any(f"quarantined in {stage}: problem {problem_id}" in note for note in notes)

    def test_all_others_have_all_their_examples(self, plan: Plan) -> None:
        examples = plan.examples.read_all(plan.examples.done())
        assert {example.problem_id for example in examples} == {
            f"p{number:06d}" for number, statement in enumerate(STATEMENTS) if statement == "fine"
        }
        assert len(examples) == STATEMENTS.count("fine") * scripted_run.SAMPLES
        assert all(example.trials == (2, 0) for example in examples)

    def test_a_program_that_loses_its_container_every_time_is_tried_a_bounded_number_of_times(
        self, poisoned: tuple[list[str], set[str]]
    ) -> None:
        """Its four solutions are equal, so it is one program: three containers with the others,
        three alone."""
        assert len(poisoned[1]) == 6

    def test_what_the_sandbox_failed_on_is_marked_so_and_never_becomes_a_label(
        self, plan: Plan
    ) -> None:
        verdicts = plan.verdicts.read_all(plan.verdicts.done())
        lost = [row.verdict.status for row in verdicts if row.problem_id == LOST]
        assert lost == [Status.INFRA] * scripted_run.SAMPLES
        (entry,) = [q for part in plan.verdicts.done() for q in plan.verdicts.quarantined(part)]
        assert (entry.problem_id, entry.reason) == (LOST, QuarantineReason.INFRA)
        examples = plan.examples.read_all(plan.examples.done())
        assert LOST not in {example.problem_id for example in examples}

    def test_another_run_leaves_them_alone(self, place: Path, plan: Plan) -> None:
        before = scripted_run.rows_of(plan)
        scripted_run.go(plan.config)
        assert scripted_run.rows_of(plan) == before

    def test_retried_when_mended_they_are_like_any_other(self, place: Path, plan: Plan) -> None:
        (place / "mishaps").unlink()
        scripted_run.go(plan.config, retry_quarantined=True)
        assert given_up(plan) == {}
        examples = plan.examples.read_all(plan.examples.done())
        assert len(examples) == len(STATEMENTS) * scripted_run.SAMPLES
