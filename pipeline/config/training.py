"""The reward models and how they are trained."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipeline.config.section import Fraction, Section


class Targets(StrEnum):
    """What an intermediate step is trained towards, before any correction."""

    FINAL = "final"  # outcome reward model: only the last step is trained
    SOFT = "soft"  # passed / trials
    HARD = "hard"  # 1 if any rollout passed
    PROVEN = "proven"  # soft, but 1 on every prefix of a passing solution
    CROSSFIT = "crossfit"  # soft, mixed with what a PRM of the other half of the problems believes
    TRUE = "true"  # known truth: the ceiling, scale model only


class Correction(StrEnum):
    """What learns from the meta set, against the noise of step labels."""

    NONE = "none"
    WEIGHTS = "weights"  # how much a step counts: what the papers' public code does
    LABELS = "labels"  # labels are learnable variables (arXiv 2512.15000)
    CORRECTOR = "corrector"  # a small network that shifts labels by what is known of a step
    SHUFFLED = "shuffled"  # the same against a shuffled meta set: the control that must not help


class LoRA(Section):
    """Low-rank adapters (peft)."""

    rank: PositiveInt = 16
    alpha: PositiveFloat = 32.0
    target_modules: str | tuple[str, ...] = "all-linear"


class ModelConfig(Section):
    """The PRM: a Hugging Face decoder as token classification with one label."""

    base: str = "Qwen/Qwen2.5-Coder-3B"
    """Hugging Face name or directory."""
    max_tokens: PositiveInt = 4096
    """Context: the statement is truncated to fit, the code never."""
    lora: LoRA | None = LoRA()
    """None trains every weight."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the frozen base and of the computation, in training and scoring alike; what is trained
    (adapters and score head, or every weight) is float32."""
    gradient_checkpointing: bool = False
    """Compute activations anew in the backward pass: less memory, a third more work."""
    attention: str = "sdpa"
    """Of transformers: sdpa, eager, or flash_attention_2 where flash-attn is installed."""

    def shaping(self) -> Self:
        """This model with the options at their defaults that change its speed and memory alone:
        results are the same but for rounding."""
        default = type(self)()
        return self.model_copy(
            update={
                "gradient_checkpointing": default.gradient_checkpointing,
                "attention": default.attention,
            }
        )


class OptimizerConfig(Section):
    """Linear warm-up and cosine decay of one optimizer."""

    kind: Literal["adamw", "sgd"] = "adamw"
    """`sgd` (no momentum) is for studies: the label correction is exact for both."""
    learning_rate: PositiveFloat = 1e-4
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    warmup: Fraction = 0.05
    """Fraction of the steps."""
    clip_norm: PositiveFloat = 1.0


class Parallel(StrEnum):
    """How a model is spread over workers; results are the same but for rounding."""

    DDP = "ddp"  # whole on every worker, gradients summed: fastest where it fits
    FSDP = "fsdp"  # FSDP2: weights, gradients and optimizer state cut over workers


class LossKind(StrEnum):
    """How the score of a step is held against its label."""

    BCE = "bce"  # cross entropy; the one whose corrections pointed the right way (scale model)
    MSE = "mse"  # squared error of the score, as in the papers' code: flat where it is confident


class MetaProblems(StrEnum):
    """Whose finished programs steer a correction."""

    DISJOINT = "disjoint"  # problems of the role `meta`; in that study the only choice of use
    SAME = "same"  # those of the batch itself: needs no meta role, but leaks the outcome into steps


class LabelSpace(StrEnum):
    """The variable behind a free label."""

    LABEL = "label"  # the label, clipped to [0, 1]: one at 0 or 1 can still move
    LOGIT = "logit"  # its logit: never reaches 0 or 1, slow near them


class CorrectionConfig(Section):
    """Bi-level correction; the defaults behaved best on the scale model."""

    every: PositiveInt = 4
    """Correct once in so many steps; amortises the extra passes."""
    warmup: Fraction = 1 / 6
    """Fraction of the steps before the first correction: labels follow a model that knows
    something. Never in AdamW's first 5 steps."""
    meta_problems: MetaProblems = MetaProblems.DISJOINT
    """Whose finished programs, with their clean unit-test outcomes, are the meta set."""
    meta_batch: PositiveInt = 128
    """Finished programs in one outer step."""
    label_rate: PositiveFloat = 0.15
    """Step of a label (of half a weight, of a logit), after the hypergradient is scaled to unit
    RMS."""
    label_space: LabelSpace = LabelSpace.LABEL
    """The variable that correction 'labels' moves."""
    corrector_rate: PositiveFloat = 0.003
    """Adam's learning rate of correction 'corrector'; one network moves all labels at once, so it
    must be far below `label_rate`."""
    gradient_ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Decay of the running mean of the meta gradient, against its noise."""
    centred: bool = True
    """Take the mean out of an update: without it labels drift together to 0 or 1."""
    anchor: Annotated[float, Field(ge=0.0)] = 0.3
    """Pull of a label back to its Monte-Carlo value (of a weight to 1), per unit of rate."""


REFERENCE_ROWS = ("pass_at_1", "oracle")
"""Rows of the selection table that need no model."""


class ArmConfig(Section):
    """One PRM to train: a row of the selection table."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    targets: Targets = Targets.SOFT
    correction: Correction = Correction.NONE

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.name in REFERENCE_ROWS:
            raise ValueError(f"name {self.name!r} is a row of its own in the table: take another")
        if self.correction is not Correction.NONE and self.targets in (
            Targets.FINAL,
            Targets.TRUE,
        ):
            raise ValueError(
                f"correction {self.correction.value!r} has nothing to correct with targets "
                f"{self.targets.value!r}: use soft, hard, proven or crossfit"
            )
        return self


EXECUTION = (
    "workers",
    "parallel",
    "use_gpu",
    "cpus_per_worker",
    "threads_per_worker",
    "micro_batch_size",
    "checkpoint_every",
)
"""Options of `TrainingConfig` that say where and how a model is computed. They shape none, but for
rounding, and neither do those that `ModelConfig.shaping` puts aside."""


class TrainingConfig(Section):
    """The Ray Train job."""

    model: ModelConfig = ModelConfig()
    arms: Annotated[tuple[ArmConfig, ...], Field(min_length=1)] = (
        ArmConfig(name="orm", targets=Targets.FINAL),
        ArmConfig(name="prm_soft", targets=Targets.SOFT),
        ArmConfig(name="prm_hard", targets=Targets.HARD),
        ArmConfig(name="prm_corrected", targets=Targets.SOFT, correction=Correction.LABELS),
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    correction: CorrectionConfig = CorrectionConfig()
    loss: LossKind = LossKind.BCE
    """Of training and meta batches alike."""
    crossfit_strength: PositiveFloat = 2.0
    """Targets 'crossfit': the belief of the other half's PRM counts as so many rollouts, so that
    many real ones outweigh it."""
    epochs: PositiveInt = 3
    batch_size: PositiveInt = 32
    """Solutions per optimizer step, over all workers."""
    micro_batch_size: PositiveInt = 8
    """Solutions per forward pass on one worker."""
    workers: PositiveInt = 1
    parallel: Parallel = Parallel.DDP
    """fsdp for a model that does not fit on one device, with its optimizer where all weights are
    trained."""
    use_gpu: bool = True
    cpus_per_worker: PositiveFloat = 1.0
    threads_per_worker: PositiveInt | None = None
    """Torch threads; 1 on a shared CPU, None leaves it to torch."""
    checkpoint_every: PositiveInt = 200
    """Optimizer steps between checkpoints."""
    seed: int = 0

    def shaping(self) -> Self:
        """This config as far as it decides what a model becomes; `EXECUTION` is still in it."""
        return self.model_copy(update={"model": self.model.shaping()})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.workers > self.batch_size:
            raise ValueError(
                f"workers ({self.workers}) share a batch: at most batch_size ({self.batch_size})"
            )
        kinds = [(arm.targets, arm.correction) for arm in self.arms]
        if len(set(kinds)) < len(kinds):
            raise ValueError("arms: two have the same targets and correction: they are one model")
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"arms: names must differ, got {names}")
        return self
