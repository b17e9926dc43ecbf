"""Processes are killed while a job works: drivers, workers, containers, whole nodes. It ends with
the same rows as an undisturbed run, and makes nothing twice but what was in flight.

The policy answers from a script, so that rows can be compared; Ray, the store, the journal, the
programs, the containers and SIGKILL are real. Many more kills: `python -m tests.soak`.
"""

from collections import Counter

import pytest

from tests.soak import Kind, Soaked
from tests.witness import What

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1800)]


def test_one_of_each_kind_was_killed_while_there_was_work_to_do(soaked: Soaked) -> None:
    assert Counter(kill.kind for kill in soaked.kills) == Counter(Kind)
    made = [event.at for event in soaked.told if event.what is What.MADE]
    assert all(min(made) < kill.at < max(made) for kill in soaked.kills)


def test_the_rows_are_those_of_an_undisturbed_run(soaked: Soaked, undisturbed: Soaked) -> None:
    rows = undisturbed.rows()
    assert all(rows.values())
    assert soaked.rows() == rows


def test_no_row_is_lost_or_doubled(soaked: Soaked) -> None:
    plan = soaked.plan
    solutions = [row.solution_id for row in plan.solutions.read_all(plan.solutions.done())]
    examples = [row.solution_id for row in plan.examples.read_all(plan.examples.done())]
    assert len(set(solutions)) == len(solutions)
    assert sorted(examples) == sorted(solutions)


def test_a_part_that_was_made_is_never_made_again(soaked: Soaked) -> None:
    assert set(soaked.made().values()) == {1}


def test_only_parts_in_flight_at_a_kill_are_begun_again(soaked: Soaked) -> None:
    begun = Counter(event.about for event in soaked.told if event.what is What.BEGUN)
    in_flight = Counter(part for cost in soaked.costs() for part in cost.in_flight)
    assert in_flight.total() > 0
    for part, times in begun.items():
        assert times - 1 <= in_flight[part], part


def test_an_answer_that_was_paid_for_is_not_paid_again(soaked: Soaked) -> None:
    assert set(soaked.kept().values()) == {1}
    assert soaked.repeated() <= sum(cost.calls_in_flight for cost in soaked.costs())


def test_a_lost_container_costs_no_part(soaked: Soaked) -> None:
    (cost,) = [
        cost
        for kill, cost in zip(soaked.kills, soaked.costs(), strict=True)
        if kill.kind is Kind.CONTAINER
    ]
    assert cost.in_flight == ()


def test_a_lost_worker_or_node_is_replaced_without_a_new_driver(soaked: Soaked) -> None:
    assert soaked.driver_lives == 1 + sum(kill.kind is Kind.DRIVER for kill in soaked.kills)
