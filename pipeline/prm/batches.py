"""Which solutions meet in a batch.

Training: examples, sorted by length, are dealt to `batch_size` lanes like cards, and a batch takes
one example of every lane. A rank owns the lanes l with l = rank (mod workers), hence the same
examples and their labels from the first epoch to the last, and every rank has an equal share of
every batch. Lanes depend on the lengths alone and their order on (seed, epoch) alone, so all arms,
and any number of workers, see the same batches.

Lanes are shuffled only among neighbours in length (pools of a few batches), then whole batches are
shuffled: little padding, and no order by length over an epoch. A share of a batch never spans more
than its pool, so pools are as large as mixing asks for and as small as `MAX_PADDING` allows,
whatever the number of workers.
"""

from collections.abc import Sequence

import numpy as np

POOLS = (8, 4, 2, 1)  # batches whose examples mix; larger mixes better and pads more
MAX_PADDING = 0.10  # of all tokens


class BatchPlan:
    """The batches of every epoch over examples of the given lengths."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
        self._lanes = [order[lane::batch_size] for lane in range(batch_size)]
        self._lengths = lengths
        self._seed = seed
        self._pool = _pool([lengths[index] for index in order], batch_size)
        self.steps_per_epoch = -(-len(lengths) // batch_size)

    def owned(self, rank: int, world: int) -> list[int]:
        """The examples of one rank, in every epoch."""
        return sorted(index for lane in self._lanes[rank::world] for index in lane)

    def epoch(self, epoch: int, rank: int = 0, world: int = 1) -> list[list[int]]:
        """One rank's share of every batch, longest example first. Shares differ by one example at
        most; one is empty where the epoch's one incomplete batch has fewer examples than ranks."""
        depth = self.steps_per_epoch
        batches: list[list[int]] = [[] for _ in range(depth)]
        shared = np.random.default_rng([self._seed, epoch])
        last_pool = (depth - 1) // self._pool * self._pool
        incomplete = int(shared.integers(last_pool, depth))
        for lane_index in range(rank, len(self._lanes), world):
            rng = np.random.default_rng([self._seed, epoch, lane_index])
            lane = self._lanes[lane_index]
            for start in range(0, depth, self._pool):
                slots = list(range(start, min(start + self._pool, depth)))
                pool = lane[start : start + self._pool]
                if len(pool) < len(slots):
                    slots.remove(incomplete)
                for slot, index in zip(rng.permutation(slots), pool, strict=True):
                    batches[slot].append(index)
        for batch in batches:
            batch.sort(key=lambda index: (-self._lengths[index], index))
        return [batches[slot] for slot in shared.permutation(depth)]


def _pool(lengths: Sequence[int], batch_size: int) -> int:
    """The largest pool with which batches of these sorted lengths are padded by less than
    MAX_PADDING even where every share holds the longest example of its pool."""
    for pool in POOLS:
        size = pool * batch_size
        padded = sum(
            len(part) * part[-1]
            for part in (lengths[start : start + size] for start in range(0, len(lengths), size))
        )
        if 1 - sum(lengths) / max(padded, 1) < MAX_PADDING:
            return pool
    return POOLS[-1]


def draw(count: int, size: int, seed: int, turn: int) -> list[int]:
    """`size` of `count` indices, for the turn-th draw: passes over all, each shuffled anew."""
    size = min(size, count)
    wanted = range(turn * size, (turn + 1) * size)
    passes = {
        number: np.random.default_rng([seed, number]).permutation(count)
        for number in {position // count for position in wanted}
    }
    return [int(passes[position // count][position % count]) for position in wanted]


def by_token_budget(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """All indices in batches of like length, at most `budget` padded tokens each (one sequence at
    least)."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
