"""The finished programs that steer a correction, and which of them meet in a turn.

Their labels are unit-test outcomes, which are clean; they are read at their last step alone.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.config import Correction, CorrectionConfig, MetaProblems
from pipeline.prm.batches import draw
from pipeline.prm.data import TrainingDataError
from pipeline.prm.encoding import EncodedSolution, read_at_end
from pipeline.prm.training_set import TrainingSet


class MetaSet:
    """The meta set of one arm; the same on every rank."""

    solutions: Sequence[EncodedSolution]
    labels: Float[Tensor, " M"]

    def __init__(
        self, config: CorrectionConfig, correction: Correction, data: TrainingSet, seed: int
    ) -> None:
        """Raises TrainingDataError where a correction has no meta program to learn from."""
        self._size = config.meta_batch
        self._seed = seed
        self._of_problem: dict[str, list[int]] | None = None
        self._problem_of = [example.problem_id for example in data.examples]
        if config.meta_problems is MetaProblems.SAME:
            self.solutions = [read_at_end(solution) for solution in data.solutions]
            labels = np.array([float(example.final_label) for example in data.examples])
            self._of_problem = defaultdict(list)
            for index, problem in enumerate(self._problem_of):
                self._of_problem[problem].append(index)
        else:
            self.solutions = data.meta_solutions
            labels = np.array(data.meta_labels)
        if correction is Correction.SHUFFLED:
            labels = np.random.default_rng([seed, 1]).permutation(labels)
        if correction is not Correction.NONE and not len(labels):
            raise TrainingDataError(
                f"correction {correction.value!r} needs finished meta programs, and none of those "
                "there are has code that fits into training.model.max_tokens: raise it, widen "
                "splits.meta, or use correction 'none'"
            )
        self.labels = torch.from_numpy(labels.astype(np.float32))

    def draw(self, turn: int, batch: Sequence[int]) -> list[int]:
        """The meta batch of the turn-th correction, longest first; `batch` indexes the training
        solutions that all ranks have just seen."""
        if self._of_problem is None:
            chosen = draw(len(self.labels), self._size, self._seed, turn)
        else:
            problems = sorted({self._problem_of[index] for index in batch})
            pool = [index for problem in problems for index in self._of_problem[problem]]
            order = np.random.default_rng([self._seed, 2, turn]).permutation(len(pool))
            chosen = [pool[place] for place in order[: self._size]]
        chosen.sort(key=lambda index: (-len(self.solutions[index].token_ids), index))
        return chosen
