"""Recorded candidates as Solutions, and their recorded grades as Verdicts."""

import json
from collections.abc import Sequence
from typing import Any

from pipeline.answers import extract_code
from pipeline.eval_all import EvalAllError, EvalAllRow
from pipeline.records import (
    FinishReason,
    PolicyVersion,
    ProgramVerdict,
    Solution,
    content_hash,
)
from sandbox.protocol import Comparator, Isolation, Status, Verdict

# `error_code` of LiveCodeBench's judge (lcb_runner/evaluation/testing_util.py).
_STATUS = {-2: Status.WA, -3: Status.TLE, -4: Status.RE, -5: Status.RE}


def recorded_solutions(rows: Sequence[EvalAllRow], source: str) -> list[Solution]:
    """Every candidate, in the order of rows and samples.

    `source` names the record, as a policy's model does. The program is the one that was graded,
    where the record holds it. Tokens and dollars are 0: the form does not hold them.
    """
    policy = PolicyVersion(model=source, parameters="{}", prompt_version="recorded")
    return [
        Solution(
            solution_id=content_hash(row.question_id, source, index, text),
            problem_id=row.question_id,
            policy=policy,
            sample_index=index,
            text=text,
            code=row.code_list[index] if row.code_list is not None else extract_code(text),
            finish_reason=FinishReason.STOP,
            prompt_tokens=0,
            completion_tokens=0,
            reasoning_tokens=0,
            cost_usd=0.0,
        )
        for row in rows
        for index, text in enumerate(row.output_list)
    ]


def recorded_verdicts(
    rows: Sequence[EvalAllRow], solutions: Sequence[Solution]
) -> list[ProgramVerdict]:
    """The grades of `recorded_solutions`, in their order.

    A record says whether a candidate passed and, at best, how it failed (else WA); of tests and
    times it holds nothing: those are 0. LiveCodeBench's judge ran, which isolates nothing. Raises
    EvalAllError for a row without grades.
    """
    graded: list[tuple[bool, str | dict[str, Any]]] = []
    for row in rows:
        if row.graded_list is None:
            raise EvalAllError(
                f"problem {row.question_id!r} has no graded_list: judge its candidates again "
                "(--judge, with the problems' tests)"
            )
        graded += zip(row.graded_list, row.metadata or [""] * len(row.graded_list), strict=True)
    return [
        ProgramVerdict(solution.solution_id, solution.problem_id, _verdict(passed, metadata))
        for solution, (passed, metadata) in zip(solutions, graded, strict=True)
    ]


def _verdict(passed: bool, metadata: str | dict[str, Any]) -> Verdict:
    told = _read(metadata)
    code, message = told.get("error_code"), told.get("error_message")
    status = Status.AC if passed else _STATUS.get(code if isinstance(code, int) else 0, Status.WA)
    return Verdict(
        status=status,
        tests_passed=0,
        tests_run=0,
        tests_total=0,
        first_failure=None,
        detail="recorded" + (f": {message}" if message and not passed else ""),
        cpu_s=0.0,
        wall_s=0.0,
        peak_mb=0.0,
        isolation=Isolation.NONE,
        comparator=Comparator.LCB,
    )


def _read(metadata: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(metadata, dict):
        return metadata
    try:
        told = json.loads(metadata)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
