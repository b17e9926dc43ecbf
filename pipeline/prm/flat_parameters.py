"""The trained weights, and their gradient, as two flat vectors.

Bi-level training adds, scales and takes inner products of whole weight vectors: one tensor each
makes these single operations, an optimizer step a few kernels, and the sum over ranks one call.
Here every rank holds all of them; `sharded_parameters.py` has the same with a part on each rank.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.prm.parallel import WHOLE, InnerProduct, Ranks

Layout = tuple[tuple[str, tuple[int, ...]], ...]
"""Name and whole shape of every trained parameter, in the order of the vectors."""


class FlatParameters:
    """Views of all parameters that require a gradient; writing to one side shows on the other."""

    values: Float[nn.Parameter, " P"]
    gradient: Float[Tensor, " P"]
    inner: InnerProduct
    layout: Layout

    def __init__(self, module: nn.Module, ranks: Ranks | None = None) -> None:
        """Ranks start with the values of the first. Raises ValueError for parameters that are not
        float32 on one device."""
        named = trained_parameters(module)
        self.layout = tuple((name, tuple(p.shape)) for name, p in named.items())
        self.inner = WHOLE
        self._ranks = ranks or Ranks()
        self.values = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in named.values()]))
        self.gradient = torch.zeros_like(self.values)
        self.values.grad = self.gradient
        offset = 0
        for parameter in named.values():
            section = slice(offset, offset + parameter.numel())
            # Backward adds into a gradient that is there already, hence into the flat vector.
            parameter.grad = self.gradient[section].view_as(parameter)
            parameter.data = self.values.data[section].view_as(parameter)
            offset += parameter.numel()
        self._ranks.same_as_first(self.values.data)

    def assign(self, values: Float[Tensor, " P"]) -> None:
        """Set the weights."""
        self.values.data.copy_(values)
        self.apply_step()

    def assign_along(
        self, start: Float[Tensor, " P"], direction: Float[Tensor, " P"], distance: float
    ) -> None:
        """Set the weights to start + distance * direction, with no vector but these."""
        self.values.data.copy_(direction).mul_(distance).add_(start)
        self.apply_step()

    def apply_step(self) -> None:
        """Make the model see what has been written to `values`."""

    def sum_gradient(self) -> None:
        """After the last backward pass: make `gradient` the sum of those of all ranks."""
        self._ranks.sum(self.gradient)

    def whole(self, vector: Float[Tensor, " P"]) -> Float[Tensor, " W"]:
        """A vector over the trained weights as a checkpoint keeps it: on any number of ranks the
        same. All ranks must call this together; only what rank 0 gets counts."""
        return vector

    def part(self, whole: Float[Tensor, " W"]) -> Float[Tensor, " P"]:
        """This rank's part of such a vector, as a copy of its own."""
        return whole.to(self.values.device, copy=True)


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Those that require a gradient, by name. Raises ValueError unless they are float32 on one
    device."""
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if {p.dtype for p in named.values()} != {torch.float32}:
        raise ValueError("the trained parameters must be float32")
    if len({p.device for p in named.values()}) != 1:
        raise ValueError("the trained parameters must be on one device")
    return named


def pieces(layout: Layout, whole: Float[Tensor, " W"]) -> dict[str, Tensor]:
    """The parameters in a whole vector, by name."""
    sizes = [torch.Size(shape).numel() for _, shape in layout]
    return {
        name: piece.view(shape)
        for (name, shape), piece in zip(layout, whole.split(sizes), strict=True)
    }
