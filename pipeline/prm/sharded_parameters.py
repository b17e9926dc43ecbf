"""The trained weights, and their gradient, as two flat vectors of which each rank holds a part.

`fully_shard` cuts every parameter along its first dimension. A rank's parts of all of them, one
behind the other, are its part of a flat vector: whatever is elementwise (an optimizer's update, its
derivative, a perturbation of the weights) is done on parts alone, and an inner product needs one
number summed over ranks. Gradients are summed by FSDP's own reduce-scatter.

The values are a copy of FSDP's shards, which it may lay out anew as it likes: 4 bytes for every
trained weight of the part.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from pipeline.prm.flat_parameters import FlatParameters, pieces, trained_parameters
from pipeline.prm.parallel import InnerProduct, Ranks


class ShardedParameters(FlatParameters):
    """The operations of `FlatParameters`, on a module that `fully_shard` has been applied to."""

    def __init__(self, module: nn.Module, ranks: Ranks) -> None:
        """`ranks`: those of the mesh that the module is sharded over."""
        named = trained_parameters(module)
        self._parameters: list[DTensor] = [_sharded(name, p) for name, p in named.items()]
        self.layout = tuple((name, tuple(p.shape)) for name, p in named.items())
        self.inner = InnerProduct(ranks)
        self._ranks = ranks
        self.values = nn.Parameter(torch.cat([p.reshape(-1) for p in self._local()]))
        self.gradient = torch.zeros_like(self.values)
        self.values.grad = self.gradient
        for parameter, piece in zip(self._parameters, self._split(self.gradient), strict=True):
            # Reduce-scatter adds into a gradient that is there already, hence into the flat vector.
            parameter.grad = _with_shards(parameter, piece)

    def apply_step(self) -> None:
        for shard, piece in zip(self._local(), self._split(self.values.data), strict=True):
            shard.copy_(piece)

    def sum_gradient(self) -> None:
        """FSDP has summed it."""

    def whole(self, vector: Float[Tensor, " P"]) -> Float[Tensor, " W"]:
        """One parameter after the other, so that no rank holds all on its device."""
        parts: list[Tensor] = []
        for parameter, piece in zip(self._parameters, self._split(vector.detach()), strict=True):
            gathered = _with_shards(parameter, piece).full_tensor()
            if self._ranks.rank == 0:
                parts.append(gathered.reshape(-1).cpu())
        return torch.cat(parts) if parts else torch.zeros(0)

    def part(self, whole: Float[Tensor, " W"]) -> Float[Tensor, " P"]:
        device = self.values.device
        parts = [
            # No source rank: every rank cuts its shard out of a whole of its own.
            distribute_tensor(
                piece.to(device), like.device_mesh, like.placements, src_data_rank=None
            )
            .to_local()
            .reshape(-1)
            for like, piece in zip(
                self._parameters, pieces(self.layout, whole).values(), strict=True
            )
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def _local(self) -> list[Tensor]:
        """This rank's shards, in place. FSDP may move them, so nobody keeps these."""
        return [parameter.to_local() for parameter in self._parameters]

    def _split(self, vector: Float[Tensor, " P"]) -> list[Tensor]:
        local = self._local()
        sizes = [shard.numel() for shard in local]
        return [p.view_as(s) for p, s in zip(vector.split(sizes), local, strict=True)]


def _sharded(name: str, parameter: nn.Parameter) -> DTensor:
    if not isinstance(parameter, DTensor):
        raise ValueError(f"parameter {name!r} is not sharded: fully_shard has not been applied")
    return parameter


def _with_shards(like: DTensor, piece: Tensor) -> DTensor:
    """A tensor of the shape and sharding of `like`, of which `piece` is this rank's shard."""
    return DTensor.from_local(
        piece, like.device_mesh, like.placements, run_check=False, shape=like.shape,
        stride=like.stride(),
    )  # fmt: skip
