"""One training, from the first optimizer step to the last, on one of any number of ranks.

for every batch:
    loss = mean over labelled steps of weight * loss(logit, label)   all ranks: one gradient
    phi -> phi'                                                      AdamW, clipped
    every k steps, after warm-up, where the arm corrects:
        meta loss at phi' on finished programs                       one more gradient
        hypergradient of the batch's labels                          one forward pass or two
        labels of the batch move, or weights, or the corrector
"""

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.config import ArmConfig, Correction, TrainingConfig
from pipeline.prm import hypergradient as hyper
from pipeline.prm.batches import BatchPlan
from pipeline.prm.checkpoint import ArmState
from pipeline.prm.checks import Place, check_finite, check_same
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
from pipeline.prm.directional_derivative import PRECISION, directional_derivative
from pipeline.prm.flat_parameters import FlatParameters
from pipeline.prm.label_table import MOST_WEIGHT, CorrectedLabels, LabelTable
from pipeline.prm.loss import coupling, slope
from pipeline.prm.meta_set import MetaSet
from pipeline.prm.model import StepScorer
from pipeline.prm.optimizer import Optimizer, learning_rate
from pipeline.prm.parallel import Ranks
from pipeline.prm.passes import Accumulated, Passes, Share, Steps, TargetsOf
from pipeline.prm.results import HistoryRow
from pipeline.prm.training_set import TrainingSet

logger = logging.getLogger(__name__)


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
        flat: FlatParameters,
        ranks: Ranks,
        fingerprint: str,
    ) -> None:
        """`labels`: those of every example of `data` before correction (`initial_labels`).
        `scorer`, `flat`: what `parallelize` gives."""
        self.config = config
        self.arm = arm
        self.ranks = ranks
        self.fingerprint = fingerprint
        self.scorer = scorer
        self.data = data
        self.flat = flat
        self.passes = Passes(config, scorer, flat, ranks)
        self.optimizer = Optimizer(config.optimizer, flat)
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
        """The state to resume from; every rank must ask for it at the same step, and what rank 0
        gets is whole."""
        average = self.correction.meta_gradient
        whole = None if average is None else self.flat.whole(average)
        return ArmState(
            self.fingerprint,
            self.step,
            self.flat.layout,
            self.flat.whole(self.flat.values.data),
            self.optimizer.state(),
            self.corrected_labels(),
            dataclasses.replace(self.correction, meta_gradient=whole),
            self.corrector.state() if self.corrector else None,
            tuple(self.history),
        )

    def corrected_labels(self) -> CorrectedLabels:
        """Those of all ranks; every rank must ask."""
        return CorrectedLabels.joined(self.ranks.gather(self.table.corrected()))

    def restore(self, state: ArmState) -> None:
        """Go on from a checkpoint, on any number of ranks. Raises TrainingDataError if it is of
        another architecture or label set."""
        check_same(self.arm.name, state, self.flat.layout, self.data.examples)
        self.flat.assign(self.flat.part(state.parameters))
        self.optimizer.restore(state.optimizer)
        self.table.restore(state.labels)
        average = state.correction.meta_gradient
        self.correction = dataclasses.replace(
            state.correction,
            meta_gradient=None if average is None else self.flat.part(average),
        )
        if self.corrector and state.corrector:
            self.corrector.restore(state.corrector)
        self.history = list(state.history)
        self.step = state.step

    # --- one optimizer step ------------------------------------------------------------------

    def _train_step(self, epoch: int, batch: list[int], whole: list[int]) -> HistoryRow:
        """`batch`: this rank's share of the `whole` batch."""
        slots = self.table.slots(batch)
        share = Share([self.data.solutions[index] for index in batch], len(whole))
        sums = self.passes.accumulate(share, self._targets_of(slots))
        norm = self.flat.inner.norm(self.flat.gradient)
        self._check_finite("loss", sums, norm, epoch, share)

        correcting = (
            self.arm.correction is not Correction.NONE
            and self.optimizer.is_settled(self.step)
            and is_due(self.config.correction, self.correction, self.step, self.total)
        )
        rate = learning_rate(self.config.optimizer, self.step, self.total)
        clipping = hyper.Clipping(
            self.flat.gradient.clone() if correcting else self.flat.gradient,
            norm,
            self.config.optimizer.clip_norm,
            self.flat.inner,
        )
        phi = self.flat.values.detach().clone() if correcting else None
        self.flat.gradient.mul_(clipping.scale)
        self.optimizer.step(rate)

        meta_loss = hypergradient_norm = None
        if phi is not None:
            meta_loss, v = self._direction(clipping, epoch, whole)
            del clipping  # as long as the weights, and the passes along v need room
            derivative = self._along(v, phi, sums.logits, share)
            hypergradient = (rate / sums.labels) * derivative
            hypergradient_norm = math.sqrt(self.ranks.sum(hypergradient.square().sum()).item())
            self._correct(slots, sums.logits.cpu(), hypergradient)
        mean_label, mean_weight = self._means()
        if phi is not None and mean_label is not None and mean_weight is not None:
            self._guard(mean_label, mean_weight)
        return HistoryRow(
            self.step,
            epoch,
            sums.loss,
            meta_loss,
            mean_label,
            rate,
            norm,
            mean_weight,
            hypergradient_norm,
        )

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
        self, what: str, sums: Accumulated, norm: float, epoch: int, share: Share
    ) -> None:
        place = Place(self.arm.name, self.step, epoch)
        check_finite(place, what, sums, norm, share, self.ranks)

    def _direction(
        self, clipping: hyper.Clipping, epoch: int, whole: list[int]
    ) -> tuple[float, Float[Tensor, " P"]]:
        """Loss of the turn's meta batch at the weights just reached; v, from the running mean of
        its gradients."""
        diagonal = self.optimizer.update_diagonal()  # while the gradient is that of the step
        chosen = self.meta.draw(self.correction.corrections, whole)
        mine = chosen[self.ranks.rank :: self.ranks.world]
        labels = self.meta.labels[mine]
        share = Share([self.meta.solutions[index] for index in mine], len(chosen))
        sums = self.passes.accumulate(
            share, lambda place, _: (labels[place], torch.ones_like(labels[place]))
        )
        norm = self.flat.inner.norm(self.flat.gradient)
        self._check_finite("meta loss", sums, norm, epoch, share)
        mean = averaged(self.config.correction, self.correction, self.flat.gradient)
        return sums.loss, clipping.transposed(mean.mul_(diagonal))

    def _along(
        self, v: Float[Tensor, " P"], phi: Float[Tensor, " P"], logits: Steps, share: Share
    ) -> Steps:
        """<v, grad f_i(phi)> of this rank's steps; the weights are left as they were."""
        reached = self.flat.values.detach().clone()

        def logits_at(distance: float) -> Steps:
            self.flat.assign_along(phi, v, distance)
            return self.passes.logits(share)

        try:
            derivative, self.correction.stride = directional_derivative(
                logits,
                logits_at,
                phi,
                v,
                self.correction.stride,
                PRECISION[self.scorer.compute_dtype],
                self.ranks,
                self.flat.inner,
            )
        except FloatingPointError as error:
            raise TrainingDataError(
                f"arm {self.arm.name!r}: no correction at step {self.step}: {error}; the last "
                "checkpoint is kept. Lower training.optimizer.learning_rate"
            ) from error
        self.flat.assign(reached)
        return derivative.cpu()

    def _means(self) -> tuple[float | None, float | None]:
        """Mean free label and weight over all ranks; None where an arm has none."""
        labels, weights, count = self.ranks.sum(self.table.free_sums()).tolist()
        return (labels / count, weights / count) if count else (None, None)
