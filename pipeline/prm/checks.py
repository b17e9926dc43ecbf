"""What a training refuses to go on with: every check raises TrainingDataError, on all ranks."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.prm.checkpoint import ArmState
from pipeline.prm.data import TrainingDataError
from pipeline.prm.flat_parameters import Layout
from pipeline.prm.parallel import Ranks
from pipeline.prm.passes import Accumulated, Share, Steps
from pipeline.records import Example

SHOWN = 4
"""So many solutions are named."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a training is."""

    arm: str
    step: int
    epoch: int


def check_finite(
    place: Place, what: str, sums: Accumulated, norm: float, share: Share, ranks: Ranks
) -> None:
    """Refuse a loss or gradient norm, both over all ranks, that is infinite or NaN; names the
    solutions with such a logit or, where there is none, the whole batch."""
    if math.isfinite(sums.loss) and math.isfinite(norm):
        return
    broken = [name for mine in ranks.gather(_broken(share, sums.logits)) for name in mine]
    batch = [each.solution_id for each in share.solutions]
    names = broken or [name for mine in ranks.gather(batch) for name in mine]
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    raise TrainingDataError(
        f"arm {place.arm!r}: {what} {sums.loss}, gradient norm {norm} at step {place.step} (epoch "
        f"{place.epoch}, {len(names)} solutions: {shown}); the last checkpoint is kept. Lower "
        "training.optimizer.learning_rate, or look at these solutions"
    )


def check_same(arm: str, state: ArmState, layout: Layout, examples: Sequence[Example]) -> None:
    """Refuse a checkpoint of another architecture or label set."""
    mend = "train into another directory, or delete the checkpoint"
    for found, wanted in itertools.zip_longest(state.layout, layout):
        if found != wanted:
            raise TrainingDataError(
                f"arm {arm!r}: the checkpoint is of another model: its trained weights hold "
                f"{_named(found)} where this model has {_named(wanted)}: {mend}"
            )
    known = {step for example in examples for step in example.step_ids}
    strange = [step for step in state.labels.step_ids if step not in known]
    if strange:
        raise TrainingDataError(
            f"arm {arm!r}: the checkpoint is of other labels: {len(strange)} of its "
            f"{len(state.labels.step_ids)} corrected steps are in no training example, "
            f"{strange[0]} for one: {mend}"
        )


def _named(weight: tuple[str, tuple[int, ...]] | None) -> str:
    return "no more" if weight is None else f"{weight[0]} {list(weight[1])}"


def _broken(share: Share, logits: Steps) -> list[str]:
    """The solutions with a logit that is not finite."""
    counts = [len(solution.step_positions) for solution in share.solutions]
    return [
        solution.solution_id
        for solution, of_solution in zip(share.solutions, logits.split(counts), strict=True)
        if not bool(of_solution.isfinite().all())
    ]
