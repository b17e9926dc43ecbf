"""A stage goes on in new rounds for as long as each gets somewhere."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import rounds as rounds_module
from pipeline import schemas
from pipeline.attempts import note_path, read_note, save_note
from pipeline.lock import StageLocked
from pipeline.part_file import Quarantined, QuarantineReason
from pipeline.policies.protocol import PolicyError
from pipeline.quarantine import EveryProblemFails, Tries
from pipeline.records import Problem
from pipeline.rounds import FRUITLESS, Rounds, StageFailed, working_on
from pipeline.store import StageStore
from pipeline.workers.making import failed, new_row
from sandbox.transport import SandboxUnavailable
from tests.scripted import problem
from tests.scripted_run import Told

PARTS = range(3)


@pytest.fixture
def stage(tmp_path: Path) -> StageStore[Problem]:
    return StageStore(str(tmp_path), "problems", "f", schemas.PROBLEM)


def rounds_of(stage: StageStore[Problem], *, retry: bool = False) -> Rounds:
    return Rounds([(stage, PARTS)], Told(), retry=retry)


def a_worker_begins(rounds: Rounds, part: int) -> Tries:
    stage = rounds.surveys[0][0].stage
    tries = Tries(stage, part, rounds.token, lambda: ["p"])
    piece = tries.next()
    assert piece is not None
    tries.begin(piece)
    return tries


def a_worker_dies_with(rounds: Rounds, part: int) -> None:
    a_worker_begins(rounds, part)
    path = note_path(rounds.surveys[0][0].stage, part)
    note = read_note(path)
    assert note is not None
    save_note(path, replace(note, owner="another/machine/1/1"))


def a_part_fails(rounds: Rounds, part: int, error: Exception) -> None:
    stage = rounds.surveys[0][0].stage
    try:
        raise error
    except Exception as raised:  # noqa: BLE001 - as a worker has it
        rounds.tell(failed({"part": part} | new_row(rounds.token), raised, stage.name))


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
            for _ in range(2):
                a_worker_dies_with(rounds, 1)
            died(rounds)
    assert seen == [[0, 1, 2], [0, 1, 2]]


def test_rounds_that_are_ended_under_a_healthy_worker_blame_no_problem_and_come_to_an_end(
    stage: StageStore[Problem],
) -> None:
    rounds = rounds_of(stage)
    working = iter(rounds)
    for _ in range(FRUITLESS):
        next(working)
        a_worker_begins(rounds, 0)
        died(rounds)
    with pytest.raises(StageFailed, match="its node is lost"):
        next(working)
    note = read_note(note_path(stage, 0))
    assert note is not None
    assert (note.whole, note.alone) == (0, {})


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


# --- parts that could not be made ----------------------------------------------------------------


def test_a_part_that_failed_on_a_bad_node_is_made_in_another_round(
    stage: StageStore[Problem],
) -> None:
    rounds = rounds_of(stage)
    seen: list[list[int]] = []
    for (missing,) in rounds:
        seen.append(missing)
        for part in missing[1:] if len(seen) == 1 else missing:
            stage.write(part, [problem()])
        if len(seen) == 1:
            a_part_fails(rounds, 0, SandboxUnavailable("no Docker engine answers"))
    assert seen == [[0, 1, 2], [0]]


def test_where_every_part_fails_the_round_is_the_last_and_tells_why(
    stage: StageStore[Problem],
) -> None:
    rounds = rounds_of(stage)
    working = iter(rounds)
    next(working)
    for part in PARTS:
        a_part_fails(rounds, part, SandboxUnavailable("no Docker engine answers"))
    with pytest.raises(StageFailed, match=r"3 parts could not be made.*\n.*no Docker engine"):
        next(working)


def test_what_no_retry_mends_ends_the_stage_whatever_else_was_made(
    stage: StageStore[Problem],
) -> None:
    rounds = rounds_of(stage)
    working = iter(rounds)
    next(working)
    stage.write(0, [problem()])
    a_part_fails(rounds, 1, PolicyError("the key was refused"))
    with pytest.raises(StageFailed, match=r"1 parts could not be made.*\n.*the key was refused"):
        next(working)


def test_a_round_is_stuck_when_everybody_fails_and_was_given_time(
    stage: StageStore[Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = rounds_of(stage)
    next(iter(rounds))
    a_part_fails(rounds, 0, SandboxUnavailable("no Docker engine answers"))
    assert not rounds.is_stuck, "it may pass"
    monkeypatch.setattr(rounds_module, "STILL_S", 0.0)
    assert rounds.is_stuck
    a_worker_dies_with(rounds, 1)
    assert not rounds.is_stuck, "somebody else seems to be at work"
    rounds.tell({"part": 2} | new_row(rounds.token))
    assert not rounds.is_stuck


def test_a_part_whose_problems_all_fail_is_given_up_where_others_could_be_made(
    stage: StageStore[Problem],
) -> None:
    rounds = rounds_of(stage)
    may_give_up: list[bool] = []
    for (missing,) in rounds:
        may_give_up.append(rounds.give_up)
        for part in missing[1:] if len(may_give_up) == 1 else missing:
            stage.write(part, [problem()])
        if len(may_give_up) == 1:
            a_part_fails(rounds, 0, EveryProblemFails("all of its 2 problems fail"))
    assert may_give_up == [False, True]


def test_where_most_parts_lose_all_of_their_problems_none_is_to_blame(
    stage: StageStore[Problem],
) -> None:
    rounds = rounds_of(stage)
    working = iter(rounds)
    next(working)
    stage.write(0, [problem()])
    for part in (1, 2):
        a_part_fails(rounds, part, EveryProblemFails("all of its 2 problems fail"))
    with pytest.raises(StageFailed, match="all of its 2 problems fail"):
        next(working)
