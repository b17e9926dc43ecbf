"""Step labels as learnable variables.

Every step of the solutions that a rank owns has one slot. The last step of a solution holds its
final label, clean and fixed; the intermediate ones start at what `Targets` makes of the rollouts
and are free to be corrected; a step without evidence has no label (NaN) and is not trained.
Updates are sparse: a label that was in no corrected batch has not moved, whatever the optimizer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pipeline.config import Targets
from pipeline.records import Example, LabelEstimate


def initial_label(
    targets: Targets, passed: int, trials: int, final_label: bool, truth: bool | None
) -> float | None:
    """The label of an intermediate step before any correction; None where there is none.

    Raises ValueError for targets `true` without a known truth.
    """
    rate = passed / trials if trials else None
    match targets:
        case Targets.FINAL:
            return None
        case Targets.SOFT:
            return rate
        case Targets.HARD:
            return None if rate is None else float(passed > 0)
        case Targets.PROVEN:
            return 1.0 if final_label else rate
        case Targets.TRUE:
            if truth is None:
                raise ValueError("targets 'true' need the known truth of every step")
            return float(truth)


def initial_labels(example: Example, targets: Targets) -> list[float | None]:
    """The labels of all steps of a solution, the clean one last."""
    truths = example.step_truth or (None,) * len(example.step_ids)
    labels = [
        initial_label(targets, passed, trials, example.final_label, truth)
        for passed, trials, truth in zip(example.passed, example.trials, truths, strict=True)
    ]
    return [*labels[:-1], float(example.final_label)] if labels else []


@dataclass(frozen=True, slots=True)
class CorrectedLabels:
    """The labels that have moved, by step: what a checkpoint keeps. It names no rank, so that it
    may be loaded by another number of workers."""

    step_ids: tuple[str, ...]
    values: tuple[float, ...]
    updates: tuple[int, ...]


class LabelTable:
    """The labels of the solutions that one rank owns."""

    initial: Float[Tensor, " N"]
    values: Float[Tensor, " N"]
    updates: Int[Tensor, " N"]
    free: Bool[Tensor, " N"]

    def __init__(self, examples: Sequence[Example], owned: Iterable[int], targets: Targets) -> None:
        """`owned` indexes `examples`; the other methods speak in the same indices."""
        self.step_ids: list[str] = []
        self._first_slot: dict[int, int] = {}
        labels: list[float] = []
        free: list[bool] = []
        for index in owned:
            example = examples[index]
            self._first_slot[index] = len(labels)
            self.step_ids.extend(example.step_ids)
            for step, label in enumerate(initial_labels(example, targets), start=1):
                labels.append(np.nan if label is None else label)
                free.append(label is not None and step < len(example.step_ids))
        self._first_slot[-1] = len(labels)
        self._slot_count = {
            index: len(examples[index].step_ids) for index in self._first_slot if index >= 0
        }
        self.initial = torch.tensor(labels, dtype=torch.float32)
        self.values = self.initial.clone()
        self.updates = torch.zeros(len(labels), dtype=torch.long)
        self.free = torch.tensor(free, dtype=torch.bool)

    def slots(self, indices: Sequence[int]) -> Int[Tensor, " S"]:
        """The slots of all steps of the given examples, in the order of their TokenBatch."""
        ranges = [
            torch.arange(first, first + self._slot_count[index])
            for index in indices
            for first in [self._first_slot[index]]
        ]
        return torch.cat(ranges) if ranges else torch.zeros(0, dtype=torch.long)

    def update(self, slots: Int[Tensor, " S"], values: Float[Tensor, " S"]) -> None:
        """Set labels. Raises ValueError for one that is fixed or that leaves [0, 1]."""
        if not bool(self.free[slots].all()):
            raise ValueError("only labels of intermediate steps with evidence can be corrected")
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise ValueError("labels must stay in [0, 1]")
        self.values[slots] = values
        self.updates[slots] += 1

    def free_sum_and_count(self) -> Float[Tensor, "2"]:
        """Sum and number of the free labels; their means over all ranks guard against drift."""
        return torch.stack([self.values[self.free].sum(), self.free.sum().float()])

    def corrected(self) -> CorrectedLabels:
        (slots,) = self.updates.nonzero(as_tuple=True)
        return CorrectedLabels(
            tuple(self.step_ids[slot] for slot in slots.tolist()),
            tuple(self.values[slots].tolist()),
            tuple(self.updates[slots].tolist()),
        )

    def restore(self, corrected: CorrectedLabels) -> None:
        """Take over those labels of a checkpoint that this rank owns."""
        slot_of = {step_id: slot for slot, step_id in enumerate(self.step_ids)}
        rows = zip(corrected.step_ids, corrected.values, corrected.updates, strict=True)
        for step_id, value, updates in rows:
            slot = slot_of.get(step_id)
            if slot is not None:
                self.values[slot] = value
                self.updates[slot] = updates


def label_estimates(
    examples: Sequence[Example], targets: Targets, corrected: CorrectedLabels
) -> list[LabelEstimate]:
    """One row per labelled intermediate step, corrected or not."""
    moved = {
        step_id: (value, updates)
        for step_id, value, updates in zip(
            corrected.step_ids, corrected.values, corrected.updates, strict=True
        )
    }
    return [
        LabelEstimate(step_id, label, *moved.get(step_id, (label, 0)))
        for example in examples
        for step_id, label in zip(
            example.step_ids[:-1], initial_labels(example, targets)[:-1], strict=True
        )
        if label is not None
    ]
