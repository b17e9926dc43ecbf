"""How the tokens of prompts are counted before anything is asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.assumed import Records
from pipeline.config import PolicyConfig, VLLMPolicy
from pipeline.estimate import CountTokens
from pipeline.prompts import solution_prompt
from pipeline.records import Problem
from pipeline.settings import ConfigError

CHARACTERS_PER_TOKEN = 4.0
"""OpenAI's rule of thumb for English; formulas and code have fewer."""


@dataclass(frozen=True, slots=True)
class Counter:
    """How tokens of prompts are counted, and in words for a person."""

    count: CountTokens
    told: str


def token_counter(
    policy: PolicyConfig,
    named: str | None,
    ratio: float | None,
    records: Records,
    problems: Sequence[Problem],
) -> Counter:
    """By the named tokenizer, else by the ratio given, else by a vLLM policy's own tokenizer where
    no download is needed, else by a ratio measured on solutions of the store, or assumed.

    Raises ConfigError for a named tokenizer that is not here.
    """
    if named is not None:
        counter = _tokenizer(named)
        if counter is None:
            raise ConfigError(
                f"--tokenizer: {named!r} is neither a folder with a tokenizer nor in the local "
                "cache of the Hugging Face hub"
            )
        return counter
    if ratio is not None:
        return _by_ratio(ratio, "--characters-per-token")
    if isinstance(policy, VLLMPolicy) and (counter := _tokenizer(policy.model)):
        return counter
    by_id = {problem.problem_id: problem for problem in problems}
    known = [s for s in records.solutions if s.prompt_tokens and s.problem_id in by_id]
    if not known:
        return _by_ratio(CHARACTERS_PER_TOKEN, "assumed; --tokenizer counts them")
    prompts = [solution_prompt(by_id[s.problem_id], policy.prompt) for s in known]
    characters = sum(len(prompt.system + prompt.user) for prompt in prompts)
    measured = characters / sum(solution.prompt_tokens for solution in known)
    return _by_ratio(measured, f"measured on {len(known):,} solutions of the store")


def _by_ratio(ratio: float, source: str) -> Counter:
    told = f"prompt tokens: {ratio:.3g} characters each ({source})"
    return Counter(lambda text: len(text) / ratio, told)


def _tokenizer(name: str) -> Counter | None:
    from transformers import AutoTokenizer  # slow to import, and seldom wanted

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError):
        return None
    return Counter(
        lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]),
        f"prompt tokens: counted with the tokenizer {name}",
    )
