"""Problems to solutions: whole programs sampled from a policy."""

from collections.abc import Sequence

from pipeline.answers import program_of
from pipeline.config import PromptStyle
from pipeline.policies.collect import collect
from pipeline.policies.protocol import Policy, PolicyRequest, PolicyResponse
from pipeline.prompts import solution_prompt
from pipeline.records import PolicyVersion, Problem, Solution, content_hash


async def sample_solutions(
    policy: Policy,
    version: PolicyVersion,
    problems: Sequence[Problem],
    samples: int,
    style: PromptStyle,
) -> list[Solution]:
    """`samples` solutions of every problem, in the order of the problems and sample indices.

    An answer without a program is a solution with empty `code`. Raises PolicyError.
    """
    by_id = {problem.problem_id: problem for problem in problems}
    responses = await collect(policy, solution_requests(problems, samples, style))
    return [to_solution(by_id[response.key], version, response, style) for response in responses]


def solution_requests(
    problems: Sequence[Problem], samples: int, style: PromptStyle
) -> list[PolicyRequest]:
    """One request per problem; its key is the problem's id."""
    return [
        PolicyRequest(problem.problem_id, solution_prompt(problem, style), tuple(range(samples)))
        for problem in problems
    ]


def to_solution(
    problem: Problem, version: PolicyVersion, response: PolicyResponse, style: PromptStyle
) -> Solution:
    return Solution(
        solution_id=content_hash(
            problem.problem_id,
            *(version.model, version.parameters, version.prompt_version),
            *(response.sample_index, response.text),
        ),
        problem_id=problem.problem_id,
        policy=version,
        sample_index=response.sample_index,
        text=response.text,
        code=program_of(response.text, style),
        finish_reason=response.finish_reason,
        prompt_tokens=response.prompt_tokens,
        completion_tokens=response.completion_tokens,
        reasoning_tokens=response.reasoning_tokens,
        cost_usd=response.cost_usd,
    )
