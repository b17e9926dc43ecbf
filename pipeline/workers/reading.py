"""What workers derive from the stages before theirs."""

from collections.abc import Iterable
from typing import Any

from pipeline import rollouts
from pipeline.functions import split_steps
from pipeline.part_file import QuarantineReason
from pipeline.plan import Wave
from pipeline.records import Solution, Step, StepLabel
from pipeline.store import StageStore


def step_labels(waves: Iterable[Wave], part: int) -> list[StepLabel]:
    return rollouts.count_labels(row for wave in waves for row in wave.rollouts.read(part))


def given_up(stages: Iterable[StageStore[Any]], part: int) -> set[str]:
    """The problems whose rows one of the stages had to leave out."""
    return {
        entry.problem_id
        for stage in stages
        for entry in stage.quarantined(part)
        if entry.reason is not QuarantineReason.INFRA
    }


def split_all(solutions: Iterable[Solution]) -> dict[str, list[Step]]:
    return {s.solution_id: split_steps(s.code, s.solution_id) for s in solutions}
