"""What a report says of the run besides its result: given by whoever ran it, never guessed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

from sandbox.protocol import Isolation


@dataclass(frozen=True, slots=True)
class RunFacts:
    """`counts` in the order to show them (label -> number); `verdicts` counts all programs that
    were executed by what isolated them; `versions` maps packages, and the commit, to versions;
    `quarantined` says of problems that were given up, and in which stage, why; `benchmark` is the
    kind of the problems."""

    name: str
    config: BaseModel
    counts: Mapping[str, int]
    verdicts: Mapping[Isolation, int]
    versions: Mapping[str, str]
    quarantined: Mapping[str, str] = field(default_factory=dict[str, str])
    benchmark: str = ""

    @property
    def unsafe(self) -> bool:
        """Whether any verdict came from programs that nothing isolated from the machine."""
        return self.verdicts.get(Isolation.NONE, 0) > 0

    def options(self) -> dict[str, str]:
        """The resolved config, a dotted key per value."""
        return dict(_leaves("", self.config.model_dump(mode="json")))


def _leaves(prefix: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), item)
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(f"{prefix}[{index}]", item)
    else:
        yield prefix, str(value)


@dataclass(frozen=True, slots=True)
class TrainingPoint:
    """One logged optimizer step of one arm (`ArmConfig.name`), averaged over workers. `meta_loss`
    and `mean_label` (of the intermediate steps) are None where nothing is corrected."""

    arm: str
    step: int
    loss: float
    meta_loss: float | None = None
    mean_label: float | None = None
