"""What a PRM is trained on: the examples of the train and meta roles, checked before any work."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from pipeline.config import ArmConfig, Correction, MetaProblems, Targets, TrainingConfig
from pipeline.files import is_local, listing
from pipeline.part_file import read_table
from pipeline.records import Example, Role, content_hash
from pipeline.schemas import EXAMPLE


class TrainingDataError(Exception):
    """The data cannot train what was asked for; the message says what to change."""


@dataclass(frozen=True, slots=True)
class TrainingExamples:
    """Solutions to train on, and finished programs of other problems that steer the correction."""

    train: tuple[Example, ...]
    meta: tuple[Example, ...]

    def fingerprint(self) -> str:
        """Identifies everything in the examples that shapes a training."""
        return content_hash(*self.train, *self.meta)


def example_files(paths: Sequence[str]) -> list[str]:
    """The Example shards that files and directories name, local or behind a URI, directories
    replaced by their parts. Raises TrainingDataError for one that names none."""
    found: list[str] = []
    for path in paths:
        parts = _parts_in(path) if _is_directory(path) else [path]
        if not parts:
            raise TrainingDataError(f"{path}: holds no part-*.arrow; name Example shards")
        found += parts
    return found


def _is_directory(path: str) -> bool:
    return os.path.isdir(path) if is_local(path) else not path.endswith(".arrow")


def _parts_in(directory: str) -> list[str]:
    names = [f"{directory.rstrip('/')}/{name}" for name in sorted(listing(directory))]
    return [name for name in names if fnmatch(name, "*/part-*.arrow")]


def read_examples(paths: Sequence[str], config: TrainingConfig) -> TrainingExamples:
    """Read Example shards and check that every arm of `config` can be trained on them.

    Raises TrainingDataError, or the store's own error for a damaged shard.
    """
    rows = [row for path in paths for row in EXAMPLE.from_table(read_table(path, EXAMPLE))]
    rows.sort(key=lambda row: (row.problem_id, row.solution_id))
    examples = TrainingExamples(
        tuple(row for row in rows if row.role is Role.TRAIN),
        tuple(row for row in rows if row.role is Role.META),
    )
    _check_counts(examples.train)
    _check_once(rows)
    check_trainable(examples, config)
    return examples


def check_trainable(examples: TrainingExamples, config: TrainingConfig) -> None:
    """Raises TrainingDataError where these cannot train every arm of `config`."""
    _check_both_outcomes(Role.TRAIN, examples.train)
    disjoint = config.correction.meta_problems is MetaProblems.DISJOINT
    for arm in config.arms:
        _check_targets(arm, examples.train)
        if arm.correction is not Correction.NONE and disjoint:
            if not examples.meta:
                raise TrainingDataError(
                    f"arm {arm.name!r}: correction {arm.correction.value!r} needs solutions of "
                    "meta problems and there are none: widen splits.meta, set "
                    "training.correction.meta_problems to 'same', or use correction 'none'"
                )
            _check_both_outcomes(Role.META, examples.meta)


def _check_counts(examples: Sequence[Example]) -> None:
    for example in examples:
        for passed, trials in zip(example.passed, example.trials, strict=True):
            if not 0 <= passed <= trials:
                raise TrainingDataError(
                    f"solution {example.solution_id}: {passed} of {trials} rollouts passed: make "
                    "its examples anew"
                )


def _check_once(examples: Sequence[Example]) -> None:
    solutions = Counter(example.solution_id for example in examples)
    for solution, count in solutions.most_common(1):
        if count > 1:
            raise TrainingDataError(
                f"solution {solution} comes {count} times: name every shard once (a folder stands "
                "for all of its shards)"
            )
    roles: dict[str, Role] = {}
    for example in examples:
        if roles.setdefault(example.problem_id, example.role) is not example.role:
            raise TrainingDataError(
                f"problem {example.problem_id} is in the roles {roles[example.problem_id].value!r} "
                f"and {example.role.value!r}: each problem has one (splits); make its examples anew"
            )


def _check_both_outcomes(role: Role, examples: Sequence[Example]) -> None:
    passing = sum(example.final_label for example in examples if example.step_ids)
    scored = sum(bool(example.step_ids) for example in examples)
    for kind, count in (("passing", passing), ("failing", scored - passing)):
        if not count:
            raise TrainingDataError(
                f"role {role.value!r}: none of its {scored} solutions with code is {kind}, so "
                "there is nothing to tell apart: sample more solutions (sampling.samples) or "
                "other problems"
            )


def _check_targets(arm: ArmConfig, examples: Sequence[Example]) -> None:
    if arm.targets is Targets.FINAL:
        return
    if arm.targets is Targets.TRUE:
        unknown = next((e for e in examples if e.step_ids and e.step_truth is None), None)
        if unknown:
            raise TrainingDataError(
                f"arm {arm.name!r}: targets 'true' need the known truth of every step, and "
                f"solution {unknown.solution_id} has none: use targets 'soft'"
            )
        return
    if not has_rollouts(examples):
        raise TrainingDataError(
            f"arm {arm.name!r}: targets {arm.targets.value!r} need rollouts, and no step before "
            "the last has any: run the rollouts stage (rollouts.samples, rollouts.roles), or use "
            "targets 'final'"
        )
    if arm.targets is Targets.CROSSFIT and len({e.problem_id for e in examples if e.step_ids}) < 2:
        raise TrainingDataError(
            f"arm {arm.name!r}: targets 'crossfit' split the training problems in halves, and "
            "there is one problem: add problems, or use targets 'soft'"
        )


def has_rollouts(examples: Sequence[Example]) -> bool:
    """Of steps before the last: its label is the outcome."""
    return any(any(example.trials[:-1]) for example in examples)
