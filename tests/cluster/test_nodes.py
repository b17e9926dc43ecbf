"""A job on several nodes: its pools grow and shrink, work at once, and follow the nodes that come
and go. Told by the workers themselves (tests/witness.py)."""

import pytest

from tests.soak import POLICY_WORKERS, SLOTS, Kind, Soaked
from tests.witness import Event, What

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1800)]


def told(run: Soaked, what: What, of: str = "") -> list[Event]:
    """Events of one kind; `of`: about a stage's parts."""
    return [e for e in run.told if e.what is what and e.about.startswith(of)]


def alive_at_once(run: Soaked, worker: str) -> list[int]:
    """How many workers of that kind there were, from one start or end to the next."""
    turns = [e for e in run.told if e.worker == worker and e.what in (What.STARTED, What.ENDED)]
    counts = [0]
    for event in turns:
        counts.append(counts[-1] + (1 if event.what is What.STARTED else -1))
    return counts[1:]


def test_the_work_is_spread_over_the_nodes(undisturbed: Soaked) -> None:
    assert len({event.node for event in told(undisturbed, What.MADE)}) > 1


@pytest.mark.parametrize(
    ("asking", "executing"), [("solutions", "verdicts"), ("completions", "rollouts")]
)
def test_parts_are_executed_while_others_are_still_asked_for(
    undisturbed: Soaked, asking: str, executing: str
) -> None:
    """No barrier between the two pools of a stage."""
    first_executed = told(undisturbed, What.BEGUN, executing)[0]
    assert first_executed.at < told(undisturbed, What.MADE, asking)[-1].at


def test_pools_grow_under_load_and_never_beyond_their_maximum(undisturbed: Soaked) -> None:
    asking = ("ScriptedSampleParts", "ScriptedCompleteParts")
    executing = ("ScriptedJudgeSolutionParts", "ScriptedJudgeRolloutParts")
    most = {worker: max(alive_at_once(undisturbed, worker)) for worker in (*asking, *executing)}
    assert all(most[worker] <= POLICY_WORKERS for worker in asking)
    assert all(most[worker] <= SLOTS for worker in executing)
    assert most["ScriptedSampleParts"] == POLICY_WORKERS


def test_a_pool_without_work_shrinks_while_the_next_is_still_busy(undisturbed: Soaked) -> None:
    first_end = min(
        e.at for e in told(undisturbed, What.ENDED) if e.worker == "ScriptedCompleteParts"
    )
    assert told(undisturbed, What.MADE, "rollouts")[-1].at > first_end


def test_a_node_that_joins_in_the_middle_is_given_work(soaked: Soaked) -> None:
    (kill,) = [kill for kill in soaked.kills if kill.kind is Kind.NODE]
    (joined,) = soaked.joined
    made_there = [event for event in told(soaked, What.MADE) if event.node == joined]
    assert made_there
    assert all(event.at > kill.at for event in made_there)


def test_a_node_that_left_does_nothing_more(soaked: Soaked) -> None:
    (kill,) = [kill for kill in soaked.kills if kill.kind is Kind.NODE]
    lost = {event.node for event in soaked.told if event.node.startswith(kill.victim)}
    after = [e for e in told(soaked, What.BEGUN) if e.node in lost and e.at > kill.at + 5]
    assert after == []
