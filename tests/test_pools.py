"""Pools of actors that ask a policy."""

from ray.data import DataContext

from pipeline import flow
from pipeline.config import PoolConfig, VLLMPolicy


def test_enough_parts_wait_at_an_actor_for_ray_to_grow_its_pool() -> None:
    """Ray Data adds an actor beyond so many parts in flight for each that is worked on."""
    pool = flow._policy_pool(VLLMPolicy(model="m"), PoolConfig(max_size=2))["compute"]
    threshold = DataContext.get_current().autoscaling_config.actor_pool_util_upscaling_threshold
    at_once = pool.max_concurrent_calls_per_actor
    assert pool.max_tasks_in_flight_per_actor >= threshold * at_once
