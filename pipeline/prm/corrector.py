"""A small network that corrects labels by what is known of a step.

    y_i = clip(y_i^0 + delta_i, 0, 1),   delta_i = tanh(g_psi(z_i)) - c,
    z_i = (passed/trials, trials, position, final label, the problem's pass rate, current score)

It starts at delta = 0, that is, at the evidence. It is meta-trained by the hypergradient of the
labels it gives, through the chain rule:

    dL_meta/dpsi = (lr/N) sum_i <D grad L_meta, grad f_i> dy_i/dpsi

with h~_i + anchor (y_i - y_i^0) in the place of the raw hypergradient, as for free labels
(`correction.py`). c is the mean of tanh(g) over the batch last corrected: one network moves all
labels at once and would otherwise drift in common mode to all-0 or all-1. A label clipped at 0 or 1
passes on what pulls it back in and nothing that pushes it further out. The score in z counts as a
constant.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pipeline.config import CorrectionConfig
from pipeline.prm.correction import normalised
from pipeline.prm.label_table import LabelTable
from pipeline.prm.parallel import Ranks
from pipeline.records import Example

HIDDEN = 16
MANY_TRIALS = 16
"""The number of rollouts that is 1 on the network's scale."""


class Corrector:
    """The same network on every rank; it lives on the CPU, as the label table does."""

    def __init__(
        self,
        config: CorrectionConfig,
        table: LabelTable,
        known: Float[Tensor, "N 5"],
        seed: int,
        ranks: Ranks,
    ) -> None:
        """`known`: `step_features` of the table's slots."""
        self._config = config
        self._table = table
        self._known = known
        self._ranks = ranks
        random = torch.Generator().manual_seed(seed)
        hidden, last = nn.Linear(known.shape[1] + 1, HIDDEN), nn.Linear(HIDDEN, 1, bias=False)
        nn.init.normal_(hidden.weight, std=hidden.in_features**-0.5, generator=random)
        nn.init.zeros_(hidden.bias)
        nn.init.zeros_(last.weight)
        self._network = nn.Sequential(hidden, nn.Tanh(), last, nn.Tanh())
        self._optimizer = torch.optim.Adam(self._network.parameters(), config.corrector_rate)
        self._offset = torch.zeros(())

    @torch.no_grad()
    def relabel(self, slots: Int[Tensor, " S"], logits: Float[Tensor, " S"]) -> None:
        """Give the free labels among `slots` their value under the current scores."""
        free = self._table.free[slots]
        slots = slots[free]
        shift = self._shift(slots, logits.cpu()[free]) - self._offset
        self._table.update(slots, (self._table.initial[slots] + shift).clamp(0.0, 1.0))

    def learn(
        self,
        slots: Int[Tensor, " S"],
        logits: Float[Tensor, " S"],
        hypergradient: Float[Tensor, " S"],
    ) -> None:
        """One step of psi, given dL_meta/dy at `slots`; all ranks learn the same."""
        free = self._table.free[slots]
        slots, logits = slots[free], logits.cpu()[free]
        direction = normalised(self._config, hypergradient[free], self._ranks)
        if direction is None:
            return
        shift = self._shift(slots, logits)
        start = self._table.initial[slots]
        wanted = start + shift.detach() - self._offset
        labels = wanted.clamp(0.0, 1.0)
        pull = direction + self._config.anchor * (labels - start)
        pull = torch.where(_pushed_out(wanted, pull), 0.0, pull)
        sums = self._ranks.sum(
            torch.stack([pull.sum(), torch.tensor(float(len(slots)))]).double()
        ).tolist()
        # The offset is a mean of the same outputs, so a pull common to all of them moves nothing.
        pull = pull - sums[0] / sums[1]
        self._optimizer.zero_grad(set_to_none=False)
        (pull * shift).sum().div(sums[1]).backward()
        for parameter in self._network.parameters():
            assert parameter.grad is not None
            self._ranks.sum(parameter.grad)
        self._optimizer.step()
        with torch.no_grad():
            total = self._ranks.sum(self._shift(slots, logits).double().sum())
            self._offset = (total / sums[1]).float()

    def state(self) -> dict[str, Any]:
        """For a checkpoint; the same on every rank."""
        return {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "offset": self._offset,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._offset = state["offset"].cpu()

    def _shift(self, slots: Int[Tensor, " S"], logits: Float[Tensor, " S"]) -> Float[Tensor, " S"]:
        known = torch.cat([self._known[slots], 2 * logits.sigmoid()[:, None] - 1], dim=1)
        return self._network(known).squeeze(-1)


def _pushed_out(wanted: Float[Tensor, " S"], pull: Float[Tensor, " S"]) -> Bool[Tensor, " S"]:
    """Whether descent along `pull` would move a label that is at or past an end further out."""
    return ((wanted <= 0.0) & (pull > 0.0)) | ((wanted >= 1.0) & (pull < 0.0))


def step_features(examples: Sequence[Example], owned: Iterable[int]) -> Float[Tensor, "N 5"]:
    """What is known of every step of the owned examples, in [-1, 1], in the order of their slots.
    The pass rate is over all of a problem's solutions. Without rollouts the rate is 1/2."""
    solutions = Counter(example.problem_id for example in examples)
    passing = Counter(example.problem_id for example in examples if example.final_label)
    rows = [
        (
            passed / trials if trials else 0.5,
            min(trials / MANY_TRIALS, 1.0),
            (step + 1) / len(example.step_ids),
            float(example.final_label),
            passing[example.problem_id] / solutions[example.problem_id],
        )
        for example in (examples[index] for index in owned)
        for step, (passed, trials) in enumerate(zip(example.passed, example.trials, strict=True))
    ]
    return 2 * torch.tensor(rows).reshape(-1, 5) - 1
