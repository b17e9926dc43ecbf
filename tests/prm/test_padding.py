"""Padding and length on real programs."""

import gzip
import json
from pathlib import Path

import pytest
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

from pipeline.functions import split_steps
from pipeline.prm.batches import BatchPlan, by_token_budget
from pipeline.prm.encoding import EncodedSolution, Encoder, Encoding, Skip
from pipeline.records import Example, Role

RECORDED = Path(__file__).parents[3] / "shared/data/livecodebench-o1-mini.jsonl.gz"

pytestmark = pytest.mark.skipif(
    not RECORDED.exists(), reason=f"{RECORDED.name} is not in shared/data"
)


@pytest.fixture(scope="module")
def encoding() -> Encoding:
    """880 programs with their statements, by a tokenizer trained on 100 of them."""
    with gzip.open(RECORDED, "rt") as file:
        rows = [json.loads(line) for line in file]
    bpe = ByteLevelBPETokenizer()
    texts = [text for row in rows[:100] for text in (row["question_content"], row["code_list"][0])]
    bpe.train_from_iterator(texts, vocab_size=2000, special_tokens=["<|end|>"], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<|end|>")
    tokenizer.model_max_length = 2048
    return Encoder(tokenizer).encode([example_of(row) for row in rows])


def example_of(row: dict[str, object]) -> Example:
    code = str(row["code_list"][0])  # pyright: ignore[reportIndexIssue]
    steps = split_steps(code, str(row["question_id"]))
    none = (0,) * len(steps)
    return Example(
        solution_id=str(row["question_id"]),
        problem_id=str(row["question_id"]),
        role=Role.TRAIN,
        difficulty=str(row["difficulty"]),
        problem=str(row["question_content"]),
        code=code,
        step_ends=tuple(step.end for step in steps),
        step_ids=tuple(step.step_id for step in steps),
        passed=none,
        trials=none,
        step_truth=None,
        final_label=bool(row["graded_list"][0]),  # pyright: ignore[reportIndexIssue]
    )


def lengths_of(encoding: Encoding) -> list[int]:
    return [len(o.token_ids) for o in encoding.outcomes if isinstance(o, EncodedSolution)]


def padding(lengths: list[int], batches: list[list[int]]) -> float:
    real = sum(lengths[index] for batch in batches for index in batch)
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches if batch)
    return 1 - real / padded


@pytest.mark.parametrize("world", [1, 4])
def test_training_batches_of_real_programs_are_padded_by_less_than_a_tenth(
    encoding: Encoding, world: int
) -> None:
    lengths = lengths_of(encoding)
    plan = BatchPlan(lengths, batch_size=32, seed=0)
    micro = [
        share[start : start + 8]
        for epoch in range(3)
        for rank in range(world)
        for share in plan.epoch(epoch, rank, world)
        for start in range(0, len(share), 8)
    ]
    assert padding(lengths, micro) < 0.10


def test_scoring_batches_of_real_programs_are_padded_by_less_than_a_tenth(
    encoding: Encoding,
) -> None:
    lengths = lengths_of(encoding)
    assert padding(lengths, by_token_budget(lengths, 16_384)) < 0.10


def test_long_programs_lose_their_statement_first_and_are_counted_when_that_is_not_enough(
    encoding: Encoding,
) -> None:
    fit = [o for o in encoding.outcomes if isinstance(o, EncodedSolution)]
    assert all(len(solution.token_ids) <= 2048 for solution in fit)
    assert len(fit) + sum(encoding.skipped.values()) == 880
    assert encoding.skipped[Skip.TOO_LONG] == 4
    cut = [solution for solution in fit if solution.statement_cut]
    assert all(len(solution.token_ids) == 2048 for solution in cut)
