"""What an estimate rests on: given by a person, measured on rows that are there, or assumed."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.config import OpenAIPolicy, PipelineConfig, PolicyConfig
from pipeline.estimate import Assumption, Assumptions
from pipeline.functions import split_steps
from pipeline.records import Completion, Problem, ProgramVerdict, Solution

UNITS = {
    "answer_tokens": "tokens of a whole program, without reasoning",
    "reasoning_tokens": "tokens of reasoning before a whole program",
    "rollout_reasoning_tokens": "tokens of reasoning before the rest of a program",
    "steps": "functions per program",
    "cache_hits": "of repeated prompt tokens read from the API's cache, 0 to 1",
    "stream_tokens_per_s": "output tokens/s of one API call",
    "gpu_tokens_per_s": "output tokens/s of one GPU, or of an engine on CPU",
    "tests_per_program": "tests",
    "cpu_s_per_test": "CPU seconds",
    "solution_bytes": "bytes on disk of a solution, its verdict and its example",
    "rollout_bytes": "bytes on disk of a completion and its rollout",
    "part_bytes": "bytes that the driver holds of a part",
}

# No published figure is behind these: they are round numbers to plan with, until a run measures
# its own. Nothing cached is the dearest case.
_ASSUMED = {
    "answer_tokens": 700.0,
    "steps": 6.0,
    "cache_hits": 0.0,
    "stream_tokens_per_s": 100.0,
    "gpu_tokens_per_s": 2_000.0,
    "tests_per_program": 30.0,
    "cpu_s_per_test": 0.1,
}
# Of recorded answers, and so upper bounds: rows of a run have more in common.
_BENCHMARK = "tests.benchmarks.shard_bytes, on 880 recorded answers"
_BYTES = {"solution_bytes": 1321.0, "rollout_bytes": 875.0, "part_bytes": 1118.0}

_REASONING_TOKENS = {"low": 2_000.0, "medium": 6_000.0, "high": 12_000.0}


@dataclass(frozen=True, slots=True)
class Records:
    """Rows of earlier work with the same policies; any may be empty."""

    solutions: Sequence[Solution] = ()
    completions: Sequence[Completion] = ()
    verdicts: Sequence[ProgramVerdict] = ()


def assumptions(
    config: PipelineConfig,
    problems: Sequence[Problem],
    records: Records,
    given: Mapping[str, float],
) -> Assumptions:
    """Each number from the best source there is, by the names of `Assumptions`: `given`, then rows
    of earlier work, then the problems and the config, then an assumption that says so."""
    known = {name: (value, "assumed") for name, value in _ASSUMED.items()}
    known |= {name: (value, _BENCHMARK) for name, value in _BYTES.items()}
    completer = config.rollouts.policy or config.policy
    known["reasoning_tokens"] = _reasoning(config.policy)
    known["rollout_reasoning_tokens"] = _reasoning(completer)
    tests = [len(problem.tests) for problem in problems if problem.tests]
    if tests:
        known["tests_per_program"] = (statistics.fmean(tests), f"mean of {len(tests)} problems")
    known |= _measured(records)
    known |= {name: (value, f"--{name.replace('_', '-')}") for name, value in given.items()}
    return Assumptions(
        **{
            field.name: Assumption(known[field.name][0], UNITS[field.name], known[field.name][1])
            for field in dataclasses.fields(Assumptions)
        }
    )


def _reasoning(policy: PolicyConfig) -> tuple[float, str]:
    if not isinstance(policy, OpenAIPolicy) or policy.reasoning_effort is None:
        return 0.0, "the policy does not reason"
    effort = policy.reasoning_effort
    return _REASONING_TOKENS[effort], f"assumed for effort {effort!r}"


def _measured(records: Records) -> dict[str, tuple[float, str]]:
    """What earlier rows say. An answer cut off or empty counts with the tokens that it took."""
    found: dict[str, tuple[float, str]] = {}
    solutions, completions = records.solutions, records.completions
    if any(solution.completion_tokens for solution in solutions):  # a record holds none
        source = f"measured on {len(solutions):,} solutions of the store"
        reasoning = statistics.fmean(s.reasoning_tokens for s in solutions)
        found["reasoning_tokens"] = (reasoning, source)
        total = statistics.fmean(s.completion_tokens for s in solutions)
        found["answer_tokens"] = (total - reasoning, source)
        if completions:
            # A completion's row holds its reasoning among its tokens; half an answer is visible.
            tokens = statistics.fmean(c.completion_tokens for c in completions)
            found["rollout_reasoning_tokens"] = (
                max(tokens - (total - reasoning) / 2, 0.0),
                f"measured on {len(completions):,} completions of the store, less half an answer",
            )
    lengths = [len(split_steps(solution.code)) for solution in solutions if solution.code]
    if lengths:
        found["steps"] = (
            statistics.fmean(lengths), f"measured on {len(lengths):,} solutions of the store"
        )  # fmt: skip
    judged = [row.verdict for row in records.verdicts if row.verdict.tests_run]
    if judged:
        found["cpu_s_per_test"] = (
            sum(verdict.cpu_s for verdict in judged) / sum(verdict.tests_run for verdict in judged),
            f"measured on {len(judged):,} verdicts of the store",
        )
    return found
