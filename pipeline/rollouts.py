"""Solutions to step labels by Monte-Carlo rollouts (Math-Shepherd, arXiv 2312.08935).

The label of a step estimates P(the policy, going on from the step's prefix, ends in a program that
passes): completions of the prefix are executed, `passed / trials` of them are right. How many there
are, and whether a step may do with fewer than others, is the caller's to say (`early_stop.py`).
Two solutions with the same prefix are rolled out separately, so that their labels are independent;
but not by a policy that pays for answers: there they share the answers to their common prompt.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from pipeline.answers import join_completion
from pipeline.config import PromptStyle
from pipeline.functions import prefix, split_steps
from pipeline.policies.collect import collect
from pipeline.policies.protocol import Policy, PolicyRequest, PolicyResponse
from pipeline.prompts import completion_prompt
from pipeline.records import (
    Completion,
    FinishReason,
    PolicyVersion,
    Problem,
    Rollout,
    Solution,
    Step,
    StepLabel,
)
from sandbox.protocol import Status


def intermediate_steps(solution: Solution) -> list[Step]:
    """All steps but the last: its prefix is the whole program, whose label is the clean one."""
    return split_steps(solution.code, solution.solution_id)[:-1]


async def complete_prefixes(
    policy: Policy,
    version: PolicyVersion,
    problems: Sequence[Problem],
    solutions: Sequence[Solution],
    indices: range,
    style: PromptStyle,
    decided: Collection[str] = (),
) -> list[Completion]:
    """The completions `indices` of every intermediate step that is not `decided`, in the order of
    solutions, steps, indices.

    `problems` holds at least those of the solutions, `decided` ids of steps. A completion that
    rewrote its prefix, was refused, had no room or holds no code has an empty `code`. Raises
    PolicyError, and ValueError where the style cannot ask this policy for completions.
    """
    by_id = {problem.problem_id: problem for problem in problems}
    requests: list[PolicyRequest] = []
    asked: dict[str, tuple[Solution, str]] = {}
    for solution in solutions:
        for step in intermediate_steps(solution):
            if step.step_id in decided:
                continue
            head = prefix(solution.code, step)
            prompt = completion_prompt(
                by_id[solution.problem_id], head, style, continued=policy.continues_prefill
            )
            requests.append(PolicyRequest(step.step_id, prompt, tuple(indices)))
            asked[step.step_id] = (solution, head)
    return [
        to_completion(*asked[response.key], version, response, continued=policy.continues_prefill)
        for response in await collect(policy, requests)
    ]


def to_completion(
    solution: Solution,
    head: str,
    version: PolicyVersion,
    response: PolicyResponse,
    *,
    continued: bool,
) -> Completion:
    """The answer to a request whose key is the id of the step that ends `head`."""
    # Empty and cut off at once, it had no room: the prefix alone is no way that the policy went on.
    no_room = response.finish_reason is FinishReason.LENGTH and not response.text
    answered = response.finish_reason in (FinishReason.STOP, FinishReason.LENGTH) and not no_room
    code = join_completion(head, response.text, continued=continued) if answered else None
    return Completion(
        step_id=response.key,
        rollout_index=response.sample_index,
        problem_id=solution.problem_id,
        policy=version,
        completion=response.text,
        code=code or "",
        finish_reason=response.finish_reason,
        prompt_tokens=response.prompt_tokens,
        completion_tokens=response.completion_tokens,
        cost_usd=response.cost_usd,
    )


def with_own_endings(
    labels: Iterable[StepLabel], steps_of: Mapping[str, Sequence[Step]], passed: Collection[str]
) -> list[StepLabel]:
    """The labels with each solution's own ending counted as one more rollout of its prefixes.

    `steps_of` maps a solution's id to all its steps; `passed` holds the ids of those that pass. The
    last step gets none: its prefix is the whole program.
    """
    of_step = {label.step_id: label for label in labels}
    counted: list[StepLabel] = []
    for solution_id, steps in steps_of.items():
        for step in steps[:-1]:
            label = of_step.get(step.step_id, StepLabel(step.step_id, 0, 0))
            more = solution_id in passed
            counted.append(StepLabel(step.step_id, label.passed + more, label.trials + 1))
    return counted


def count_labels(rollouts: Iterable[Rollout]) -> list[StepLabel]:
    """One label per step, in order of first appearance.

    Infrastructure failures and rejected completions are in neither count, so a step may have none.
    """
    counts: dict[str, tuple[int, int]] = {}
    for rollout in rollouts:
        passed, trials = counts.get(rollout.step_id, (0, 0))
        if rollout.status not in (None, Status.INFRA):
            passed, trials = passed + (rollout.status is Status.AC), trials + 1
        counts[rollout.step_id] = (passed, trials)
    return [StepLabel(step_id, passed, trials) for step_id, (passed, trials) in counts.items()]
