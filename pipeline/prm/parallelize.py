"""A PRM put together and spread over the ranks of a job; the order matters.

1. Adapters (LoRA) first: they decide what is trained, hence what is summed over ranks, kept in a
   checkpoint and perturbed by the hypergradient.
2. Activation checkpointing next, on the blocks themselves: with it on, a block that FSDP gathers
   for its backward pass is gathered once for recomputation and gradient alike.
3. The ranks last, around what is then there:
   `ddp`   a replica on every rank; flat gradients are added up in one call (`parallel.py` says why
           this is not DistributedDataParallel)
   `fsdp`  FSDP2's `fully_shard`: every block, then the head, then the rest is one group whose
           weights, gradients and optimizer state are cut over ranks and gathered when it is used.

A model to be sharded is built in host memory, where it fits once for each rank of a node, and moved
to the device block by block: the device holds its shards and one whole block. Groups are cut up
again after every forward pass, the outermost too, because the hypergradient runs
forward passes on different weights.

Blocks are gathered and computed in the compute dtype, gradients reduced in float32; the head stays
float32 throughout. Sharded ranks gather together, so they must run equally many passes
(`passes.py`).
"""

from functools import partial

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from pipeline.config import Parallel, TrainingConfig
from pipeline.prm.flat_parameters import FlatParameters
from pipeline.prm.model import StepScorer, build_scorer
from pipeline.prm.parallel import CPU, Ranks
from pipeline.prm.sharded_parameters import ShardedParameters


def parallelize(
    config: TrainingConfig, ranks: Ranks, device: torch.device
) -> tuple[StepScorer, FlatParameters]:
    """A PRM to train on this rank, and its trained weights; the same on any number of ranks.

    With `fsdp` the default process group must span the ranks. Raises ValueError for an architecture
    that names no blocks to shard.
    """
    if config.parallel is Parallel.DDP or ranks.world == 1:
        scorer, _ = build_scorer(config.model, config.seed, device)
        return scorer, FlatParameters(scorer, ranks)
    scorer, _ = build_scorer(config.model, config.seed, CPU)
    _shard(scorer, ranks, device)
    return scorer, ShardedParameters(scorer, ranks)


def _shard(scorer: StepScorer, ranks: Ranks, device: torch.device) -> None:
    compute_dtype = None if scorer.compute_dtype is torch.float32 else scorer.compute_dtype
    shard = partial(
        fully_shard,
        mesh=init_device_mesh(device.type, (ranks.world,)),
        reshard_after_forward=True,
    )
    lowered = MixedPrecisionPolicy(
        param_dtype=compute_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for block in _blocks(scorer):
        shard(block, mp_policy=lowered)
    shard(scorer.head, mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False))
    shard(scorer, mp_policy=lowered)
    for module in scorer.modules():
        if isinstance(module, FSDPModule):
            # Sums, not means: ranks have unequally many labels. Gloo knows no scaled sum.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def _blocks(scorer: StepScorer) -> list[torch.nn.Module]:
    """The decoder layers: what transformers itself never splits over devices."""
    names = set(scorer.classifier._no_split_modules or ())
    found = [module for module in scorer.modules() if type(module).__name__ in names]
    if not found:
        raise ValueError(
            f"{type(scorer.classifier).__name__} names no blocks to shard: use training.parallel "
            "'ddp'"
        )
    return found
