"""Where the actors of a run may be placed: what they ask of Ray, against what nodes offer."""

from collections.abc import Iterable, Mapping

from pipeline.config import PipelineConfig, VLLMPolicy


def actors_of(config: PipelineConfig) -> dict[str, dict[str, float]]:
    """What each kind of actor asks for, as `pipeline.flow` and the trainer ask for it."""
    gpu = 1 if config.training.use_gpu else 0
    completer = config.rollouts.policy or config.policy
    return {
        "who samples": {"CPU": config.sampling.pool.cpus, "GPU": _gpus(config.policy)},
        "who completes": {"CPU": config.rollouts.pool.cpus, "GPU": _gpus(completer)},
        "a judge of programs": {"docker": 1},
        "a training worker": {"CPU": config.training.cpus_per_worker, "GPU": gpu},
    }


def homeless(config: PipelineConfig, nodes: Iterable[Mapping[str, float]]) -> list[str]:
    """The actors that no node is large enough for."""
    offers = list(nodes)
    return [
        actor
        for actor, needs in actors_of(config).items()
        if not any(
            all(amount <= offer.get(name, 0) for name, amount in needs.items()) for offer in offers
        )
    ]


def _gpus(policy: object) -> float:
    return policy.gpus if isinstance(policy, VLLMPolicy) else 0
