import itertools
import random

import pytest

from pipeline.prm.batches import BatchPlan, by_token_budget, draw

LENGTHS = [random.Random(index).randint(20, 400) for index in range(1000)]


def whole_batches(plan: BatchPlan, epoch: int, world: int) -> list[set[int]]:
    shares = [plan.epoch(epoch, rank, world) for rank in range(world)]
    return [set().union(*map(set, parts)) for parts in zip(*shares, strict=True)]


@pytest.mark.parametrize("count", [1, 5, 31, 32, 33, 1000])
def test_an_epoch_shows_every_example_once(count: int) -> None:
    plan = BatchPlan(LENGTHS[:count], batch_size=32, seed=1)
    for epoch in range(2):
        seen = list(itertools.chain(*plan.epoch(epoch)))
        assert sorted(seen) == list(range(count))


@pytest.mark.parametrize("world", [2, 4])
def test_any_number_of_workers_sees_the_same_batches(world: int) -> None:
    plan = BatchPlan(LENGTHS, batch_size=32, seed=1)
    assert whole_batches(plan, 3, world) == whole_batches(plan, 3, 1)


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    plan, again = (BatchPlan(LENGTHS, batch_size=32, seed=1) for _ in range(2))
    assert plan.epoch(0) == again.epoch(0)
    assert plan.epoch(0) != plan.epoch(1)
    assert plan.epoch(0) != BatchPlan(LENGTHS, batch_size=32, seed=2).epoch(0)


def test_a_rank_meets_only_examples_that_it_owns() -> None:
    plan = BatchPlan(LENGTHS, batch_size=32, seed=1)
    for rank, epoch in itertools.product(range(2), range(3)):
        seen = sorted(itertools.chain(*plan.epoch(epoch, rank, 2)))
        assert seen == plan.owned(rank, 2)


def test_ranks_share_every_batch_evenly() -> None:
    plan = BatchPlan(LENGTHS, batch_size=32, seed=1)
    for first, second in zip(plan.epoch(0, 0, 2), plan.epoch(0, 1, 2), strict=True):
        assert abs(len(first) - len(second)) <= 1


def test_padding_stays_under_ten_percent() -> None:
    plan = BatchPlan(LENGTHS, batch_size=32, seed=1)
    real = padded = 0
    for batch in plan.epoch(0):
        for start in range(0, len(batch), 8):
            lengths = [LENGTHS[index] for index in batch[start : start + 8]]
            real += sum(lengths)
            padded += max(lengths) * len(lengths)
    assert 1 - real / padded < 0.10


def test_draws_use_all_examples_evenly_and_differ_from_turn_to_turn() -> None:
    drawn = [draw(10, 4, seed=0, turn=turn) for turn in range(5)]
    assert sorted(itertools.chain(*drawn)) == sorted([*range(10), *range(10)])
    assert draw(10, 4, seed=0, turn=3) == drawn[3]
    assert sorted(draw(3, 100, seed=0, turn=1)) == [0, 1, 2]


def test_scoring_batches_keep_the_token_budget_and_lose_nothing() -> None:
    batches = by_token_budget(LENGTHS, 2000)
    assert sorted(itertools.chain(*batches)) == list(range(1000))
    assert all(len(b) * max(LENGTHS[i] for i in b) <= 2000 for b in batches)
    assert by_token_budget([5000], 2000) == [[0]]
    assert by_token_budget([], 2000) == []
