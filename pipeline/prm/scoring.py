"""Scores of function steps: one forward pass per solution, batched by length."""

import logging
from collections.abc import Sequence

import torch

from pipeline.prm.batches import by_token_budget
from pipeline.prm.encoding import EncodedSolution, Encoder, collate
from pipeline.prm.model import load_scorer
from pipeline.records import Example, ScoredSolution

logger = logging.getLogger(__name__)


def score_examples(
    model_dir: str,
    examples: Sequence[Example],
    *,
    device: str | None = None,
    tokens_per_batch: int = 16_384,
) -> list[ScoredSolution]:
    """The scores in (0, 1) of every step of every example, in the order given.

    `device` None means the GPU where there is one. An example without steps, or whose program is
    longer than the model's context, has no scores (an empty tuple); their count is logged.
    """
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    scorer, tokenizer = load_scorer(model_dir, chosen)
    encoding = Encoder(tokenizer).encode(examples)
    for reason, count in encoding.skipped.items():
        logger.warning("%d of %d solutions not scored: %s", count, len(examples), reason)

    scores: list[tuple[float, ...]] = [()] * len(examples)
    encoded = [
        (place, outcome)
        for place, outcome in enumerate(encoding.outcomes)
        if isinstance(outcome, EncodedSolution)
    ]
    lengths = [len(solution.token_ids) for _, solution in encoded]
    with torch.inference_mode():
        for batch in by_token_budget(lengths, tokens_per_batch):
            chunk = [encoded[index] for index in batch]
            logits = scorer(collate([solution for _, solution in chunk]).to(chosen))
            step_counts = [len(solution.step_positions) for _, solution in chunk]
            for (place, _), values in zip(chunk, logits.sigmoid().split(step_counts), strict=True):
                scores[place] = tuple(values.tolist())
    return [
        ScoredSolution(example.solution_id, step_scores)
        for example, step_scores in zip(examples, scores, strict=True)
    ]
