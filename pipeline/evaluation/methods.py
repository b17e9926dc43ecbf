"""The rows of the selection table: their names, order, and which of them answer for which."""

from collections import Counter
from collections.abc import Sequence

from pipeline.config import REFERENCE_ROWS, ArmConfig, Correction, Targets

PASS_AT_1, ORACLE = REFERENCE_ROWS

_BY_TARGETS = {
    Targets.FINAL: "ORM",
    Targets.SOFT: "PRM soft",
    Targets.HARD: "PRM hard",
    Targets.PROVEN: "PRM proven",
    Targets.CROSSFIT: "PRM cross-fitted",
    Targets.TRUE: "PRM on true labels",
}
_BY_CORRECTION = {
    Correction.WEIGHTS: "PRM + learned weights",
    Correction.LABELS: "PRM + corrected labels",
    Correction.CORRECTOR: "PRM + label corrector",
    Correction.SHUFFLED: "PRM + shuffled control",
}


def titles(arms: Sequence[ArmConfig]) -> dict[str, str]:
    """Method name -> how people read it; arms that would read alike get their name appended."""
    shared = Counter(_title(arm) for arm in arms)
    named = {
        arm.name: f"{_title(arm)} ({arm.name})" if shared[_title(arm)] > 1 else _title(arm)
        for arm in ordered(arms)
    }
    return {PASS_AT_1: "pass@1"} | named | {ORACLE: "oracle"}


def _title(arm: ArmConfig) -> str:
    return kind_title(arm.targets, arm.correction)


def kind_title(targets: Targets, correction: Correction = Correction.NONE) -> str:
    """How people read the row of an arm with these targets and this correction."""
    if correction is Correction.NONE:
        return _BY_TARGETS[targets]
    corrected = _BY_CORRECTION[correction]
    return corrected if targets is Targets.SOFT else f"{corrected} ({targets.value})"


def ordered(arms: Sequence[ArmConfig]) -> list[ArmConfig]:
    """Outcome model first, then raw labels, then corrected ones, the ceiling last."""
    corrections, targets = list(Correction), list(Targets)
    return sorted(
        arms,
        key=lambda arm: (
            arm.targets is not Targets.FINAL,
            arm.targets is Targets.TRUE,
            corrections.index(arm.correction),
            targets.index(arm.targets),
        ),
    )


def planned_comparisons(arms: Sequence[ArmConfig]) -> list[tuple[str, str]]:
    """(method, baseline) pairs that the run was made to answer, decided before any result: every
    PRM against the ORM; corrected labels against the same labels uncorrected and against their
    shuffled control."""
    pairs: list[tuple[str, str]] = []
    rows = ordered(arms)
    outcome_models = [arm for arm in rows if arm.targets is Targets.FINAL]
    for arm in rows:
        if arm.targets is Targets.FINAL:
            continue
        pairs += [(arm.name, orm.name) for orm in outcome_models[:1]]
        if arm.correction is Correction.NONE:
            continue
        alike = [other for other in rows if other.targets is arm.targets]
        baselines = {Correction.NONE}
        if arm.correction is not Correction.SHUFFLED:
            baselines.add(Correction.SHUFFLED)
        pairs += [(arm.name, other.name) for other in alike if other.correction in baselines]
    return pairs
