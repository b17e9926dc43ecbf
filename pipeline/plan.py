"""What a run consists of: every stage, where its rows are, and the fingerprint that decides it.

    problems -> solutions -> verdicts ------------------------.
                    |-> completions -> rollouts -> examples <-+-> PRMs -> scores -> report
                    '-> truths (scale model) -----^

Making a plan starts nothing and reads nothing but the files that a config names, so that running,
resuming and looking at a run's state (`jobs.status`) all see the same stages. A stage's fingerprint
names its inputs' fingerprints and its own options, not what cannot shape the rows (pools, GPUs).
"""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import early_stop, schemas
from pipeline.config import (
    EXECUTION,
    SCALE_MODEL,
    ArmConfig,
    Correction,
    FileProblems,
    PipelineConfig,
    PolicyConfig,
    ReplayPolicy,
    ScaleModelProblems,
    Targets,
    TrainingConfig,
    VLLMPolicy,
)
from pipeline.files import is_local
from pipeline.part_file import read_table
from pipeline.policies import policy_version
from pipeline.problems.sources import problem_files
from pipeline.records import (
    Completion,
    Example,
    LabelEstimate,
    PolicyVersion,
    Problem,
    ProgramVerdict,
    Role,
    Rollout,
    ScoredSolution,
    Solution,
    StepTruth,
    content_hash,
)
from pipeline.row_files import chunks
from pipeline.store import StageStore, fingerprint

LOGIC_VERSIONS = {
    "problems": 2,
    "policy": 1,
    "solutions": 3,
    "verdicts": 4,
    "completions": 4,
    "rollouts": 4,
    "truths": 4,
    "examples": 2,
    "prm": 3,
    "correction": 3,
    "bfloat16": 1,
    "scores": 1,
}
"""Bumped by hand when a stage's code changes what it computes from the same inputs."""


class InputMissing(Exception):
    """A file that the config names cannot be read."""


@dataclass(frozen=True)
class Wave:
    """One round of rollouts: the `indices` of each step that the waves before left undecided."""

    indices: range
    completions: StageStore[Completion]
    rollouts: StageStore[Rollout]

    @property
    def stages(self) -> tuple[StageStore[Any], ...]:
        return self.completions, self.rollouts


@dataclass(frozen=True)
class Plan:
    """The stages of one run."""

    config: PipelineConfig
    problems: StageStore[Problem]
    policy_fingerprint: str  # of the small policy; meaningless without one
    solutions: StageStore[Solution]
    verdicts: StageStore[ProgramVerdict]
    waves: "tuple[Wave, ...]"
    """Completions and rollouts; one wave unless rollouts stop early."""
    truths: StageStore[StepTruth] | None
    examples: StageStore[Example]
    trained_on: str = ""
    """Digest of the examples that the PRMs are trained on; known once they are there."""

    @property
    def completions(self) -> StageStore[Completion]:
        """Of the first wave: of every intermediate step."""
        return self.waves[0].completions

    @property
    def rollouts(self) -> StageStore[Rollout]:
        """Of the first wave: of every intermediate step."""
        return self.waves[0].rollouts

    @property
    def knows_truth(self) -> bool:
        return self.truths is not None

    @property
    def policy_directory(self) -> str:
        """Where the small policy is kept."""
        return f"{self.config.root.rstrip('/')}/policy/{self.policy_fingerprint}"

    @property
    def journal_directory(self) -> str:
        """Where paid responses are kept, shared by all runs of the store."""
        return f"{self.config.root.rstrip('/')}/journal"

    def sampling_policy(self) -> PolicyConfig:
        """The policy that writes solutions, its model found."""
        return self._found(self.config.policy)

    def rollout_policy(self) -> PolicyConfig:
        """The policy that completes prefixes, its model found."""
        return self._found(self.config.rollouts.policy or self.config.policy)

    def sampling_version(self) -> PolicyVersion:
        return policy_version(_named(self.config.policy, self.policy_fingerprint))

    def rollout_version(self) -> PolicyVersion:
        policy = self.config.rollouts.policy or self.config.policy
        return policy_version(_named(policy, self.policy_fingerprint))

    def with_examples(self, roles: Mapping[int, Role]) -> "Plan":
        """This plan, the examples being there: what follows depends on what they hold, whichever
        way they were made (a sampled text may differ from run to run).

        Raises DamagedPart where they are not there.
        """
        digests = [self.examples.digest(part) for part in training_parts(roles)]
        return dataclasses.replace(self, trained_on=content_hash(*digests))

    def training(self) -> TrainingConfig:
        """The training options, the base model found."""
        training = self.config.training
        if training.model.base != SCALE_MODEL:
            return training
        model = training.model.model_copy(update={"base": self.policy_directory})
        return training.model_copy(update={"model": model})

    def prm_fingerprint(self, arm: ArmConfig) -> str:
        training = self.config.training
        options = training.shaping().model_dump(
            mode="json", exclude={"arms", "correction", "crossfit_strength", *EXECUTION}
        )
        return fingerprint(
            stage="prm",
            logic=LOGIC_VERSIONS["prm"],
            schema=schemas.LABEL_ESTIMATE.version,
            examples=self.examples.fingerprint,
            trained_on=self.trained_on,
            base=self.policy_fingerprint if training.model.base == SCALE_MODEL else None,
            training=options,
            # What trains and scores in it alone; the rest of the store stays what it is.
            **(
                {"bfloat16": LOGIC_VERSIONS["bfloat16"]}
                if training.model.dtype == "bfloat16"
                else {}
            ),
            targets=arm.targets,
            crossfit=training.crossfit_strength if arm.targets is Targets.CROSSFIT else None,
            correction=arm.correction,
            correction_options=(
                training.correction.model_dump(mode="json")
                | {"logic": LOGIC_VERSIONS["correction"]}
                if arm.correction is not Correction.NONE
                else None
            ),
        )

    def prm_directory(self, arm: ArmConfig) -> str:
        """Where an arm's checkpoints, model and label estimates are kept."""
        return f"{self.config.root.rstrip('/')}/prm/{self.prm_fingerprint(arm)}"

    def prm_model(self, arm: ArmConfig) -> str:
        """The arm's trained PRM, in Hugging Face form."""
        return f"{self.prm_directory(arm)}/model"

    def labels(self, arm: ArmConfig) -> list[LabelEstimate]:
        """The step labels that an arm was trained on, before and after correction."""
        path = f"{self.prm_directory(arm)}/labels.arrow"
        return schemas.LABEL_ESTIMATE.from_table(read_table(path, schemas.LABEL_ESTIMATE))

    def scores(self, arm: ArmConfig) -> StageStore[ScoredSolution]:
        return StageStore(
            self.config.root,
            "scores",
            fingerprint(
                stage="scores",
                logic=LOGIC_VERSIONS["scores"],
                schema=schemas.SCORED_SOLUTION.version,
                prm=self.prm_fingerprint(arm),
            ),
            schemas.SCORED_SOLUTION,
            inputs=(self.examples,),
        )

    def _found(self, policy: PolicyConfig) -> PolicyConfig:
        return _named(policy, None, directory=self.policy_directory)


def training_parts(roles: Mapping[int, Role]) -> list[int]:
    """The parts that a PRM learns from: training and meta problems."""
    return [part for part, role in roles.items() if role in (Role.TRAIN, Role.META)]


def held_out_parts(roles: Mapping[int, Role]) -> list[int]:
    """The parts whose candidates are scored: validation and test problems."""
    return [part for part, role in roles.items() if role in (Role.VALIDATION, Role.TEST)]


def make_plan(config: PipelineConfig) -> Plan:
    """The stages of a run of `config`. Raises InputMissing if a file that it names is not there."""
    root = config.root.removeprefix("file://")
    if is_local(root):
        root = os.path.abspath(root)  # actors have working directories of their own
    config = config.model_copy(update={"root": root})

    def stage(
        name: str,
        schema: schemas.RecordSchema[Any],
        inputs: tuple[StageStore[Any], ...],
        **options: object,
    ) -> StageStore[Any]:
        decides = fingerprint(
            stage=name,
            logic=LOGIC_VERSIONS[name.partition("-")[0]],
            schema=schema.version,
            inputs={each.name: each.fingerprint for each in inputs},
            options=options,
        )
        return StageStore(config.root, name, decides, schema, inputs)

    problems = stage(
        "problems",
        schemas.PROBLEM,
        (),
        problems=_problem_source(config),
        splits=config.splits.model_dump(mode="json"),
        problems_per_part=config.sampling.problems_per_part,
    )
    policy_fingerprint = fingerprint(
        stage="policy",
        logic=LOGIC_VERSIONS["policy"],
        options=config.scale_model.model_dump(mode="json") if config.scale_model else None,
        problems_seed=getattr(config.problems, "seed", None),
        splits=config.splits.model_dump(mode="json"),
    )
    solutions = stage(
        "solutions",
        schemas.SOLUTION,
        (problems,),
        policy=_version(config.policy, policy_fingerprint),
        samples=config.sampling.samples,
    )
    sandbox = {
        "isolation": config.sandbox.isolation,
        "image": config.sandbox.image,
        "memory_mb": config.sandbox.memory_mb,
    }
    verdicts = stage("verdicts", schemas.PROGRAM_VERDICT, (problems, solutions), sandbox=sandbox)
    waves: list[Wave] = []
    for indices in early_stop.waves(config.rollouts.samples, config.rollouts.early_stop):
        number = f"-{len(waves) + 1}" if waves else ""
        rule = config.rollouts.early_stop
        completions = stage(
            f"completions{number}",
            schemas.COMPLETION,
            (problems, solutions, *(wave.rollouts for wave in waves)),
            policy=_version(config.rollouts.policy or config.policy, policy_fingerprint),
            samples=indices.stop,
            # What the first wave holds, a run with so few samples has too.
            **(
                {"of": config.rollouts.samples, "rule": rule.model_dump()} if waves and rule else {}
            ),
        )
        rollouts = stage(
            f"rollouts{number}", schemas.ROLLOUT, (problems, completions), sandbox=sandbox
        )
        waves.append(Wave(indices, completions, rollouts))
    truths = None
    if isinstance(config.problems, ScaleModelProblems):
        truths = stage("truths", schemas.STEP_TRUTH, (problems, solutions), sandbox=sandbox)
    examples = stage(
        "examples",
        schemas.EXAMPLE,
        (
            *(problems, solutions, verdicts),
            *(wave.rollouts for wave in waves),
            *([truths] if truths else []),
        ),
        labelled_roles=sorted(config.rollouts.roles),
        **({"own_ending": True} if config.rollouts.own_ending else {}),
    )
    return Plan(
        config=config,
        problems=problems,
        policy_fingerprint=policy_fingerprint,
        solutions=solutions,
        verdicts=verdicts,
        waves=tuple(waves),
        truths=truths,
        examples=examples,
    )


def _problem_source(config: PipelineConfig) -> dict[str, Any]:
    """The options of the problems, and the content of the files that they name."""
    options = config.problems.model_dump(mode="json")
    if isinstance(config.problems, FileProblems):
        try:
            files = problem_files(config.problems.paths)
        except OSError as error:
            raise InputMissing(str(error)) from error
        options["paths"] = [_file_hash(path) for path in files]
    return options


def _file_hash(path: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    try:
        for chunk in chunks(path):
            digest.update(chunk)
    except OSError as error:
        raise InputMissing(str(error)) from error
    return digest.hexdigest()


def _version(policy: PolicyConfig, policy_fingerprint: str) -> dict[str, str]:
    version = policy_version(_named(policy, policy_fingerprint))
    recorded = isinstance(policy, ReplayPolicy)
    return {
        "model": _file_hash(policy.path) if recorded else version.model,
        "parameters": version.parameters,
        "prompt_version": version.prompt_version,
    }


def _named(
    policy: PolicyConfig, policy_fingerprint: str | None, directory: str | None = None
) -> PolicyConfig:
    """The small policy by its directory (to load it) or by its fingerprint (to name it: a name
    must not depend on where the store is)."""
    if not isinstance(policy, VLLMPolicy) or policy.model != SCALE_MODEL:
        return policy
    return policy.model_copy(update={"model": directory or f"{SCALE_MODEL}@{policy_fingerprint}"})
