"""A round that is ended on real Ray: its workers end with it, and another goes on in new ones."""

from collections import Counter
from pathlib import Path

import pytest

from pipeline import flow
from tests import scripted_run
from tests.witness import What, events, unfinished

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STATEMENTS = ["KILLS_POLICY", "fine", "fine", "KILLS_POLICY", "fine", "fine"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("rounds")
    scripted_run.write_problems(place, STATEMENTS)
    (place / "mishaps").touch()
    (place / "pace").write_text("1")
    return place


def test_more_deaths_than_an_actor_has_lives_blame_those_alone_that_were_to_blame(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two poisonous problems of one part take six workers: a round's actor has four lives here."""
    monkeypatch.setattr(flow, "ACTOR_RESTARTS", 3)
    notes = scripted_run.go(scripted_run.config(place))
    assert any(note.startswith("going on in new actors") for note in notes)
    plan = scripted_run.plan_of(place)
    given_up = {q.problem_id for p in plan.solutions.done() for q in plan.solutions.quarantined(p)}
    assert given_up == {"p000000", "p000003"}
    examples = plan.examples.read_all(plan.examples.done())
    assert {example.problem_id for example in examples} == {
        "p000001",
        "p000002",
        "p000004",
        "p000005",
    }


def test_no_part_is_made_by_two_workers(place: Path) -> None:
    made = Counter(e.about for e in events(place) if e.what is What.MADE)
    assert set(made.values()) == {1}
    begun = unfinished(events(place), What.BEGUN, What.MADE)
    assert {e.about.split()[0] for e in begun} == {"solutions"}, "of the workers that died"
