"""A stage goes on in new rounds for as long as each gets somewhere."""

import json
import time
from pathlib import Path

import pytest

from pipeline import schemas
from pipeline.lock import StageLocked
from pipeline.part_file import Quarantined, QuarantineReason
from pipeline.quarantine import Slice, Tries
from pipeline.records import Problem
from pipeline.rounds import Rounds, StageFailed, working_on
from pipeline.store import StageStore
from tests.scripted import problem
from tests.scripted_run import Told

PARTS = range(3)


@pytest.fixture
def stage(tmp_path: Path) -> StageStore[Problem]:
    return StageStore(str(tmp_path), "problems", "f", schemas.PROBLEM)


def rounds_of(stage: StageStore[Problem], *, retry: bool = False) -> Rounds:
    return Rounds([(stage, PARTS)], Told(), retry=retry)


def a_worker_dies_with(stage: StageStore[Problem], part: int) -> None:
    Tries(stage, part, "run", lambda: ["p"]).begin(Slice(part))


def died(rounds: Rounds) -> None:
    rounds.died(RuntimeError("its node is lost"), "its node is lost")


def test_what_is_there_is_no_work(stage: StageStore[Problem]) -> None:
    for part in PARTS:
        stage.write(part, [problem()])
    assert list(rounds_of(stage)) == []


def test_one_round_does_where_no_actor_dies(stage: StageStore[Problem]) -> None:
    stage.write(1, [problem()])
    assert list(rounds_of(stage)) == [[[0, 2]]]


def test_a_round_that_made_a_part_is_followed_by_another_over_the_rest(
    stage: StageStore[Problem],
) -> None:
    rounds = rounds_of(stage)
    seen: list[list[int]] = []
    for (missing,) in rounds:
        seen.append(missing)
        stage.write(missing[0], [problem()])
        if len(missing) > 1:
            died(rounds)
    assert seen == [[0, 1, 2], [1, 2], [2]]


def test_a_round_that_made_nothing_but_learned_of_a_death_is_followed_by_another(
    stage: StageStore[Problem],
) -> None:
    rounds = rounds_of(stage)
    seen: list[list[int]] = []
    for (missing,) in rounds:
        seen.append(missing)
        if len(seen) == 1:
            a_worker_dies_with(stage, 1)
            died(rounds)
    assert seen == [[0, 1, 2], [0, 1, 2]]


def test_a_round_that_came_to_nothing_is_the_last_and_tells_why(
    stage: StageStore[Problem],
) -> None:
    rounds = rounds_of(stage)
    working = iter(rounds)
    next(working)
    died(rounds)
    with pytest.raises(StageFailed, match="its node is lost"):
        next(working)


def test_quarantined_problems_get_one_more_chance_where_they_are_asked_for(
    stage: StageStore[Problem],
) -> None:
    given_up = Quarantined("q", QuarantineReason.ERROR, "ValueError: of a kind")
    for part in PARTS:
        stage.write(part, [problem()], (given_up,) if part == 1 else ())
    assert list(rounds_of(stage)) == []
    assert list(rounds_of(stage, retry=True)) == [[[1]]]


def test_the_quarantined_are_named_when_the_work_is_done(stage: StageStore[Problem]) -> None:
    given_up = Quarantined("q", QuarantineReason.ERROR, "ValueError: of a kind")
    for part in PARTS:
        stage.write(part, [problem()], (given_up,) if part == 1 else ())
    told = Told()
    with working_on([(stage, PARTS)], told, retry=False):
        pass
    assert [note for note in told.notes if "problem q" in note]


def work_on(stage: StageStore[Problem]) -> None:
    """Work until another driver has the stage."""
    now = time.time()
    other = {"host": "elsewhere", "pid": 7, "token": "another", "since": now, "renewed": now}
    with working_on([(stage, PARTS)], Told(), False) as rounds:
        Path(stage.directory, "lock.json").write_text(json.dumps(other))
        while time.time() < now + 20:
            rounds.check_locks()
            time.sleep(0.05)
        pytest.fail("nobody told it")


def test_a_stage_that_another_driver_took_over_is_left_to_it(stage: StageStore[Problem]) -> None:
    with pytest.raises(StageLocked, match="taken over by another driver"):
        work_on(stage)
