"""Content-aware means for step labels: a PRM trained on half of the problems judges the other half.

    y_i = (passed_i + s * p_i) / (trials_i + s)

p_i is the belief of a PRM that has seen no program of step i's problem, so that it cannot repeat
the noise of the rollouts that it is mixed with; s is what it is worth in rollouts, so that many of
them outweigh it. This is cross-fitting as in Chernozhukov et al., "Double/debiased machine
learning" (2018), with the mean of a Beta posterior in the place of their orthogonal score.
"""

from collections.abc import Sequence

from pipeline.prm.encoding import EncodedSolution
from pipeline.prm.parallel import Ranks
from pipeline.records import Example


def halves(examples: Sequence[Example]) -> tuple[list[int], list[int]]:
    """The indices of the examples of every other problem, and of the rest."""
    problems = sorted({example.problem_id for example in examples})
    first = set(problems[::2])
    chosen: tuple[list[int], list[int]] = ([], [])
    for index, example in enumerate(examples):
        chosen[example.problem_id not in first].append(index)
    return chosen


def share(judged: Sequence[int], solutions: Sequence[EncodedSolution], ranks: Ranks) -> list[int]:
    """The examples that a rank judges: every world-th by length, so that all have equal work."""
    order = sorted(judged, key=lambda index: len(solutions[index].token_ids))
    return order[ranks.rank :: ranks.world]


def beliefs(
    examples: Sequence[Example], judged: Sequence[int], scores: Sequence[tuple[float, ...]]
) -> dict[str, float]:
    """The scores of the judged examples, by step id."""
    return {
        step_id: score
        for index, of_solution in zip(judged, scores, strict=True)
        for step_id, score in zip(examples[index].step_ids, of_solution, strict=True)
    }
