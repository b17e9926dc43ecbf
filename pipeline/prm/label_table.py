"""Step labels, and how much each counts, as learnable variables.

Every step of the solutions that a rank owns has one slot. The last step of a solution holds its
final label, clean and fixed; the intermediate ones start at what `Targets` makes of the rollouts
and are free to be corrected; a step without evidence has no label (NaN) and is not trained.
Updates are sparse: a label that was in no corrected batch has not moved, whatever the optimizer.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pipeline.config import Targets
from pipeline.records import Example, LabelEstimate

MOST_WEIGHT = 2.0
"""Weights are in [0, MOST_WEIGHT], so that 1, where they start, is in the middle."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of an intermediate step before any correction."""

    passed: int
    trials: int
    final_label: bool
    truth: bool | None = None
    belief: float | None = None
    """That it is right, says a PRM trained on other problems."""


def initial_label(targets: Targets, known: Evidence, strength: float = 0.0) -> float | None:
    """The label of an intermediate step before any correction; None where there is none.

    `strength`: the rollouts that a belief is worth (targets `crossfit`):
    (passed + strength * belief) / (trials + strength), the mean of a Beta posterior.
    Raises ValueError for targets `true` without a known truth and `crossfit` without a belief.
    """
    rate = known.passed / known.trials if known.trials else None
    match targets:
        case Targets.FINAL:
            return None
        case Targets.SOFT:
            return rate
        case Targets.HARD:
            return None if rate is None else float(known.passed > 0)
        case Targets.PROVEN:
            return 1.0 if known.final_label else rate
        case Targets.CROSSFIT:
            if known.belief is None:
                raise ValueError("targets 'crossfit' need a belief about every step")
            return (known.passed + strength * known.belief) / (known.trials + strength)
        case Targets.TRUE:
            if known.truth is None:
                raise ValueError("targets 'true' need the known truth of every step")
            return float(known.truth)


def initial_labels(
    example: Example,
    targets: Targets,
    beliefs: Mapping[str, float] | None = None,
    strength: float = 0.0,
) -> list[float | None]:
    """The labels of all steps of a solution, the clean one last; `beliefs` by step id."""
    truths = example.step_truth or (None,) * len(example.step_ids)
    labels = [
        initial_label(
            targets,
            Evidence(passed, trials, example.final_label, truth, (beliefs or {}).get(step_id)),
            strength,
        )
        for step_id, passed, trials, truth in zip(
            example.step_ids[:-1],
            example.passed[:-1],
            example.trials[:-1],
            truths[:-1],
            strict=True,
        )
    ]
    return [*labels, float(example.final_label)] if example.step_ids else []


@dataclass(frozen=True, slots=True)
class CorrectedLabels:
    """The labels that have moved, by step: what a checkpoint keeps. It names no rank, so that it
    may be loaded by another number of workers."""

    step_ids: tuple[str, ...]
    values: tuple[float, ...]
    updates: tuple[int, ...]
    weights: tuple[float, ...]

    @classmethod
    def joined(cls, parts: "Sequence[CorrectedLabels]") -> "CorrectedLabels":
        """The labels of all ranks."""
        return cls(
            tuple(step_id for part in parts for step_id in part.step_ids),
            tuple(value for part in parts for value in part.values),
            tuple(updates for part in parts for updates in part.updates),
            tuple(weight for part in parts for weight in part.weights),
        )


class LabelTable:
    """The labels of the solutions that one rank owns, and their weights."""

    initial: Float[Tensor, " N"]
    values: Float[Tensor, " N"]
    weights: Float[Tensor, " N"]
    updates: Int[Tensor, " N"]
    free: Bool[Tensor, " N"]

    def __init__(
        self,
        examples: Sequence[Example],
        labels: Sequence[Sequence[float | None]],
        owned: Iterable[int],
    ) -> None:
        """`labels` are those of `initial_labels`, by example; `owned` indexes both, and the other
        methods speak in the same indices. Raises ValueError for a label outside [0, 1] or NaN."""
        self.step_ids: list[str] = []
        self._first_slot: dict[int, int] = {}
        self._slot_count: dict[int, int] = {}
        flat: list[float] = []
        free: list[bool] = []
        for index in owned:
            step_ids = examples[index].step_ids
            self._first_slot[index], self._slot_count[index] = len(flat), len(step_ids)
            self.step_ids.extend(step_ids)
            for step, label in enumerate(labels[index], start=1):
                if label is not None and not 0.0 <= label <= 1.0:  # NaN fails this too
                    raise ValueError(
                        f"solution {examples[index].solution_id}: the label of step {step} is "
                        f"{label}, and labels are in [0, 1]"
                    )
                flat.append(np.nan if label is None else label)
                free.append(label is not None and step < len(step_ids))
        self.initial = torch.tensor(flat, dtype=torch.float32)
        self.values = self.initial.clone()
        self.weights = torch.ones(len(flat))
        self.updates = torch.zeros(len(flat), dtype=torch.long)
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
        self._set(self.values, slots, values, most=1.0)

    def reweigh(self, slots: Int[Tensor, " S"], weights: Float[Tensor, " S"]) -> None:
        """Set weights. Raises ValueError for a fixed step's, or one outside [0, MOST_WEIGHT]."""
        self._set(self.weights, slots, weights, most=MOST_WEIGHT)

    def _set(
        self, column: Tensor, slots: Int[Tensor, " S"], new: Float[Tensor, " S"], *, most: float
    ) -> None:
        if not bool(self.free[slots].all()):
            raise ValueError("only labels of intermediate steps with evidence can be corrected")
        allowed = (new >= 0) & (new <= most)  # NaN fails this too
        if not bool(allowed.all()):
            place = int((~allowed).nonzero()[0])
            raise ValueError(
                f"step {self.step_ids[int(slots[place])]}: {float(new[place])}, and labels must "
                f"stay in [0, 1], weights in [0, {MOST_WEIGHT:g}]"
            )
        column[slots] = new
        self.updates[slots] += 1

    def free_sums(self) -> Float[Tensor, "3"]:
        """Sums of the free labels and of their weights, and their number; the means over all ranks
        guard against drift."""
        columns = (self.values[self.free], self.weights[self.free], self.free[self.free])
        return torch.stack([column.sum(dtype=torch.float64) for column in columns])

    def corrected(self) -> CorrectedLabels:
        (slots,) = self.updates.nonzero(as_tuple=True)
        return CorrectedLabels(
            tuple(self.step_ids[slot] for slot in slots.tolist()),
            tuple(self.values[slots].tolist()),
            tuple(self.updates[slots].tolist()),
            tuple(self.weights[slots].tolist()),
        )

    def restore(self, corrected: CorrectedLabels) -> None:
        """Take over those labels of a checkpoint that this rank owns."""
        slot_of = {step_id: slot for slot, step_id in enumerate(self.step_ids)}
        for step_id, value, updates, weight in _rows(corrected):
            slot = slot_of.get(step_id)
            if slot is not None:
                self.values[slot] = value
                self.updates[slot] = updates
                self.weights[slot] = weight


def label_estimates(
    examples: Sequence[Example],
    labels: Sequence[Sequence[float | None]],
    corrected: CorrectedLabels,
) -> list[LabelEstimate]:
    """One row per labelled intermediate step, corrected or not."""
    moved = {step_id: (value, n, weight) for step_id, value, n, weight in _rows(corrected)}
    return [
        LabelEstimate(step_id, start, *moved.get(step_id, (start, 0, 1.0)))
        for example, of_example in zip(examples, labels, strict=True)
        for step_id, label in zip(example.step_ids[:-1], of_example[:-1], strict=True)
        if label is not None
        for start in [float(np.float32(label))]  # as in the table: a label at rest has not moved
    ]


def _rows(corrected: CorrectedLabels) -> Iterable[tuple[str, float, int, float]]:
    return zip(
        corrected.step_ids, corrected.values, corrected.updates, corrected.weights, strict=True
    )
