"""Options that would change nothing, because nothing that is trained heeds them.

Where arms correct, an option of another correction is a mistake: it is refused. Where none does,
the section `correction` may be there for arms that were left out this time: its options are said.
An option at its default counts as not set, so that a resolved config loads again.

This is asked of what a person hands in (`pipeline.settings.load_config`) and not of every
`TrainingConfig`: jobs that take some of its arms alone (`jobs.tune`) keep the options of the rest.
"""

from collections.abc import Iterator, Sequence

from pipeline.config.training import (
    ArmConfig,
    Correction,
    CorrectionConfig,
    Parallel,
    Targets,
    TrainingConfig,
)

_FOR = {
    "label_rate": (Correction.WEIGHTS, Correction.LABELS, Correction.SHUFFLED),
    "label_space": (Correction.LABELS, Correction.SHUFFLED),
    "corrector_rate": (Correction.CORRECTOR,),
}
"""The corrections that an option of `CorrectionConfig` is for; those not named are for all."""


def misplaced_options(training: TrainingConfig, arms: Sequence[ArmConfig]) -> Iterator[str]:
    """A sentence for every option that is of none of the corrections of `arms`."""
    there = {arm.correction for arm in arms} - {Correction.NONE}
    for name, corrections in _FOR.items():
        if there and there.isdisjoint(corrections) and name in _set(training):
            wanted = " or ".join(repr(kind.value) for kind in corrections)
            yield (
                f"training.correction.{name}: {_shown(training, name)} would change nothing: it is "
                f"for correction {wanted}, and the arms have "
                f"{', '.join(sorted(repr(kind.value) for kind in there))}: leave it out, or add "
                "such an arm (training.arms)"
            )


def idle_options(training: TrainingConfig) -> Iterator[str]:
    """A sentence for every other option that changes nothing."""
    if all(arm.correction is Correction.NONE for arm in training.arms):
        for name in _set(training):
            shown = _shown(training, name)
            yield f"training.correction.{name}: {shown} changes nothing: no arm corrects"
    usual = TrainingConfig.model_fields["crossfit_strength"].default
    if training.crossfit_strength != usual and not any(
        arm.targets is Targets.CROSSFIT for arm in training.arms
    ):
        yield (
            f"training.crossfit_strength: {training.crossfit_strength:g} changes nothing: no arm "
            "has targets 'crossfit'"
        )
    if training.parallel is Parallel.FSDP and training.workers == 1:
        yield (
            "training.parallel: 'fsdp' changes nothing: it cuts a model over workers, and there is "
            "one (training.workers)"
        )


def _set(training: TrainingConfig) -> list[str]:
    """The options of the correction that are not at their defaults."""
    default = CorrectionConfig()
    return [
        name
        for name in CorrectionConfig.model_fields
        if getattr(training.correction, name) != getattr(default, name)
    ]


def _shown(training: TrainingConfig, name: str) -> str:
    value = getattr(training.correction, name)
    return repr(str(value)) if isinstance(value, str) else str(value)
