"""Every option of the pipeline, strict: an unknown key, a wrong type or an impossible combination
is one error that names the key, before anything starts.

The sections follow the story: problems, policy, sampling, sandbox, rollouts, training, evaluation.
`pipeline.settings.load_config` reads them from YAML with command-line overrides.
"""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from pipeline.config.policies import (
    OPENAI_URL,
    OpenAIPolicy,
    PolicyConfig,
    PromptStyle,
    ReplayPolicy,
    ScaleModelPolicy,
    VLLMPolicy,
)
from pipeline.config.prices import PRICES, Price, price_of
from pipeline.config.problems import (
    DateWindow,
    FileProblems,
    ProblemsConfig,
    ScaleModelProblems,
    SplitsConfig,
)
from pipeline.config.section import SCALE_MODEL, Fraction, Section
from pipeline.config.stages import (
    EarlyStop,
    EvaluationConfig,
    PoolConfig,
    RolloutConfig,
    SamplingConfig,
    SandboxConfig,
)
from pipeline.config.training import (
    EXECUTION,
    REFERENCE_ROWS,
    ArmConfig,
    Correction,
    CorrectionConfig,
    LabelSpace,
    LoRA,
    LossKind,
    MetaProblems,
    ModelConfig,
    OptimizerConfig,
    Parallel,
    Targets,
    TrainingConfig,
)

__all__ = [
    "EXECUTION",
    "OPENAI_URL",
    "PRICES",
    "REFERENCE_ROWS",
    "SCALE_MODEL",
    "ArmConfig",
    "Correction",
    "CorrectionConfig",
    "DateWindow",
    "EarlyStop",
    "EvaluationConfig",
    "FileProblems",
    "Fraction",
    "LabelSpace",
    "LoRA",
    "LossKind",
    "MetaProblems",
    "ModelConfig",
    "OpenAIPolicy",
    "OptimizerConfig",
    "Parallel",
    "PipelineConfig",
    "PolicyConfig",
    "PoolConfig",
    "Price",
    "ProblemsConfig",
    "PromptStyle",
    "ReplayPolicy",
    "RolloutConfig",
    "SamplingConfig",
    "SandboxConfig",
    "ScaleModelPolicy",
    "ScaleModelProblems",
    "Section",
    "SplitsConfig",
    "Targets",
    "Tracker",
    "TrainingConfig",
    "VLLMPolicy",
    "price_of",
]


class Tracker(StrEnum):
    """Who draws the curves of a run."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    MLFLOW = "mlflow"


class PipelineConfig(Section):
    """One run, from problems to a report."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")] = "run"
    """Name of the run; its outputs are in `<output>/<name>/`."""
    root: str = "runs/store"
    """Where stages keep their results: a folder, which on a cluster all nodes share, or a URI
    (s3://bucket/prefix, gs://, abfss://, or of an fsspec client that is installed on all nodes)."""
    output: str = "runs"
    """Where a run's log, models and report are written."""
    metrics: tuple[Tracker, ...] = (Tracker.TENSORBOARD,)
    """Where the run's curves go (rows, rates, outcomes, tokens, dollars, losses): `tensorboard`,
    event files in `<output>/<name>/metrics/`; `wandb` and `mlflow`, where they are installed, which
    take server, project and key from their own environment variables."""
    problems: ProblemsConfig
    splits: SplitsConfig = SplitsConfig()
    policy: PolicyConfig
    sampling: SamplingConfig = SamplingConfig()
    sandbox: SandboxConfig = SandboxConfig()
    rollouts: RolloutConfig = RolloutConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    scale_model: ScaleModelPolicy | None = None
    """Train the small policy first; the model name `scale-model` then means it."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        known_truth = isinstance(self.problems, ScaleModelProblems)
        for arm in self.training.arms:
            if arm.targets is Targets.TRUE and not known_truth:
                raise ValueError(
                    f"training.arms: {arm.name!r} wants targets 'true', which only scale_model "
                    f"problems have; problems.kind is {self.problems.kind!r}"
                )
            if arm.targets is Targets.HARD and self.rollouts.own_ending:
                raise ValueError(
                    f"training.arms: {arm.name!r} has targets 'hard', which leave a solution's own "
                    "ending out, but rollouts.own_ending counts it: switch one of them off"
                )
        if "://" in self.output:
            raise ValueError(
                f"output: {self.output!r} is a URI; name a folder of the driver's machine (where "
                "root is a URI, the report is copied there, to runs/<name>/report)"
            )
        for option, policy in (("policy", self.policy), ("rollouts.policy", self.rollouts.policy)):
            if "://" in self.root and isinstance(policy, OpenAIPolicy) and policy.batch:
                raise ValueError(
                    f"{option}.batch: keeps the files of its batches in a folder, and root "
                    f"{self.root!r} is a URI: name a folder that outlives the driver, or switch "
                    "batch off"
                )
        if self.scale_model is not None and not known_truth:
            raise ValueError(
                "scale_model: its policy can only answer scale_model problems; problems.kind is "
                f"{self.problems.kind!r}"
            )
        for option, model in (
            ("policy.model", getattr(self.policy, "model", None)),
            ("rollouts.policy.model", getattr(self.rollouts.policy, "model", None)),
            ("training.model.base", self.training.model.base),
        ):
            if model == SCALE_MODEL and self.scale_model is None:
                raise ValueError(f"{option}: {SCALE_MODEL!r} needs a section `scale_model`")
        completer = self.rollouts.policy or self.policy
        if isinstance(completer, OpenAIPolicy) and completer.prompt is PromptStyle.BARE:
            raise ValueError(
                "rollouts: a chat model cannot continue a prefix with the prompt 'bare'; use "
                "'chain_of_functions'"
            )
        return self
