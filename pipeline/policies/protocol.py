"""The one protocol behind which every policy stands: requests in, completions out, as they finish.

A policy is asynchronous because its callers keep many requests in flight; it yields each response
as soon as it is there, in any order, and names the request that it answers.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.prompts import Prompt
from pipeline.records import FinishReason


@dataclass(frozen=True, slots=True)
class PolicyRequest:
    """Ask for the answers `sample_indices` to one prompt; `key` is the caller's id for it."""

    key: str
    prompt: Prompt
    sample_indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PolicyResponse:
    """One answer. `text` excludes the prefill; `prompt_tokens` include `cached_tokens`, and
    `completion_tokens` the reasoning."""

    key: str
    sample_index: int
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0


class Policy(Protocol):
    """A model that writes programs."""

    continues_prefill: bool

    def complete(self, requests: Sequence[PolicyRequest]) -> AsyncIterator[PolicyResponse]:
        """Yield every requested answer once, as each finishes. Raises PolicyError when the policy
        itself fails (after its own retries), UnanswerableRequest when it can go on without one of
        them; a refused or truncated answer is a response."""
        ...

    def close(self) -> None: ...


class PaidPolicy(Policy, Protocol):
    """A policy whose answers cost money and are recorded."""

    def prepare(
        self, requests: Sequence[PolicyRequest], progress: Callable[[int, int], None]
    ) -> None:
        """Do what can be done before anyone asks for the answers to `requests`: at least find out
        whether they can be had. `progress` hears of (done, total) requests. Raises PolicyError."""
        ...


class PolicyError(Exception):
    """The policy could not answer: a configuration, key, network or engine failure."""


class PolicyUnavailable(PolicyError):
    """The policy is gone here and now; another worker may have it, or this one a while later."""


class UnanswerableRequest(Exception):
    """One request can never be answered; the policy goes on with the others."""
