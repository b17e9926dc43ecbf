"""Data parallelism as exact sums over ranks.

Gradients are sums over the labels of a batch, added up over micro-batches and then over ranks, and
divided by the global count. DistributedDataParallel averages ranks as if they had equally many
labels and needs every rank to run equally many backward passes; here ranks may differ in both, so
that any number of workers computes the gradient of the same global batch.
"""

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

T = TypeVar("T")

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among the workers of a job."""

    rank: int = 0
    world: int = 1
    device: torch.device = CPU
    """Where the process group can add: NCCL knows GPUs alone."""

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Add `tensor` up over all ranks, in place; the same result everywhere."""
        if self.world > 1:
            there = tensor.to(self.device)
            dist.all_reduce(there)
            if there is not tensor:
                tensor.copy_(there)
        return tensor

    def most(self, count: int) -> int:
        """The largest `count` of any rank."""
        return max(self.gather(count))

    def gather(self, value: T) -> list[T]:
        """Every rank's value, by rank."""
        if self.world == 1:
            return [value]
        values: list[T | None] = [None] * self.world
        dist.all_gather_object(values, value)
        return values  # pyright: ignore[reportReturnType]  (all are filled in)

    def same_as_first(self, tensor: torch.Tensor) -> None:
        """Overwrite `tensor` with that of rank 0."""
        if self.world > 1:
            dist.broadcast(tensor, src=0)


@dataclass(frozen=True, slots=True)
class InnerProduct:
    """Of vectors over the trained weights, of which a rank holds all (`shards` None) or a part."""

    shards: Ranks | None = None

    def dot(self, a: Float[Tensor, " P"], b: Float[Tensor, " P"]) -> Float[Tensor, ""]:
        product = torch.dot(a, b)
        return product if self.shards is None else self.shards.sum(product)

    def norm(self, a: Float[Tensor, " P"]) -> float:
        norm = a.norm()
        return float(norm if self.shards is None else self.shards.sum(norm.square()).sqrt())


WHOLE = InnerProduct()
"""Of vectors that every rank holds whole."""
