"""What a run will cost before anything is spent: calls, tokens, dollars, hours, executions.

With P problems, n solutions of each, S function steps per solution and m rollouts per prefix,

    sampling:  P·n calls             prompt: the problem's;  answer: A tokens, R of reasoning
    rollouts:  P_r·n·(S − 1)·m calls prompt: the problem's, and A/2 tokens of prefix on average;
                                     answer: A/2 tokens, the other half, and R_r of reasoning

because steps 1..S−1 of equal length leave half of the program on average, and the last step needs
no rollouts. The problems' prompts are the very prompts of the run; A, R, S and all rates are
assumptions, each with its source. Rollouts that stop early and programs that are the same to the
letter make a run cheaper than this says.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.config import OpenAIPolicy, PipelineConfig, PolicyConfig, PoolConfig, VLLMPolicy
from pipeline.early_stop import waves
from pipeline.footprint import Footprint, footprint
from pipeline.prompts import Prompt, completion_prompt, solution_prompt
from pipeline.records import Problem, Role

CountTokens = Callable[[str], float]

BATCH_WINDOW_H = 24.0
"""The Batch API answers within a day, or not at all: what expired is asked again, for another."""

_CACHED_FROM, _CACHED_BY = 1024, 128  # OpenAI caches prompts from so many tokens on, in such steps


@dataclass(frozen=True, slots=True)
class Assumption:
    """A number that decides the estimate, and where it is from."""

    value: float
    unit: str
    source: str


@dataclass(frozen=True, slots=True)
class Assumptions:
    answer_tokens: Assumption
    reasoning_tokens: Assumption
    rollout_reasoning_tokens: Assumption
    steps: Assumption
    cache_hits: Assumption
    stream_tokens_per_s: Assumption
    gpu_tokens_per_s: Assumption
    tests_per_program: Assumption
    cpu_s_per_test: Assumption
    solution_bytes: Assumption
    rollout_bytes: Assumption
    part_bytes: Assumption


@dataclass(frozen=True, slots=True)
class Tokens:
    """`prompt` includes `cached`; `answer` and `reasoning` are paid alike."""

    prompt: float
    cached: float
    answer: float
    reasoning: float

    @property
    def output(self) -> float:
        return self.answer + self.reasoning


@dataclass(frozen=True, slots=True)
class Asked:
    """What one stage asks of its policy.

    Dollars are None for a policy that is not paid by the token, `gpu_hours` for one that needs no
    GPU, `hours` for one that takes no time. `worst_usd`: every answer as long as it may be.
    `batch_hours`: a day for every batch that waits for another's answers, none of them asked twice.
    """

    stage: str
    policy: str
    calls: float
    tokens: Tokens
    usd: float | None
    batch_usd: float | None
    worst_usd: float | None
    hours: float | None
    batch_hours: float | None
    gpu_hours: float | None


@dataclass(frozen=True, slots=True)
class Executed:
    """What the sandbox runs, every test of every program: at most this, for a program stops at its
    first failing test."""

    solutions: float
    rollouts: float
    core_hours: float
    hours: float

    @property
    def programs(self) -> float:
        return self.solutions + self.rollouts


@dataclass(frozen=True, slots=True)
class Estimate:
    problems_by_role: Mapping[str, int]
    sampling: Asked
    rollouts: Asked
    executed: Executed
    footprint: Footprint
    assumptions: Assumptions


def estimate(
    config: PipelineConfig,
    problems: Sequence[Problem],
    roles: Mapping[str, Role],
    assumed: Assumptions,
    count_tokens: CountTokens,
) -> Estimate:
    """The cost of the stages that sample and label. `roles` is by problem id; problems without one
    cost nothing."""
    used = [problem for problem in problems if problem.problem_id in roles]
    labelled = [p for p in used if roles[p.problem_id] in config.rollouts.roles]
    samples, rollouts = config.sampling.samples, config.rollouts.samples
    completer = config.rollouts.policy or config.policy
    prefixes = len(labelled) * samples * max(assumed.steps.value - 1, 0)

    whole = sum(
        _tokens(solution_prompt(problem, config.policy.prompt), count_tokens) for problem in used
    )
    # Without its prefix, which is counted below.
    bare = sum(
        _tokens(
            completion_prompt(
                problem, "", completer.prompt, continued=isinstance(completer, VLLMPolicy)
            ),
            count_tokens,
        )
        for problem in labelled
    )
    prompt = bare / max(len(labelled), 1) + assumed.answer_tokens.value / 2
    sampling = _asked(
        "sampling",
        config.policy,
        config.sampling.pool,
        prompts=len(used),
        samples=samples,
        prompt_tokens=whole / max(len(used), 1),
        answer_tokens=assumed.answer_tokens.value,
        reasoning_tokens=assumed.reasoning_tokens.value,
        assumed=assumed,
    )
    completing = _asked(
        "rollouts",
        completer,
        config.rollouts.pool,
        prompts=prefixes,
        samples=rollouts,
        prompt_tokens=prompt,
        answer_tokens=assumed.answer_tokens.value / 2,
        reasoning_tokens=assumed.rollout_reasoning_tokens.value,
        assumed=assumed,
        waves=len(waves(rollouts, config.rollouts.early_stop)),
    )
    programs = sampling.calls + completing.calls
    core_hours = programs * assumed.tests_per_program.value * assumed.cpu_s_per_test.value / 3600
    by_role = {role.value: sum(of is role for of in roles.values()) for role in Role}
    return Estimate(
        problems_by_role=by_role,
        sampling=sampling,
        rollouts=completing,
        executed=Executed(
            solutions=sampling.calls,
            rollouts=completing.calls,
            core_hours=core_hours,
            hours=core_hours / config.sandbox.slots,
        ),
        footprint=footprint(
            config,
            by_role,
            sampling.calls,
            completing.calls,
            solution_bytes=assumed.solution_bytes.value,
            rollout_bytes=assumed.rollout_bytes.value,
            part_bytes=assumed.part_bytes.value,
        ),
        assumptions=assumed,
    )


def _tokens(prompt: Prompt, count_tokens: CountTokens) -> float:
    return count_tokens(prompt.system + prompt.user + prompt.prefill)


def _asked(
    stage: str,
    policy: PolicyConfig,
    pool: PoolConfig,
    *,
    prompts: float,
    samples: int,
    prompt_tokens: float,
    answer_tokens: float,
    reasoning_tokens: float,
    assumed: Assumptions,
    waves: int = 1,
) -> Asked:
    """`prompts` different prompts, `samples` answers to each; tokens are per prompt and answer.
    Each of the `waves` is asked once the one before is answered."""
    calls = prompts * samples
    repeated = prompts * (samples - 1)  # asked before, word for word
    match policy:
        case VLLMPolicy():
            # One process holds the engine's cache: a prompt is read once for all its answers.
            cached, reasoning_tokens = repeated * prompt_tokens, 0.0
        case OpenAIPolicy():
            cacheable = math.floor(prompt_tokens / _CACHED_BY) * _CACHED_BY
            hits = assumed.cache_hits.value if prompt_tokens >= _CACHED_FROM else 0.0
            cached = repeated * cacheable * hits
            reasoning_tokens = reasoning_tokens if policy.reasoning_effort else 0.0
        case _:
            cached = prompt_tokens = answer_tokens = reasoning_tokens = 0.0
    tokens = Tokens(
        prompt=calls * prompt_tokens,
        cached=cached,
        answer=calls * answer_tokens,
        reasoning=calls * reasoning_tokens,
    )
    usd = batch_usd = worst_usd = hours = batch_hours = gpu_hours = None
    if isinstance(policy, OpenAIPolicy):
        usd = _cost_usd(policy, tokens, batch=False)
        batch_usd = _cost_usd(policy, tokens, batch=True)
        longest = Tokens(tokens.prompt, 0, calls * policy.max_output_tokens, 0)
        worst_usd = _cost_usd(policy, longest, batch=policy.batch)
        batch_hours = BATCH_WINDOW_H * waves if calls else 0.0
        hours = _api_hours(policy, pool, calls, tokens, assumed.stream_tokens_per_s.value)
    elif isinstance(policy, VLLMPolicy):
        engine_hours = tokens.output / assumed.gpu_tokens_per_s.value / 3600
        devices = max(policy.gpus, 1)
        hours = engine_hours / (devices * pool.max_size)
        gpu_hours = engine_hours if policy.gpus else None
    return Asked(
        stage=stage,
        policy=policy.path if policy.kind == "replay" else policy.model,
        calls=calls,
        tokens=tokens,
        usd=usd,
        batch_usd=batch_usd,
        worst_usd=worst_usd,
        hours=hours,
        batch_hours=batch_hours,
        gpu_hours=gpu_hours,
    )


def _cost_usd(policy: OpenAIPolicy, tokens: Tokens, *, batch: bool) -> float:
    return policy.price.cost_usd(
        round(tokens.prompt), round(tokens.cached), round(tokens.output), batch=batch
    )


def _api_hours(
    policy: OpenAIPolicy, pool: PoolConfig, calls: float, tokens: Tokens, tokens_per_s: float
) -> float:
    """Of the three things that bound it, the slowest: calls in flight of all actors, both rates."""
    bounds = [tokens.output / tokens_per_s / policy.requests_in_flight / pool.max_size / 3600]
    if policy.requests_per_minute is not None:
        bounds.append(calls / policy.requests_per_minute / 60)
    if policy.tokens_per_minute is not None:
        bounds.append((tokens.prompt + tokens.output) / policy.tokens_per_minute / 60)
    return max(bounds)
