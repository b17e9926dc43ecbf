"""An Example as token ids and step positions: the one place that knows, for training and scoring.

    problem tokens | function 1 tokens SEP | function 2 tokens SEP | ...

SEP is the tokenizer's end-of-sequence token, and the score of step t is read at the t-th SEP. Every
segment is tokenised alone, so the tokens up to a SEP never depend on what follows it; under causal
attention the score of a step inside the whole program is then the score of its prefix alone
(without a separator, tokens merge across 53-96 % of the cuts). Padding is on the right, where
causal attention does not look, so no attention mask is needed.

Limits: where the statement has to be cut to fit, a prefix is scored with the statement cut as for
the whole program, not with the longer one that would fit beside the prefix.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from pipeline.records import Example


class Skip(StrEnum):
    """Why an example has no encoding."""

    NO_STEPS = "no_steps"  # no code, so nothing to score
    TOO_LONG = "too_long"  # the program alone is longer than the context


@dataclass(frozen=True, slots=True)
class EncodedSolution:
    """`step_positions[t]` indexes `token_ids`: the SEP that ends step t."""

    solution_id: str
    token_ids: tuple[int, ...]
    step_positions: tuple[int, ...]
    statement_cut: bool


ONE_TOKEN = EncodedSolution("", (0,), (0,), False)
"""For a pass that a rank makes for the other ranks' sake."""


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """B right-padded sequences of T tokens and the S steps in them, sequence by sequence."""

    token_ids: Int[Tensor, "B T"]
    step_rows: Int[Tensor, " S"]
    step_positions: Int[Tensor, " S"]

    def to(self, device: torch.device) -> Self:
        return type(self)(
            self.token_ids.to(device), self.step_rows.to(device), self.step_positions.to(device)
        )


@dataclass(frozen=True, slots=True)
class Encoding:
    """What became of a list of examples: one entry per example, in order."""

    outcomes: tuple[EncodedSolution | Skip, ...]

    @property
    def skipped(self) -> Counter[Skip]:
        return Counter(outcome for outcome in self.outcomes if isinstance(outcome, Skip))


class Encoder:
    """Encodes examples for one tokenizer; its `model_max_length` is the context."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raises ValueError for a tokenizer without an end-of-sequence token."""
        separator = tokenizer.eos_token_id
        if not isinstance(separator, int):
            raise ValueError(
                f"tokenizer {tokenizer.name_or_path!r} has no end-of-sequence token to mark the "
                "end of a function with: choose a base model whose tokenizer has one"
            )
        self.separator = separator
        self.max_tokens = tokenizer.model_max_length
        self._tokenizer = tokenizer

    def encode(self, examples: Sequence[Example]) -> Encoding:
        """Raises ValueError, naming the solution, where `step_ends` do not cut `code` in steps."""
        texts: list[str] = []
        first_text: list[int] = []
        for example in examples:
            first_text.append(len(texts))
            texts.append(example.problem.rstrip("\n") + "\n")
            texts.extend(_segments(example))
        # Special tokens spelled out in a statement or a program are plain text: one that became a
        # separator would move every score behind it.
        ids = (
            self._tokenizer(
                texts,
                add_special_tokens=False,
                split_special_tokens=True,
                return_attention_mask=False,
                verbose=False,
            )["input_ids"]
            if texts
            else []
        )
        bounds = [*first_text, len(texts)]
        return Encoding(
            tuple(
                self._join(example.solution_id, ids[start], ids[start + 1 : end])
                for example, start, end in zip(examples, bounds, bounds[1:], strict=False)
            )
        )

    def _join(
        self, solution_id: str, problem: list[int], steps: list[list[int]]
    ) -> EncodedSolution | Skip:
        if not steps:
            return Skip.NO_STEPS
        room = self.max_tokens - sum(len(step) + 1 for step in steps)
        if room < 0:
            return Skip.TOO_LONG
        token_ids = problem[:room]
        positions = []
        for step in steps:
            token_ids = [*token_ids, *step, self.separator]
            positions.append(len(token_ids) - 1)
        return EncodedSolution(solution_id, tuple(token_ids), tuple(positions), room < len(problem))


def _segments(example: Example) -> list[str]:
    """The code, cut at the step ends."""
    code = example.code.encode()
    ends = example.step_ends
    if any(a >= b for a, b in zip((0, *ends), ends, strict=False)) or (
        ends and ends[-1] > len(code)
    ):
        raise ValueError(
            f"solution {example.solution_id}: step_ends {ends} must increase and stay within the "
            f"{len(code)} bytes of its code"
        )
    return [code[a:b].decode() for a, b in zip((0, *ends), ends, strict=False)]


def read_at_end(solution: EncodedSolution) -> EncodedSolution:
    """The same tokens, scored at the last step alone."""
    return dataclasses.replace(solution, step_positions=solution.step_positions[-1:])


def collate(solutions: Sequence[EncodedSolution]) -> TokenBatch:
    """Pad to the longest; the padding's value is never seen."""
    longest = max(len(solution.token_ids) for solution in solutions)
    token_ids = torch.zeros(len(solutions), longest, dtype=torch.long)
    for row, solution in enumerate(solutions):
        token_ids[row, : len(solution.token_ids)] = torch.tensor(solution.token_ids)
    counts = torch.tensor([len(solution.step_positions) for solution in solutions])
    return TokenBatch(
        token_ids,
        torch.arange(len(solutions)).repeat_interleave(counts),
        torch.tensor([position for solution in solutions for position in solution.step_positions]),
    )
