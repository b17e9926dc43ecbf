"""Rollouts that stop early, on real Ray: fewer are made, and what was made stays."""

import dataclasses
from pathlib import Path

import pytest

from pipeline.config import EarlyStop, PipelineConfig
from pipeline.early_stop import stopping_region
from pipeline.plan import Plan, make_plan
from tests.scripted_run import config, go, write_problems

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("on_nodes")]

RULE = EarlyStop(first=2, error=0.3, risk=0.2)
SAMPLES = 8


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("stopped")
    write_problems(place, ["Double it.", "Double it, please."])
    return place


def with_rollouts(place: Path, **rollouts: object) -> PipelineConfig:
    chosen = config(place)
    return chosen.model_copy(update={"rollouts": chosen.rollouts.model_copy(update=rollouts)})


def counts(plan: Plan) -> list[tuple[int, int]]:
    return [
        (example.passed[0], example.trials[0])
        for part in plan.examples.done()
        for example in plan.examples.read(part)
    ]


def test_steps_stop_where_the_rule_says_and_keep_what_was_counted(place: Path) -> None:
    chosen = with_rollouts(place, samples=SAMPLES, early_stop=RULE)
    plan = make_plan(chosen)
    go(chosen)
    region = stopping_region(SAMPLES, RULE)
    labels = counts(plan)
    assert labels
    for passed, trials in labels:
        assert trials == SAMPLES or (trials, passed) in region
        assert not [
            (looked, passed) for looked in (2, 4) if looked < trials and (looked, passed) in region
        ]
    asked = sum(wave.rollouts.count_rows(part) for wave in plan.waves for part in [0])
    assert asked == sum(trials for _, trials in labels)
    assert asked < SAMPLES * len(labels)


def test_a_second_run_asks_for_nothing_and_a_plain_one_takes_the_first_wave(place: Path) -> None:
    chosen = with_rollouts(place, samples=SAMPLES, early_stop=RULE)
    before = _written(make_plan(chosen))
    go(chosen)
    assert _written(make_plan(chosen)) == before
    plain = make_plan(with_rollouts(place, samples=RULE.first))
    assert plain.rollouts.fingerprint == make_plan(chosen).rollouts.fingerprint


def test_a_wave_that_came_out_different_takes_the_later_ones_along(place: Path) -> None:
    chosen = with_rollouts(place, samples=SAMPLES, early_stop=RULE)
    plan = make_plan(chosen)
    rows = plan.rollouts.read(0)
    changed = [dataclasses.replace(row, completion=row.completion + "#") for row in rows]
    plan.rollouts.write(0, changed)
    later = plan.waves[1].completions
    assert "has changed since" in str(later.inspect(0))
    assert plan.waves[1].completions.fingerprint != plan.completions.fingerprint


def _written(plan: Plan) -> dict[str, int]:
    paths = Path(plan.config.root).rglob("part-*.arrow")
    return {str(path): path.stat().st_mtime_ns for path in paths}
