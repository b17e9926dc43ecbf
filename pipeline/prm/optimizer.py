"""The optimizer of a training: its rate, its step, and how its step depends on the gradient."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.config import OptimizerConfig
from pipeline.prm import hypergradient as hyper
from pipeline.prm.flat_parameters import FlatParameters

ADAM_SETTLES = 5
"""Steps. Adam's first updates are little more than the signs of the gradient: how they depend on
its size is rounding and, for weights whose gradients are tiny, too curved for any difference."""


class Optimizer:
    """AdamW or SGD of the flat weights; elementwise, so that a part of them is as good as all."""

    def __init__(self, config: OptimizerConfig, flat: FlatParameters) -> None:
        kinds = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
        self._config = config
        self._flat = flat
        self.torch = kinds[config.kind](
            [flat.values], config.learning_rate, weight_decay=config.weight_decay
        )

    def step(self, rate: float) -> None:
        """Update the weights by `flat.gradient`, as it is."""
        self.torch.param_groups[0]["lr"] = rate
        self.torch.step()
        self._flat.apply_step()

    def is_settled(self, step: int) -> bool:
        """Whether labels may be corrected through the update of this step, counted from 0."""
        return self._config.kind == "sgd" or step >= ADAM_SETTLES

    def update_diagonal(self) -> Float[Tensor, " P"]:
        """D = dupdate/dgradient of the step just made, by what `flat.gradient` still is."""
        if self._config.kind == "sgd":
            return torch.ones_like(self._flat.gradient)
        state = self.torch.state[self._flat.values]
        group = self.torch.param_groups[0]
        return hyper.adamw_diagonal(
            self._flat.gradient,
            state["exp_avg"],
            state["exp_avg_sq"],
            int(state["step"]),
            group["betas"],
            group["eps"],
        )

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint: moments as whole vectors, the step count as a scalar; empty before the
        first step, and for SGD. All ranks must ask together."""
        mine = self.torch.state[self._flat.values]
        return {
            name: self._flat.whole(value) if value.ndim else value for name, value in mine.items()
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over this rank's part of a checkpoint."""
        self.torch.state[self._flat.values] = {
            name: self._flat.part(value) if value.ndim else value.clone()
            for name, value in state.items()
        }


def learning_rate(config: OptimizerConfig, step: int, total: int) -> float:
    """Linear warm-up over a fraction of the steps, then half a cosine to zero."""
    warmup = config.warmup * total
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(total - warmup, 1.0)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
