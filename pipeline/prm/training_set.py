"""The examples of a training as tokens."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.prm.data import TrainingDataError, TrainingExamples
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


def prepare(examples: TrainingExamples, encoder: Encoder) -> TrainingSet:
    """Encode; leave out what has no steps or does not fit. Raises TrainingDataError if nothing is
    left to train on."""
    train = encoder.encode(examples.train)
    meta = encoder.encode(examples.meta)
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
        (read_at_end(solution), label)
        for solution, label in zip(
            meta.outcomes, (float(example.final_label) for example in examples.meta), strict=True
        )
        if isinstance(solution, EncodedSolution)
    ]
    return TrainingSet(
        examples=tuple(example for example, _ in kept),
        solutions=tuple(solution for _, solution in kept),
        meta_solutions=tuple(solution for solution, _ in finished),
        meta_labels=tuple(label for _, label in finished),
        too_long=train.skipped[Skip.TOO_LONG],
    )
