"""Can the scores of a PRM be taken as probabilities?"""

from collections.abc import Mapping, Sequence

from pipeline.config import ArmConfig, EvaluationConfig, Targets
from pipeline.evaluation.metrics import reliability
from pipeline.evaluation.results import Calibration, CalibrationTarget
from pipeline.evaluation.selection import Candidate, StepScores


def calibration(
    arm: ArmConfig,
    problems: Mapping[str, Sequence[Candidate]],
    scores: StepScores,
    config: EvaluationConfig,
) -> list[Calibration]:
    """Last steps against outcomes and, for a PRM where the truth is known, earlier steps against
    it. Nothing where there is nothing to hold scores against."""
    held: dict[CalibrationTarget, list[tuple[float, bool, int]]] = {
        target: [] for target in CalibrationTarget
    }
    for index, group in enumerate(problems.values()):
        for candidate in group:
            given = scores.get(candidate.solution_id)
            if not given:
                continue
            held[CalibrationTarget.OUTCOME].append((given[-1], candidate.passed, index))
            if candidate.step_truth is not None and arm.targets is not Targets.FINAL:
                held[CalibrationTarget.TRUTH] += [
                    (score, right, index)
                    for score, right in zip(given[:-1], candidate.step_truth[:-1], strict=True)
                ]
    return [
        Calibration(
            arm.name,
            target,
            reliability(
                [score for score, _, _ in rows],
                [positive for _, positive, _ in rows],
                [problem for _, _, problem in rows],
                config,
            ),
        )
        for target, rows in held.items()
        if rows
    ]
