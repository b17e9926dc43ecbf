"""Scores of function steps: one forward pass per solution, batched by length."""

import logging
from collections.abc import Sequence

import torch

from pipeline.folders import local_folder
from pipeline.prm.batches import by_token_budget
from pipeline.prm.encoding import ONE_TOKEN, EncodedSolution, Encoder, collate
from pipeline.prm.model import StepScorer, load_scorer
from pipeline.prm.parallel import Ranks
from pipeline.records import Example, ScoredSolution

logger = logging.getLogger(__name__)

TOKENS_PER_BATCH = 16_384


class Scorer:
    """A trained PRM, loaded once."""

    def __init__(
        self, model_dir: str, *, device: str | None = None, tokens_per_batch: int = TOKENS_PER_BATCH
    ) -> None:
        """`model_dir`: a local path or an fsspec URI. `device` None: the GPU where there is one.
        `tokens_per_batch`: padded tokens of one forward pass."""
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._tokens_per_batch = tokens_per_batch
        self._scorer, tokenizer = load_scorer(local_folder(model_dir), self._device)
        self._encoder = Encoder(tokenizer)

    def score(self, examples: Sequence[Example]) -> list[ScoredSolution]:
        """The scores in (0, 1) of every step of every example, in the order given.

        An example without steps, or whose program is longer than the model's context, has no scores
        (an empty tuple); their count is logged.
        """
        encoding = self._encoder.encode(examples)
        for reason, count in encoding.skipped.items():
            logger.warning("%d of %d solutions not scored: %s", count, len(examples), reason)
        encoded = [
            (place, outcome)
            for place, outcome in enumerate(encoding.outcomes)
            if isinstance(outcome, EncodedSolution)
        ]
        scores: list[tuple[float, ...]] = [()] * len(examples)
        found = score_encoded(
            self._scorer,
            [solution for _, solution in encoded],
            self._device,
            self._tokens_per_batch,
        )
        for (place, _), of_solution in zip(encoded, found, strict=True):
            scores[place] = of_solution
        return [
            ScoredSolution(example.solution_id, step_scores)
            for example, step_scores in zip(examples, scores, strict=True)
        ]


@torch.no_grad()  # not inference mode: what FSDP gathers under it could not be trained on again
def score_encoded(
    scorer: StepScorer,
    solutions: Sequence[EncodedSolution],
    device: torch.device,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    *,
    together: Ranks | None = None,
) -> list[tuple[float, ...]]:
    """The scores of the steps of every solution, in the order given; sequences of like length share
    a forward pass. `together`: the ranks that share one sharded model, each with solutions of its
    own; all of them run as many passes as the one with most."""
    scores: list[tuple[float, ...]] = [()] * len(solutions)
    batches = by_token_budget([len(s.token_ids) for s in solutions], tokens_per_batch)
    if together is not None:
        for _ in range(together.most(len(batches)) - len(batches)):
            scorer(collate([ONE_TOKEN]).to(device))
    for batch in batches:
        chunk = [solutions[index] for index in batch]
        logits = scorer(collate(chunk).to(device))
        by_solution = logits.sigmoid().split([len(s.step_positions) for s in chunk])
        for index, values in zip(batch, by_solution, strict=True):
            scores[index] = tuple(values.tolist())
    return scores
