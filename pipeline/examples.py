"""Join what is known of each solution into one Example: what a PRM learns from and what it scores.

Solution x Verdict x Steps x StepLabels x StepTruths -> Example
"""

from collections.abc import Iterable, Mapping, Sequence

from pipeline.records import (
    Example,
    Problem,
    ProgramVerdict,
    Role,
    Solution,
    Step,
    StepLabel,
    StepTruth,
)
from sandbox.protocol import Status


def build_examples(
    role: Role,
    problems: Iterable[Problem],
    solutions: Sequence[Solution],
    verdicts: Iterable[ProgramVerdict],
    steps_of: Mapping[str, Sequence[Step]],
    labels: Iterable[StepLabel] = (),
    truths: Iterable[StepTruth] | None = None,
) -> list[Example]:
    """One example per solution whose verdict is about the program.

    A solution that the sandbox failed on (INFRA) is left out: it has no label. Steps without
    rollouts have 0 trials. `truths` None: truth is not known here.
    """
    by_id = {problem.problem_id: problem for problem in problems}
    status = {verdict.program_id: verdict.verdict.status for verdict in verdicts}
    label_of = {label.step_id: label for label in labels}
    truth_of = None if truths is None else {truth.step_id: truth.correct for truth in truths}
    return [
        _example(role, by_id[s.problem_id], s, status[s.solution_id], steps_of[s.solution_id],
                 label_of, truth_of)
        for s in solutions
        if status[s.solution_id] is not Status.INFRA
    ]  # fmt: skip


def _example(
    role: Role,
    problem: Problem,
    solution: Solution,
    status: Status,
    steps: Sequence[Step],
    label_of: Mapping[str, StepLabel],
    truth_of: Mapping[str, bool] | None,
) -> Example:
    labels = [label_of.get(step.step_id, StepLabel(step.step_id, 0, 0)) for step in steps]
    known = truth_of is not None and all(step.step_id in truth_of for step in steps)
    return Example(
        solution_id=solution.solution_id,
        problem_id=problem.problem_id,
        role=role,
        difficulty=problem.difficulty,
        problem=problem_text(problem),
        code=solution.code,
        step_ends=tuple(step.end for step in steps),
        step_ids=tuple(step.step_id for step in steps),
        passed=tuple(label.passed for label in labels),
        trials=tuple(label.trials for label in labels),
        step_truth=tuple(truth_of[s.step_id] for s in steps) if truth_of and known else None,
        final_label=status is Status.AC,
    )


def problem_text(problem: Problem) -> str:
    """The problem as a PRM reads it."""
    if problem.starter_code:
        return f"{problem.statement}\n\n{problem.starter_code}"
    return problem.statement
