"""The trained weights, and their gradient, as two flat vectors.

Bi-level training adds, scales and takes inner products of whole weight vectors: one tensor each
makes these single operations, an optimizer step a few kernels, and the sum over ranks one call.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn


class FlatParameters:
    """Views of all parameters that require a gradient; writing to one side shows on the other."""

    values: Float[nn.Parameter, " P"]
    gradient: Float[Tensor, " P"]

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        """Raises ValueError for parameters that are not float32 on one device."""
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        if len({(p.dtype, p.device) for p in trained}) != 1 or trained[0].dtype != torch.float32:
            raise ValueError("the trained parameters must be float32 and on one device")
        self.values = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in trained]))
        self.gradient = torch.zeros_like(self.values)
        self.values.grad = self.gradient
        offset = 0
        for parameter in trained:
            section = slice(offset, offset + parameter.numel())
            # Backward adds into a gradient that is there already, hence into the flat vector.
            parameter.grad = self.gradient[section].view_as(parameter)
            parameter.data = self.values.data[section].view_as(parameter)
            offset += parameter.numel()

    def assign(self, values: Float[Tensor, " P"]) -> None:
        self.values.data.copy_(values)
