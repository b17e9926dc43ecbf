"""What the sampling and labelling of a run leave on disk, and what its driver holds of it.

With P_r problems of role r, k problems to a part and w waves of rollouts,

    parts:   sum_r ceil(P_r/k) of each of problems, solutions, verdicts and examples, and 2w more of
             each part whose role is labelled (completions and rollouts)
    shards:  solutions x (bytes of a solution, its verdict and its example)
             + rollouts x (bytes of a completion and its rollout)
    driver:  parts x (bytes that it keeps of a part's footer)

Truths, models and the problems themselves are not counted; nor is what Python and Ray take of the
driver's memory, which does not grow with the rows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.config import PipelineConfig
from pipeline.early_stop import waves
from pipeline.records import Role


@dataclass(frozen=True, slots=True)
class Footprint:
    parts: int
    shard_bytes: float
    driver_bytes: float


def footprint(
    config: PipelineConfig,
    problems_by_role: Mapping[str, int],
    solutions: float,
    rollouts: float,
    *,
    solution_bytes: float,
    rollout_bytes: float,
    part_bytes: float,
) -> Footprint:
    """Of so many solutions and rollouts; `part_bytes` are those in the driver."""
    size = config.sampling.problems_per_part
    parts = 0
    for role, count in problems_by_role.items():
        labelled = Role(role) in config.rollouts.roles
        asked = len(waves(config.rollouts.samples, config.rollouts.early_stop))
        parts += math.ceil(count / size) * (4 + 2 * asked * labelled)
    return Footprint(
        parts=parts,
        shard_bytes=solutions * solution_bytes + rollouts * rollout_bytes,
        driver_bytes=parts * part_bytes,
    )
