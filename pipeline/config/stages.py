"""How much is sampled, rolled out, executed and evaluated, and by how many actors."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from pipeline.config.policies import PolicyConfig
from pipeline.config.section import Section
from pipeline.records import Role
from sandbox.protocol import MAX_MEMORY_MB, MIN_MEMORY_MB


class PoolConfig(Section):
    """A Ray actor pool that grows and shrinks between two sizes."""

    min_size: PositiveInt = 1
    max_size: PositiveInt = 1
    cpus: Annotated[float, Field(ge=0.0)] = 1.0
    """CPUs that one actor asks of Ray."""
    parts_in_flight: PositiveInt = 4
    """Parts that one actor works on at once."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_size > self.max_size:
            raise ValueError(f"min_size ({self.min_size}) is above max_size ({self.max_size})")
        return self


class SamplingConfig(Section):
    """Whole solutions: best-of-N draws from these."""

    samples: PositiveInt = 8
    """Solutions per problem."""
    problems_per_part: PositiveInt = 16
    """Unit of work and of resume."""
    pool: PoolConfig = PoolConfig()


class EarlyStop(Section):
    """When the rollouts of a step may stop before there are `samples` of them; the statistics are
    in `pipeline/early_stop.py`."""

    first: PositiveInt = 4
    """Rollouts of every step before any may stop. They are looked at again whenever there are
    twice as many."""
    error: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    """How far passed/trials of a stopped step may be from that of all its rollouts."""
    risk: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """Chance, at most, that a step stops and is further off."""


class RolloutConfig(Section):
    """Monte-Carlo completions of the function prefixes of training solutions."""

    samples: PositiveInt = 4
    """Rollouts per prefix."""
    early_stop: EarlyStop | None = None
    """Fewer rollouts for steps whose label is decided; None: `samples` for every step. In waves:
    each waits for the one before and starts its own actors, so it pays where rollouts are dear."""
    own_ending: bool = False
    """Count the solution's own ending, whose outcome is known, as one more rollout of each of its
    prefixes. It is a draw of the sampling policy and the same for all steps of a solution, so that
    their labels come nearer to the outcome, and to each other: off, because that cost selection."""
    roles: tuple[Role, ...] = (Role.TRAIN,)
    """Roles whose solutions are labelled step by step; the meta role needs final labels only."""
    policy: PolicyConfig | None = None
    """Who completes the prefixes; None: the policy that sampled the solutions."""
    pool: PoolConfig = PoolConfig()

    @model_validator(mode="after")
    def _can_stop_early(self) -> Self:
        if self.early_stop is not None and self.early_stop.first >= self.samples:
            raise ValueError(
                f"early_stop.first ({self.early_stop.first}) must be below samples "
                f"({self.samples}): there is nothing to stop before"
            )
        return self


class SandboxConfig(Section):
    """Where programs run."""

    isolation: Literal["docker", "unsafe-process"] = "docker"
    """`unsafe-process` has resource limits only; its verdicts are stamped isolation=none."""
    image: str = "chain-of-functions-sandbox"
    slots: PositiveInt = 2
    """Containers at once, over all nodes. A local cluster offers that many; on another each takes
    one unit of the `docker` resource that its nodes declare."""
    memory_mb: Annotated[int, Field(ge=MIN_MEMORY_MB, le=MAX_MEMORY_MB)] = 256
    """Memory limit of one test, MiB. Time limits and comparators are the problem's own."""


class EvaluationConfig(Section):
    """Best-of-N selection on the test problems."""

    bootstrap: PositiveInt = 2000
    """Resamples of the problems for the intervals."""
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    seed: int = 0
