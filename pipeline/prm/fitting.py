"""One training, from the first optimizer step to the last, on one of any number of ranks.

for every batch:
    loss = mean over its labelled steps of BCE(logit, label)       all ranks: one gradient
    phi -> phi'                                                    AdamW, clipped
    every k steps, after warm-up, where the arm corrects labels:
        meta loss at phi' on finished programs of meta problems    one more gradient
        hypergradient of the batch's labels                        one forward pass
        labels of the batch move
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline.config import ArmConfig, Correction, OptimizerConfig, TrainingConfig
from pipeline.prm import hypergradient as hyper
from pipeline.prm.batches import BatchPlan, draw
from pipeline.prm.checkpoint import ArmState
from pipeline.prm.correction import CorrectionState, averaged, has_drifted, is_due, move_labels
from pipeline.prm.data import TrainingDataError
from pipeline.prm.encoding import EncodedSolution, collate
from pipeline.prm.flat_parameters import FlatParameters
from pipeline.prm.label_table import CorrectedLabels, LabelTable
from pipeline.prm.model import StepScorer
from pipeline.prm.parallel import Ranks
from pipeline.prm.results import HistoryRow
from pipeline.prm.training_set import TrainingSet

WANTED_RMS = {torch.float32: 5e-4, torch.bfloat16: 0.2}
"""Change of the logits, RMS, that the forward difference aims at: as small as the rounding of the
compute dtype lets it be."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a training tells after every optimizer step."""

    row: HistoryRow
    total: int
    solutions_per_s: float


class Fit:
    """One arm's training on one rank; all ranks build it with the same arguments but `ranks`."""

    def __init__(
        self,
        config: TrainingConfig,
        arm: ArmConfig,
        data: TrainingSet,
        scorer: StepScorer,
        ranks: Ranks,
        fingerprint: str,
    ) -> None:
        self.config = config
        self.arm = arm
        self.ranks = ranks
        self.fingerprint = fingerprint
        self.scorer = scorer
        self.data = data
        self.flat = FlatParameters(scorer.parameters())
        self.device = self.flat.values.device
        ranks.same_as_first(self.flat.values.data)
        self.optimizer = _optimizer(config.optimizer, self.flat)
        lengths = [len(solution.token_ids) for solution in data.solutions]
        self.plan = BatchPlan(lengths, config.batch_size, config.seed)
        owned = self.plan.owned(ranks.rank, ranks.world)
        self.table = LabelTable(data.examples, owned, arm.targets)
        self.correction = CorrectionState()
        self.total = config.epochs * self.plan.steps_per_epoch
        self.step = 0
        self.history: list[HistoryRow] = []
        self._initial_mean = self._mean_label()
        meta_labels = np.array(data.meta_labels, dtype=np.float32)
        if arm.correction is Correction.SHUFFLED:
            meta_labels = np.random.default_rng([config.seed, 1]).permutation(meta_labels)
        self._meta_labels = torch.from_numpy(meta_labels)

    def run(self, save: Callable[[ArmState], None]) -> Iterator[StepReport]:
        """Train to the end, one report per optimizer step; all ranks advance together. `save` gets
        the state on every rank, every `checkpoint_every` steps and at the end.

        Raises TrainingDataError, naming step and batch, when the loss is no longer finite.
        """
        epoch, batches = -1, []
        while self.step < self.total:
            started = time.monotonic()
            if self.step // self.plan.steps_per_epoch != epoch:
                epoch = self.step // self.plan.steps_per_epoch
                batches = self.plan.epoch(epoch, self.ranks.rank, self.ranks.world)
            row = self._train_step(epoch, batches[self.step % self.plan.steps_per_epoch])
            self.history.append(row)
            self.step += 1
            if self.step % self.config.checkpoint_every == 0 or self.step == self.total:
                save(self.state())
            seconds = time.monotonic() - started
            yield StepReport(row, self.total, self.config.batch_size / seconds)

    def state(self) -> ArmState:
        """The state to resume from; every rank must ask for it at the same step."""
        parts = self.ranks.gather(self.table.corrected())
        return ArmState(
            self.fingerprint,
            self.step,
            self.flat.values.data,
            self.optimizer.state_dict(),
            CorrectedLabels(
                tuple(step_id for part in parts for step_id in part.step_ids),
                tuple(value for part in parts for value in part.values),
                tuple(updates for part in parts for updates in part.updates),
            ),
            self.correction,
            tuple(self.history),
        )

    def restore(self, state: ArmState) -> None:
        """Go on from a checkpoint, on any number of ranks. Raises TrainingDataError if it is of
        another architecture."""
        if state.parameters.shape != self.flat.values.shape:
            raise TrainingDataError(
                f"arm {self.arm.name!r}: the checkpoint holds {len(state.parameters)} trained "
                f"weights and this model has {len(self.flat.values)}: it is of another model"
            )
        self.flat.assign(state.parameters)
        self.optimizer.load_state_dict(state.optimizer)
        self.table.restore(state.labels)
        self.correction = state.correction
        self.history = list(state.history)
        self.step = state.step

    # --- one optimizer step ------------------------------------------------------------------

    def _train_step(self, epoch: int, batch: list[int]) -> HistoryRow:
        """`batch`: this rank's share of the global batch."""
        slots = self.table.slots(batch)
        targets = self.table.values[slots]
        solutions = [self.data.solutions[index] for index in batch]
        logits, loss, labels = self._accumulate(solutions, targets)
        norm = float(self.flat.gradient.norm())
        if not (math.isfinite(loss) and math.isfinite(norm)):
            names = ", ".join(solution.solution_id for solution in solutions[:4])
            raise TrainingDataError(
                f"arm {self.arm.name!r}: loss {loss}, gradient norm {norm} at step {self.step} "
                f"(epoch {epoch}, rank {self.ranks.rank}, {len(solutions)} solutions: {names}...); "
                "the last checkpoint is kept. Lower training.optimizer.learning_rate, or look at "
                "these solutions"
            )

        correcting = self.arm.correction is not Correction.NONE and is_due(
            self.config.correction, self.correction, self.step, self.total
        )
        rate = learning_rate(self.config.optimizer, self.step, self.total)
        clipping = hyper.Clipping(
            self.flat.gradient.clone() if correcting else self.flat.gradient,
            norm,
            self.config.optimizer.clip_norm,
        )
        phi = self.flat.values.detach().clone() if correcting else None
        self.flat.gradient.mul_(clipping.scale)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()

        meta_loss = None
        if phi is not None:
            diagonal = self._update_diagonal()
            meta_loss, meta_gradient = self._meta_gradient()
            v = clipping.transposed(diagonal * meta_gradient)
            derivative = self._along(v, phi, logits, solutions)
            move_labels(
                self.config.correction, self.table, slots, (rate / labels) * derivative, self.ranks
            )
        mean_label = self._mean_label()
        if (
            phi is not None
            and mean_label is not None
            and has_drifted(mean_label, self._initial_mean or 0.5)
        ):
            self.correction.stopped_at = self.step
        return HistoryRow(self.step, epoch, loss, meta_loss, mean_label, rate, norm)

    def _accumulate(
        self, solutions: Sequence[EncodedSolution], targets: Float[Tensor, " S"]
    ) -> tuple[Float[Tensor, " S"], float, float]:
        """Logits of this rank's steps; loss and number of labels over all ranks. `flat.gradient`
        becomes the gradient of the global mean loss. A NaN target is no label."""
        targets = targets.to(self.device)
        self.flat.gradient.zero_()
        loss = torch.zeros((), device=self.device)
        parts: list[Tensor] = []
        done = 0
        for chunk in self._micro_batches(solutions):
            logits = self.scorer(collate(chunk).to(self.device))
            target = targets[done : done + len(logits)]
            known = ~target.isnan()
            micro_loss = binary_cross_entropy_with_logits(
                logits[known], target[known], reduction="sum"
            )
            micro_loss.backward()
            loss += micro_loss.detach()
            parts.append(logits.detach())
            done += len(logits)
        totals = torch.stack([loss, (~targets.isnan()).sum().float()])
        total_loss, labels = self.ranks.sum(totals).tolist()
        self.ranks.sum(self.flat.gradient)
        labels = max(labels, 1.0)
        self.flat.gradient.div_(labels)
        return torch.cat(parts) if parts else targets[:0], total_loss / labels, labels

    def _meta_gradient(self) -> tuple[float, Float[Tensor, " P"]]:
        """Loss of the turn's meta batch at the weights just reached; the running mean of its
        gradients."""
        chosen = draw(
            len(self._meta_labels),
            self.config.correction.meta_batch,
            self.config.seed,
            self.correction.corrections,
        )
        chosen.sort(key=lambda index: (-len(self.data.meta_solutions[index].token_ids), index))
        mine = chosen[self.ranks.rank :: self.ranks.world]
        solutions = [self.data.meta_solutions[index] for index in mine]
        _, loss, _ = self._accumulate(solutions, self._meta_labels[mine])
        return loss, averaged(self.config.correction, self.correction, self.flat.gradient)

    def _update_diagonal(self) -> Float[Tensor, " P"]:
        """D of the optimizer step just made; `flat.gradient` is what it was given."""
        if self.config.optimizer.kind == "sgd":
            return torch.ones_like(self.flat.gradient)
        state = self.optimizer.state[self.flat.values]
        group = self.optimizer.param_groups[0]
        return hyper.adamw_diagonal(
            self.flat.gradient,
            state["exp_avg"],
            state["exp_avg_sq"],
            int(state["step"]),
            group["betas"],
            group["eps"],
        )

    def _along(
        self,
        v: Float[Tensor, " P"],
        phi: Float[Tensor, " P"],
        logits: Float[Tensor, " S"],
        solutions: Sequence[EncodedSolution],
    ) -> Float[Tensor, " S"]:
        """<v, grad f_i(phi)> of this rank's steps; the weights are left as they were."""
        reached = self.flat.values.detach().clone()
        derivative = hyper.forward_difference(
            logits,
            lambda weights: self._logits_at(weights, solutions),
            phi,
            v,
            distance=self.correction.distance,
            wanted_rms=WANTED_RMS[self.scorer.compute_dtype],
            ranks=self.ranks,
        )
        self.flat.assign(reached)
        self.correction.distance = derivative.distance
        return derivative.values.cpu()

    @torch.no_grad()
    def _logits_at(
        self, weights: Float[Tensor, " P"], solutions: Sequence[EncodedSolution]
    ) -> Float[Tensor, " S"]:
        self.flat.assign(weights)
        parts = [
            self.scorer(collate(chunk).to(self.device)) for chunk in self._micro_batches(solutions)
        ]
        return torch.cat(parts) if parts else weights[:0]

    def _micro_batches(
        self, solutions: Sequence[EncodedSolution]
    ) -> Iterator[Sequence[EncodedSolution]]:
        size = self.config.micro_batch_size
        return (solutions[start : start + size] for start in range(0, len(solutions), size))

    def _mean_label(self) -> float | None:
        total, count = self.ranks.sum(self.table.free_sum_and_count().to(self.device)).tolist()
        return total / count if count else None


def learning_rate(config: OptimizerConfig, step: int, total: int) -> float:
    """Linear warm-up over a fraction of the steps, then half a cosine to zero."""
    warmup = config.warmup * total
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(total - warmup, 1.0)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def _optimizer(config: OptimizerConfig, flat: FlatParameters) -> torch.optim.Optimizer:
    if config.kind == "sgd":
        return torch.optim.SGD(
            [flat.values], config.learning_rate, weight_decay=config.weight_decay
        )
    return torch.optim.AdamW([flat.values], config.learning_rate, weight_decay=config.weight_decay)
