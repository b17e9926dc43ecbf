"""One training, from the first optimizer step to the last, on one of any number of ranks.

for every batch:
    loss = mean over labelled steps of weight * loss(logit, label)   all ranks: one gradient
    phi -> phi'                                                      AdamW, clipped
    every k steps, after warm-up, where the arm corrects:
        meta loss at phi' on finished programs                       one more gradient
        hypergradient of the batch's labels                          one forward pass
        labels of the batch move, or weights, or the corrector
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.config import ArmConfig, Correction, OptimizerConfig, TrainingConfig
from pipeline.prm import hypergradient as hyper
from pipeline.prm.batches import BatchPlan
from pipeline.prm.checkpoint import ArmState
from pipeline.prm.correction import (
    CorrectionState,
    averaged,
    has_drifted,
    is_due,
    move_labels,
    move_weights,
)
from pipeline.prm.corrector import Corrector, step_features
from pipeline.prm.data import TrainingDataError
from pipeline.prm.encoding import EncodedSolution, collate
from pipeline.prm.flat_parameters import FlatParameters
from pipeline.prm.label_table import MOST_WEIGHT, CorrectedLabels, LabelTable
from pipeline.prm.loss import coupling, losses, slope
from pipeline.prm.meta_set import MetaSet
from pipeline.prm.model import StepScorer
from pipeline.prm.parallel import Ranks
from pipeline.prm.results import HistoryRow
from pipeline.prm.training_set import TrainingSet

WANTED_RMS = {torch.float32: 5e-4, torch.bfloat16: 0.2}
"""Change of the logits, RMS, that the forward difference aims at: as small as the rounding of the
compute dtype lets it be."""

logger = logging.getLogger(__name__)

Steps = Float[Tensor, " S"]
TargetsOf = Callable[[slice, Steps], tuple[Steps, Steps]]
"""Labels and weights of some steps of a batch, given their logits."""


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
        labels: Sequence[Sequence[float | None]],
        scorer: StepScorer,
        ranks: Ranks,
        fingerprint: str,
    ) -> None:
        """`labels`: those of every example of `data` before correction (`initial_labels`)."""
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
        self.table = LabelTable(data.examples, labels, owned)
        self.correction = CorrectionState()
        self.corrector = (
            Corrector(
                config.correction,
                self.table,
                step_features(data.examples, owned),
                config.seed,
                ranks,
            )
            if arm.correction is Correction.CORRECTOR
            else None
        )
        self.meta = MetaSet(config.correction, arm.correction, data, config.seed)
        self.total = config.epochs * self.plan.steps_per_epoch
        self.step = 0
        self.history: list[HistoryRow] = []
        self._initial_mean, _ = self._means()

    def run(self, save: Callable[[ArmState], None]) -> Iterator[StepReport]:
        """Train to the end, one report per optimizer step; all ranks advance together. `save` gets
        the state on every rank, every `checkpoint_every` steps and at the end.

        Raises TrainingDataError, naming step and batch, when the loss is no longer finite.
        """
        epoch, batches, whole = -1, [], []
        while self.step < self.total:
            started = time.monotonic()
            if self.step // self.plan.steps_per_epoch != epoch:
                epoch = self.step // self.plan.steps_per_epoch
                batches = self.plan.epoch(epoch, self.ranks.rank, self.ranks.world)
                whole = self.plan.epoch(epoch)
            place = self.step % self.plan.steps_per_epoch
            row = self._train_step(epoch, batches[place], whole[place])
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
            CorrectedLabels.joined(parts),
            self.correction,
            self.corrector.state() if self.corrector else None,
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
        if self.corrector and state.corrector:
            self.corrector.restore(state.corrector)
        self.history = list(state.history)
        self.step = state.step

    # --- one optimizer step ------------------------------------------------------------------

    def _train_step(self, epoch: int, batch: list[int], whole: list[int]) -> HistoryRow:
        """`batch`: this rank's share of the `whole` batch."""
        slots = self.table.slots(batch)
        solutions = [self.data.solutions[index] for index in batch]
        logits, loss, labels = self._accumulate(solutions, self._targets_of(slots))
        norm = float(self.flat.gradient.norm())
        self._check_finite(epoch, solutions, loss, norm)

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
            meta_loss, meta_gradient = self._meta_gradient(whole)
            self._check_finite(epoch, solutions, meta_loss, float(meta_gradient.norm()))
            v = clipping.transposed(diagonal * meta_gradient)
            derivative = self._along(v, phi, logits, solutions)
            self._correct(slots, logits.cpu(), (rate / labels) * derivative)
        mean_label, mean_weight = self._means()
        if phi is not None and mean_label is not None and mean_weight is not None:
            self._guard(mean_label, mean_weight)
        return HistoryRow(self.step, epoch, loss, meta_loss, mean_label, rate, norm, mean_weight)

    def _targets_of(self, slots: Int[Tensor, " S"]) -> TargetsOf:
        """Labels and weights from the table; a corrector that has learned labels them anew."""
        relabelled = (
            self.corrector
            if self.correction.corrections and self.correction.stopped_at is None
            else None
        )

        def targets_of(place: slice, logits: Steps) -> tuple[Steps, Steps]:
            if relabelled:
                relabelled.relabel(slots[place], logits)
            return self.table.values[slots[place]], self.table.weights[slots[place]]

        return targets_of

    def _correct(self, slots: Int[Tensor, " S"], logits: Steps, along: Steps) -> None:
        """`along`: (lr/N) <v, grad f_i>, the effect of pulling at logit i on the meta loss."""
        config, kind = self.config.correction, self.config.loss
        match self.arm.correction:
            case Correction.WEIGHTS:
                pull = -slope(kind, logits, self.table.values[slots])
                move_weights(config, self.table, slots, pull * along, self.ranks)
            case Correction.CORRECTOR:
                assert self.corrector is not None
                self.corrector.learn(slots, logits, coupling(kind, logits) * along)
            case _:
                pull = coupling(kind, logits)
                move_labels(config, self.table, slots, pull * along, self.ranks)

    def _guard(self, mean_label: float, mean_weight: float) -> None:
        """Stop correcting when labels, or weights, have gone to an end together."""
        first = 0.5 if self._initial_mean is None else self._initial_mean
        if has_drifted(mean_label, first) or has_drifted(mean_weight / MOST_WEIGHT, 0.5):
            self.correction.stopped_at = self.step
            logger.warning(
                "arm %r: correction stopped at step %d: the mean label went from %.3f to %.3f, "
                "the mean weight from 1 to %.3f. The labels stay as they are; lower "
                "training.correction.label_rate (corrector_rate), or raise its anchor",
                self.arm.name, self.step, first, mean_label, mean_weight,
            )  # fmt: skip

    def _check_finite(
        self, epoch: int, solutions: Sequence[EncodedSolution], loss: float, norm: float
    ) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        names = ", ".join(solution.solution_id for solution in solutions[:4])
        raise TrainingDataError(
            f"arm {self.arm.name!r}: loss {loss}, gradient norm {norm} at step {self.step} "
            f"(epoch {epoch}, rank {self.ranks.rank}, {len(solutions)} solutions: {names}...); "
            "the last checkpoint is kept. Lower training.optimizer.learning_rate, or look at "
            "these solutions"
        )

    def _accumulate(
        self, solutions: Sequence[EncodedSolution], targets_of: TargetsOf
    ) -> tuple[Steps, float, float]:
        """Logits of this rank's steps; loss and number of labels over all ranks. `flat.gradient`
        becomes the gradient of the global mean loss. A NaN label is none."""
        self.flat.gradient.zero_()
        loss, labels = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        parts: list[Tensor] = []
        done = 0
        for chunk in self._micro_batches(solutions):
            logits = self.scorer(collate(chunk).to(self.device))
            place = slice(done, done + len(logits))
            label, weight = (each.to(self.device) for each in targets_of(place, logits.detach()))
            known = ~label.isnan()
            each = losses(self.config.loss, logits[known], label[known])
            micro_loss = (weight[known] * each).sum()
            micro_loss.backward()
            loss += micro_loss.detach()
            labels += known.sum()
            parts.append(logits.detach())
            done = place.stop
        total_loss, count = self.ranks.sum(torch.stack([loss, labels])).tolist()
        self.ranks.sum(self.flat.gradient)
        count = max(count, 1.0)
        self.flat.gradient.div_(count)
        return torch.cat(parts) if parts else loss.new_zeros(0), total_loss / count, count

    def _meta_gradient(self, whole: list[int]) -> tuple[float, Float[Tensor, " P"]]:
        """Loss of the turn's meta batch at the weights just reached; the running mean of its
        gradients."""
        chosen = self.meta.draw(self.correction.corrections, whole)
        mine = chosen[self.ranks.rank :: self.ranks.world]
        labels = self.meta.labels[mine]
        _, loss, _ = self._accumulate(
            [self.meta.solutions[index] for index in mine],
            lambda place, _: (labels[place], torch.ones_like(labels[place])),
        )
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

    def _means(self) -> tuple[float | None, float | None]:
        """Mean free label and weight over all ranks; None where an arm has none."""
        labels, weights, count = self.ranks.sum(self.table.free_sums()).tolist()
        return (labels / count, weights / count) if count else (None, None)


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
