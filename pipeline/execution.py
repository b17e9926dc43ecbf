"""Unit-test execution: programs in, verdicts out. Pure on records; the judge is handed in.

Programs that are the same to the letter are executed once; the judge sees to that.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from pipeline.records import (
    Completion,
    Problem,
    ProgramVerdict,
    Rollout,
    Solution,
    Step,
    StepTruth,
)
from sandbox.protocol import Isolation, Limits, Program, Status, Verdict

JudgeAll = Callable[[Sequence[Program]], list[Verdict]]
"""Judges programs and answers in their order (`Sandbox.judge_all`)."""

CompleteWithReference = Callable[[Problem, str, Sequence[Step], int], str]
"""The program made of a prefix and the reference functions that it lacks."""


def to_program(problem: Problem, code: str, memory_mb: int) -> Program:
    """What the sandbox is asked to judge."""
    return Program(
        code=code,
        tests=problem.tests,
        entry_point=problem.entry_point,
        limits=Limits(cpu_s=problem.time_limit_s, memory_mb=memory_mb),
        comparator=problem.comparator,
        prelude=problem.prelude,
    )


def judge_solutions(
    judge_all: JudgeAll,
    isolation: Isolation,
    problems: Iterable[Problem],
    solutions: Sequence[Solution],
    memory_mb: int,
) -> list[ProgramVerdict]:
    """One verdict per solution. An answer without a program is CE, and nothing is executed."""
    by_id = {problem.problem_id: problem for problem in problems}
    with_code = [solution for solution in solutions if solution.code]
    verdicts = judge_all([to_program(by_id[s.problem_id], s.code, memory_mb) for s in with_code])
    judged = {s.solution_id: v for s, v in zip(with_code, verdicts, strict=True)}
    return [
        ProgramVerdict(
            solution.solution_id,
            solution.problem_id,
            judged.get(solution.solution_id) or no_program(by_id[solution.problem_id], isolation),
        )
        for solution in solutions
    ]


def judge_rollouts(
    judge_all: JudgeAll,
    problems: Iterable[Problem],
    completions: Sequence[Completion],
    memory_mb: int,
) -> list[Rollout]:
    """One rollout per completion; a rejected completion is kept, unexecuted, with status None."""
    by_id = {problem.problem_id: problem for problem in problems}
    accepted = [completion for completion in completions if completion.code]
    verdicts = judge_all([to_program(by_id[c.problem_id], c.code, memory_mb) for c in accepted])
    statuses = {
        (c.step_id, c.rollout_index): v.status for c, v in zip(accepted, verdicts, strict=True)
    }
    return [
        Rollout(
            step_id=c.step_id,
            rollout_index=c.rollout_index,
            completion=c.completion,
            code=c.code,
            finish_reason=c.finish_reason,
            tokens=c.completion_tokens,
            status=statuses.get((c.step_id, c.rollout_index)),
        )
        for c in completions
    ]


def judge_truth(
    judge_all: JudgeAll,
    complete_with_reference: CompleteWithReference,
    problems: Iterable[Problem],
    steps_of: Mapping[str, Sequence[Step]],
    solutions: Sequence[Solution],
    memory_mb: int,
) -> list[StepTruth]:
    """Whether each function prefix is really right: it is, if the reference functions can finish
    it. Steps whose execution failed for reasons of the sandbox are left out."""
    by_id = {problem.problem_id: problem for problem in problems}
    steps: list[Step] = []
    programs: list[Program] = []
    for solution in solutions:
        problem = by_id[solution.problem_id]
        of_solution = steps_of[solution.solution_id]
        for step in of_solution:
            steps.append(step)
            code = complete_with_reference(problem, solution.code, of_solution, step.step_index)
            programs.append(to_program(problem, code, memory_mb))
    return [
        StepTruth(step.step_id, verdict.status is Status.AC)
        for step, verdict in zip(steps, judge_all(programs), strict=True)
        if verdict.status is not Status.INFRA
    ]


def no_program(problem: Problem, isolation: Isolation) -> Verdict:
    """The verdict on an answer that holds no program: nothing was executed."""
    return Verdict(
        status=Status.CE,
        tests_passed=0,
        tests_run=0,
        tests_total=len(problem.tests),
        first_failure=None,
        detail="the answer holds no program",
        cpu_s=0.0,
        wall_s=0.0,
        peak_mb=0.0,
        isolation=isolation,
        comparator=problem.comparator,
    )
