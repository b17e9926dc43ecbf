"""What step labels cost: programs executed and tokens generated per label, against the plain way.

`python -m tests.benchmarks.rollout_cost [--policy DIR] [--problems N] [--rollouts N] [--json]`

On the scale model, with real solutions, vLLM rollouts and the Docker sandbox:

- `plain`: n rollouts of every prefix, the whole program included, and each of them executed;
- `ours`: what the pipeline does. A last step has the solution's own verdict, which both ways need
  and neither is charged for; completions that make the same program are executed once per part;
- `stopped`: ours with `rollouts.early_stop` and its default rule.

Both judge the very same completions, and must come to the same labels of all intermediate steps,
or this fails; the labels of `stopped` may differ from them, and by how much is printed. Labels/s
counts generation and execution, one sandbox slot, of `plain` and `ours`. Figures ending in `_at_4`
are of the first 4 rollouts of each step.

Without `--policy` the demo's policy is trained first: how often rollouts are the same depends on
it.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.config import (
    EarlyStop,
    PromptStyle,
    ScaleModelPolicy,
    ScaleModelProblems,
    SplitsConfig,
    VLLMPolicy,
)
from pipeline.early_stop import decided_steps, stopping_region, waves
from pipeline.execution import judge_rollouts, to_program
from pipeline.functions import split_steps
from pipeline.policies import policy_version
from pipeline.policies.collect import collect
from pipeline.policies.protocol import PolicyRequest
from pipeline.policies.vllm import VLLM
from pipeline.prompts import completion_prompt
from pipeline.records import Completion, Problem, Rollout, Solution
from pipeline.rollouts import complete_prefixes, count_labels, to_completion
from pipeline.sampling import sample_solutions
from pipeline.scale_model.generator import generate_problems
from pipeline.scale_model.policy import train_policy
from sandbox import Program, Sandbox, Verdict
from sandbox.image import ensure_image

SOLUTIONS = 8
PROBLEMS_PER_PART = 8
MEMORY_MB = 256
STYLE = PromptStyle.BARE

Figures = dict[str, float]


class CountingSandbox:
    """A sandbox that counts the programs which it really executes."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.executed = 0
        self._sandbox = sandbox

    def judge_each(self, programs: Sequence[Program]) -> list[Verdict]:
        self.executed += len(programs)
        return [self._sandbox.judge(program) for program in programs]

    def judge_all(self, programs: Sequence[Program]) -> list[Verdict]:
        self.executed += len(set(programs))
        return self._sandbox.judge_all(programs)


def measure(directory: Path, problems: Sequence[Problem], rollouts: int) -> Figures:
    config = VLLMPolicy(
        model=str(directory), prompt=STYLE, gpus=0, dtype="float32", max_tokens=128,
        max_model_len=256,
    )  # fmt: skip
    version = policy_version(config)
    policy = VLLM(config)

    def generate(solutions: list[Solution]) -> tuple[list[Completion], float]:
        started = time.perf_counter()
        asked = complete_prefixes(policy, version, problems, solutions, range(rollouts), STYLE)
        return asyncio.run(asked), time.perf_counter() - started

    def generate_of_whole_programs(solutions: list[Solution]) -> tuple[list[Completion], float]:
        started = time.perf_counter()
        of_step = {split_steps(s.code, s.solution_id)[-1].step_id: s for s in solutions}
        by_id = {problem.problem_id: problem for problem in problems}
        requests = [
            PolicyRequest(
                step_id,
                completion_prompt(by_id[s.problem_id], s.code, STYLE, continued=True),
                tuple(range(rollouts)),
            )
            for step_id, s in of_step.items()
        ]
        responses = asyncio.run(collect(policy, requests))
        completions = [
            to_completion(of_step[r.key], of_step[r.key].code, version, r, continued=True)
            for r in responses
        ]
        return completions, time.perf_counter() - started

    sampled = asyncio.run(sample_solutions(policy, version, problems, SOLUTIONS, STYLE))
    solutions = [solution for solution in sampled if split_steps(solution.code, "")]
    generate(solutions[:8])  # warms up
    completions, generated_s = generate(solutions)
    of_whole, of_whole_s = generate_of_whole_programs(solutions)
    policy.close()

    ensure_image()
    with Sandbox("docker") as sandbox:
        plain, ours = CountingSandbox(sandbox), CountingSandbox(sandbox)
        started = time.perf_counter()
        plain_rollouts = judge_rollouts(plain.judge_each, problems, completions, MEMORY_MB)
        judge_rollouts(plain.judge_each, problems, of_whole, MEMORY_MB)
        plain_s = time.perf_counter() - started
        started = time.perf_counter()
        our_rollouts = [
            rollout
            for part in _parts(problems)
            for rollout in judge_rollouts(
                ours.judge_all,
                part,
                [c for c in completions if c.problem_id in {p.problem_id for p in part}],
                MEMORY_MB,
            )
        ]
        ours_s = time.perf_counter() - started

    labels = count_labels(our_rollouts)
    if count_labels(plain_rollouts) != labels:
        raise AssertionError("the two ways came to different labels")
    steps = len(labels) + len(solutions)  # the last ones have labels too
    tokens = sum(c.completion_tokens for c in completions)
    plain_tokens = tokens + sum(c.completion_tokens for c in of_whole)
    figures = {
        "labelled_steps": float(steps),
        "executions_per_step_plain": plain.executed / steps,
        "executions_per_step_ours": ours.executed / steps,
        "executions_ratio": plain.executed / ours.executed,
        "tokens_per_step_plain": plain_tokens / steps,
        "tokens_per_step_ours": tokens / steps,
        "tokens_ratio": plain_tokens / tokens,
        "labels_per_s_plain": steps / (generated_s + of_whole_s + plain_s),
        "labels_per_s_ours": steps / (generated_s + ours_s),
    }
    figures["labels_per_s_ratio"] = figures["labels_per_s_ours"] / figures["labels_per_s_plain"]
    if rollouts > 4:
        of_4 = [c for c in completions if c.rollout_index < 4]
        figures["executions_ratio_at_4"] = steps * 4 / _distinct(problems, of_4)
        figures |= _stopped(problems, completions, our_rollouts, rollouts, steps)
    return figures


def _stopped(
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    rollouts: Sequence[Rollout],
    samples: int,
    steps: int,
) -> Figures:
    """What the waves of an early stop would have asked for, of the same completions."""
    rule = EarlyStop()
    region = stopping_region(samples, rule)
    made: list[Rollout] = []
    executed = tokens = 0
    for wave in waves(samples, rule):
        decided = decided_steps(count_labels(made), region)
        asked = [c for c in completions if c.rollout_index in wave and c.step_id not in decided]
        executed += _distinct(problems, asked)
        tokens += sum(c.completion_tokens for c in asked)
        keys = {(c.step_id, c.rollout_index) for c in asked}
        made += [r for r in rollouts if (r.step_id, r.rollout_index) in keys]
    full = {label.step_id: label for label in count_labels(rollouts)}
    errors = [
        abs(label.passed / label.trials - full[label.step_id].passed / full[label.step_id].trials)
        for label in count_labels(made)
        if label.trials
    ]
    return {
        "executions_per_step_stopped": executed / steps,
        "executions_ratio_stopped": steps * samples / executed,
        "tokens_per_step_stopped": tokens / steps,
        "rollouts_per_intermediate_step_stopped": len(made) / len(full),
        "label_error_mean_stopped": sum(errors) / len(errors),
        "label_error_above_rule_stopped": sum(e > rule.error + 1e-9 for e in errors) / len(errors),
    }


def _parts(problems: Sequence[Problem]) -> list[Sequence[Problem]]:
    starts = range(0, len(problems), PROBLEMS_PER_PART)
    return [problems[start : start + PROBLEMS_PER_PART] for start in starts]


def _distinct(problems: Sequence[Problem], completions: Sequence[Completion]) -> int:
    """The programs that are executed for these completions; no two parts share one."""
    by_id = {problem.problem_id: problem for problem in problems}
    return len({to_program(by_id[c.problem_id], c.code, MEMORY_MB) for c in completions if c.code})


def main() -> None:
    parser = argparse.ArgumentParser(description="What step labels cost, against the plain way.")
    parser.add_argument("--policy", type=Path, help="directory of a trained policy")
    parser.add_argument("--problems", type=int, default=4, help="training problems (default: 4)")
    parser.add_argument("--rollouts", type=int, default=16, help="per prefix (default: 16)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    problems = generate_problems(ScaleModelProblems(train=options.problems), SplitsConfig())
    with tempfile.TemporaryDirectory() as directory:
        if options.policy is None:
            options.policy = Path(directory) / "policy"
            train_policy(
                ScaleModelPolicy(), ScaleModelProblems(), SplitsConfig(), options.policy,
                lambda *_: None,
            )  # fmt: skip
        figures = measure(options.policy, problems[: options.problems], options.rollouts)
    if options.json:
        print(json.dumps(figures))
        return
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
