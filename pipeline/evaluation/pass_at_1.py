"""pass@1 of candidates, by difficulty and platform: the mean over problems of the share of each
problem's candidates that passed (Chen et al. 2021, arXiv 2107.03374, eq. 1 at k = 1)."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from pipeline.config import EvaluationConfig
from pipeline.evaluation.evaluate import EvaluationError, difficulty_key
from pipeline.evaluation.metrics import Estimate, means
from pipeline.printable import printable


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one candidate."""

    problem_id: str
    difficulty: str
    platform: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Group:
    """Some of the problems; `estimate` is their pass@1 in [0, 1]."""

    problems: int
    candidates: int
    passed: int
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class PassAt1:
    overall: Group
    by_difficulty: Mapping[str, Group]
    by_platform: Mapping[str, Group]


def pass_at_1(outcomes: Sequence[Outcome], config: EvaluationConfig) -> PassAt1:
    """Raises EvaluationError where there is no outcome, or a problem has two difficulties or
    platforms."""
    if not outcomes:
        raise EvaluationError("no candidate has a verdict: there is nothing to evaluate")
    by_problem = {
        problem_id: list(group)
        for problem_id, group in itertools.groupby(
            sorted(outcomes, key=lambda outcome: outcome.problem_id),
            key=lambda outcome: outcome.problem_id,
        )
    }
    for problem_id, group in by_problem.items():
        if len({(outcome.difficulty, outcome.platform) for outcome in group}) > 1:
            raise EvaluationError(f"problem {problem_id!r} has two difficulties or platforms")

    def groups(name_of: Mapping[str, str]) -> dict[str, Group]:
        return {
            name: _group([by_problem[p] for p, of in name_of.items() if of == name], config)
            for name in sorted(set(name_of.values()), key=difficulty_key)
        }

    return PassAt1(
        _group(list(by_problem.values()), config),
        groups({problem_id: group[0].difficulty for problem_id, group in by_problem.items()}),
        groups({problem_id: group[0].platform for problem_id, group in by_problem.items()}),
    )


def _group(problems: Sequence[Sequence[Outcome]], config: EvaluationConfig) -> Group:
    shares = [sum(outcome.passed for outcome in group) / len(group) for group in problems]
    (estimate,) = means(np.array(shares)[:, None], config)
    return Group(
        problems=len(problems),
        candidates=sum(map(len, problems)),
        passed=sum(outcome.passed for group in problems for outcome in group),
        estimate=estimate,
    )


def pass_at_1_table(result: PassAt1, confidence: float) -> Table:
    """One row per group: percent with two decimals, the interval, and the counts behind it."""
    table = Table(title="pass@1, mean over problems", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("", "%", f"[{100 * confidence:g}%]", "problems", "candidates", "passed"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    sections = ({"overall": result.overall}, result.by_difficulty, result.by_platform)
    for section in sections:
        for name, group in section.items():
            interval = group.estimate.interval
            table.add_row(
                Text(printable(name) or "(none)"),
                _percent(group.estimate.value),
                f"{_percent(interval.low)}, {_percent(interval.high)}" if interval else "",
                *(f"{count:,}" for count in (group.problems, group.candidates, group.passed)),
            )
        table.add_section()
    return table


def to_json(result: PassAt1, config: EvaluationConfig) -> dict[str, object]:
    """Counts, and percentages unrounded."""
    return {
        "overall": _plain(result.overall),
        "by_difficulty": {name: _plain(group) for name, group in result.by_difficulty.items()},
        "by_platform": {name: _plain(group) for name, group in result.by_platform.items()},
        "confidence": config.confidence,
        "bootstrap": config.bootstrap,
        "seed": config.seed,
    }


def _plain(group: Group) -> dict[str, object]:
    interval = group.estimate.interval
    return {
        "problems": group.problems,
        "candidates": group.candidates,
        "passed": group.passed,
        "pass_at_1_percent": 100 * group.estimate.value,
        "interval_percent": [100 * interval.low, 100 * interval.high] if interval else None,
    }


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"
