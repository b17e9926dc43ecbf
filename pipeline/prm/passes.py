"""Forward and backward passes of one rank over its share of a batch, micro-batch by micro-batch.

Ranks that share one sharded model gather its weights together and must run equally many passes. A
share is one solution shorter than another's at most, so a rank with a micro-batch less runs idle
passes, on a single token, whose gradient is zero.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.config import TrainingConfig
from pipeline.prm.encoding import ONE_TOKEN, EncodedSolution, collate
from pipeline.prm.flat_parameters import FlatParameters
from pipeline.prm.loss import losses
from pipeline.prm.model import StepScorer
from pipeline.prm.parallel import Ranks

Steps = Float[Tensor, " S"]
TargetsOf = Callable[[slice, Steps], tuple[Steps, Steps]]
"""Labels and weights of some steps of a batch, given their logits."""


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """What one rank has of a batch of `whole` solutions."""

    solutions: Sequence[EncodedSolution]
    whole: int


@dataclasses.dataclass(frozen=True, slots=True)
class Accumulated:
    """`logits`: of this rank's steps; the mean `loss` over all `labels` of all ranks."""

    logits: Steps
    loss: float
    labels: float


class Passes:
    """The passes of one training on one rank."""

    def __init__(
        self,
        config: TrainingConfig,
        scorer: StepScorer,
        flat: FlatParameters,
        ranks: Ranks,
    ) -> None:
        self._config = config
        self._scorer = scorer
        self._flat = flat
        self._ranks = ranks
        self._idle = collate([ONE_TOKEN])

    def accumulate(self, share: Share, targets_of: TargetsOf) -> Accumulated:
        """`flat.gradient` becomes the gradient of the global mean loss. A NaN label is none."""
        device = self._flat.values.device
        self._flat.gradient.zero_()
        loss, labels = torch.zeros((), device=device), torch.zeros((), device=device)
        parts: list[Tensor] = []
        done = 0
        for chunk in self._micro_batches(share):
            logits = self._scorer(collate(chunk).to(device))
            place = slice(done, done + len(logits))
            label, weight = (each.to(device) for each in targets_of(place, logits.detach()))
            known = ~label.isnan()
            each = losses(self._config.loss, logits[known], label[known])
            micro_loss = (weight[known] * each).sum()
            micro_loss.backward()
            loss += micro_loss.detach()
            labels += known.sum()
            parts.append(logits.detach())
            done = place.stop
        for _ in range(self._idle_passes(share)):
            (0.0 * self._scorer(self._idle.to(device)).sum()).backward()
        total_loss, count = self._ranks.sum(torch.stack([loss, labels])).tolist()
        self._flat.sum_gradient()
        count = max(count, 1.0)
        self._flat.gradient.div_(count)
        logits = torch.cat(parts) if parts else loss.new_zeros(0)
        return Accumulated(logits, total_loss / count, count)

    @torch.no_grad()
    def logits(self, share: Share) -> Steps:
        """Logits of this rank's steps, without a gradient."""
        device = self._flat.values.device
        parts = [self._scorer(collate(chunk).to(device)) for chunk in self._micro_batches(share)]
        for _ in range(self._idle_passes(share)):
            self._scorer(self._idle.to(device))
        return torch.cat(parts) if parts else torch.zeros(0, device=device)

    def _micro_batches(self, share: Share) -> Iterator[Sequence[EncodedSolution]]:
        size = self._config.micro_batch_size
        return (
            share.solutions[start : start + size] for start in range(0, len(share.solutions), size)
        )

    def _idle_passes(self, share: Share) -> int:
        if self._flat.inner.shards is None:
            return 0
        largest = -(-share.whole // self._ranks.world)
        size = self._config.micro_batch_size
        return -(-largest // size) - -(-len(share.solutions) // size)
