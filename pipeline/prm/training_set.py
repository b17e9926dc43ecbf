"""The examples of a training as tokens."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config import Targets, TrainingConfig
from pipeline.prm.crossfit import halves
from pipeline.prm.data import (
    TrainingDataError,
    TrainingExamples,
    check_trainable,
    has_rollouts,
)
from pipeline.prm.encoding import EncodedSolution, Encoder, Skip, read_at_end
from pipeline.records import Example


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """The examples that can be trained on, encoded; meta solutions are read at their end alone."""

    examples: tuple[Example, ...]
    solutions: tuple[EncodedSolution, ...]
    meta_solutions: tuple[EncodedSolution, ...]
    meta_labels: tuple[float, ...]
    too_long: int

    def part(self, indices: Sequence[int]) -> "TrainingSet":
        """Some of the training examples, with the same meta set."""
        return dataclasses.replace(
            self,
            examples=tuple(self.examples[index] for index in indices),
            solutions=tuple(self.solutions[index] for index in indices),
        )


def prepare(examples: TrainingExamples, encoder: Encoder, config: TrainingConfig) -> TrainingSet:
    """Encode; leave out what has no steps or does not fit. Raises TrainingDataError for what cannot
    be encoded, and if too little is left to train an arm of `config`."""
    try:
        train = encoder.encode(examples.train)
        meta = encoder.encode(examples.meta)
    except ValueError as error:
        raise TrainingDataError(str(error)) from error
    kept = [
        (example, solution)
        for example, solution in zip(examples.train, train.outcomes, strict=True)
        if isinstance(solution, EncodedSolution)
    ]
    if not kept:
        raise TrainingDataError(
            f"none of {len(train.outcomes)} programs fits into {encoder.max_tokens} tokens: raise "
            "training.model.max_tokens, or take a base model with a longer context"
        )
    finished = [
        (example, read_at_end(solution))
        for example, solution in zip(examples.meta, meta.outcomes, strict=True)
        if isinstance(solution, EncodedSolution)
    ]
    left = TrainingExamples(
        tuple(example for example, _ in kept), tuple(example for example, _ in finished)
    )
    too_long = train.skipped[Skip.TOO_LONG] + meta.skipped[Skip.TOO_LONG]
    try:
        check_trainable(left, config)
        if any(arm.targets is Targets.CROSSFIT for arm in config.arms):
            _check_halves(left.train)
    except TrainingDataError as error:
        raise TrainingDataError(
            f"{error} ({too_long} programs did not fit into {encoder.max_tokens} tokens)"
        ) from error
    return TrainingSet(
        examples=left.train,
        solutions=tuple(solution for _, solution in kept),
        meta_solutions=tuple(solution for _, solution in finished),
        meta_labels=tuple(float(example.final_label) for example in left.meta),
        too_long=too_long,
    )


def _check_halves(examples: Sequence[Example]) -> None:
    for half in halves(examples):
        if not has_rollouts([examples[index] for index in half]):
            raise TrainingDataError(
                "targets 'crossfit' learn from each half of the training problems, and one half "
                "has no rollouts: add problems, or use targets 'soft'"
            )
