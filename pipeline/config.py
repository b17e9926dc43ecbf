"""Every option of the pipeline, strict: an unknown key, a wrong type or an impossible combination
is one error that names the key, before anything starts.

The sections follow the story: problems, policy, sampling, sandbox, rollouts, training, evaluation.
`load_config` in `settings.py` reads them from YAML with command-line overrides.
"""

import datetime
import itertools
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from pipeline.records import Role
from sandbox.protocol import Comparator

SCALE_MODEL = "scale-model"
"""As the name of a model: the small policy that the run itself trains."""

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A group of options. Unknown keys are errors; values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


# --- problems --------------------------------------------------------------------------------


class ScaleModelProblems(Section):
    """Problems of the small world, made by a generator (DESIGN: the scale model)."""

    kind: Literal["scale_model"] = "scale_model"
    train: PositiveInt = 240
    """Problems to train on; with a third as many, every comparison was noise."""
    meta: PositiveInt = 80
    """Training problems set aside for the label correction."""
    validation: PositiveInt = 100
    """Problems on which settings are chosen."""
    test: PositiveInt = 400
    """Held-out problems."""
    tests_per_problem: PositiveInt = 10
    """Unit tests of each problem."""
    seed: int = 0
    """Seed of the generator."""


class FileProblems(Section):
    """Problems of a public benchmark, or of your own, read from JSON-lines files."""

    kind: Literal["livecodebench", "leetcode", "humaneval", "jsonl"]
    paths: Annotated[tuple[str, ...], Field(min_length=1)]
    """JSON-lines files, plain or compressed (.gz, .zst, ...); local paths or fsspec URIs."""
    time_limit_s: PositiveFloat = 6.0
    """CPU seconds of one test where a problem names no limit of its own; LiveCodeBench's."""
    comparator: Comparator = Comparator.LCB
    """How outputs are compared."""
    skip_bad_rows: bool = False
    """Go on without rows that cannot be read; they are counted and the first are named."""
    limit: PositiveInt | None = None
    """Take only the first so many problems, by id."""


ProblemsConfig = Annotated[ScaleModelProblems | FileProblems, Field(discriminator="kind")]


class DateWindow(Section):
    """Release dates from `after` (included) up to `before` (excluded)."""

    after: datetime.date | None = None
    before: datetime.date | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.after and self.before and self.after >= self.before:
            raise ValueError(f"after ({self.after}) must be earlier than before ({self.before})")
        return self

    def contains(self, day: datetime.date) -> bool:
        return (self.after is None or day >= self.after) and (
            self.before is None or day < self.before
        )


class SplitsConfig(Section):
    """The role of a problem is decided by its release date, so that no model was trained on what
    it is tested with. The defaults keep the papers' bounds (train before 2024-08-01, test from
    2025-02-01) and take the meta problems from the end of the training window."""

    train: DateWindow = DateWindow(before=datetime.date(2024, 4, 1))
    meta: DateWindow = DateWindow(after=datetime.date(2024, 4, 1), before=datetime.date(2024, 8, 1))
    validation: DateWindow = DateWindow(
        after=datetime.date(2024, 8, 1), before=datetime.date(2025, 2, 1)
    )
    test: DateWindow = DateWindow(after=datetime.date(2025, 2, 1))

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        windows = sorted(
            (
                (window.after or datetime.date.min, window.before or datetime.date.max, role)
                for role in Role
                for window in [self.window(role)]
            ),
        )
        for (_, end, first), (start, _, second) in itertools.pairwise(windows):
            if start < end:
                raise ValueError(f"the windows of {first} and {second} overlap")
        return self

    def window(self, role: Role) -> DateWindow:
        return getattr(self, role.value)

    def role_of(self, released_on: datetime.date) -> Role | None:
        """The role whose window holds the date; None where no window does."""
        for role in Role:
            if self.window(role).contains(released_on):
                return role
        return None


# --- policies --------------------------------------------------------------------------------


class PromptStyle(StrEnum):
    """How a problem is put to a policy."""

    CHAIN_OF_FUNCTIONS = "chain_of_functions"
    BARE = "bare"  # the statement alone: for a policy trained to answer it with a CoF program


class VLLMPolicy(Section):
    """An open model, served by vLLM in Ray actors."""

    kind: Literal["vllm"] = "vllm"
    model: str
    """Hugging Face name or directory."""
    prompt: PromptStyle = PromptStyle.CHAIN_OF_FUNCTIONS
    temperature: Annotated[float, Field(ge=0.0)] = 1.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    max_tokens: PositiveInt = 4096
    """Longest answer, in tokens."""
    max_model_len: PositiveInt | None = None
    """Context length in tokens; None: the model's own."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    tensor_parallel: PositiveInt = 1
    """GPUs of one engine."""
    gpus: Annotated[int, Field(ge=0)] = 1
    """GPUs that one engine's actor asks of Ray; 0 runs vLLM on CPU."""
    kv_cache_gb: PositiveFloat = 1.0
    """Size of the key-value cache when on CPU, GiB."""
    seed: int = 0

    @model_validator(mode="after")
    def _gpus_match(self) -> Self:
        if self.tensor_parallel != max(self.gpus, 1):
            raise ValueError(
                f"tensor_parallel ({self.tensor_parallel}) must equal gpus ({self.gpus}), or be 1 "
                "where gpus is 0: an engine uses every GPU that it asks for"
            )
        return self


class Price(Section):
    """Dollars per million tokens, as read on `as_of`."""

    input: PositiveFloat
    output: PositiveFloat
    as_of: datetime.date


class OpenAIPolicy(Section):
    """A model behind the OpenAI API. The key is read from OPENAI_API_KEY and nowhere else."""

    kind: Literal["openai"] = "openai"
    model: str = "o4-mini"
    api: Literal["responses", "chat"] = "responses"
    """`chat` for servers that only have Chat Completions."""
    base_url: str | None = None
    """Another OpenAI-compatible server."""
    prompt: PromptStyle = PromptStyle.CHAIN_OF_FUNCTIONS
    reasoning_effort: Literal["low", "medium", "high"] | None = "high"
    """None for models that do not reason."""
    max_output_tokens: PositiveInt = 32_000
    """Longest answer, reasoning included, in tokens."""
    requests_in_flight: PositiveInt = 64
    timeout_s: PositiveFloat = 900.0
    max_retries: Annotated[int, Field(ge=0)] = 6
    """Retries of one call after 408, 409, 429, 5xx or a dropped connection."""
    price: Price = Price(input=1.10, output=4.40, as_of=datetime.date(2025, 4, 16))
    budget_usd: PositiveFloat | None = None
    """Stop before the call that could break this cap, dollars."""


class ReplayPolicy(Section):
    """Recorded candidates in LiveCodeBench's `eval_all` form."""

    kind: Literal["replay"] = "replay"
    path: str
    prompt: PromptStyle = PromptStyle.CHAIN_OF_FUNCTIONS


PolicyConfig = Annotated[VLLMPolicy | OpenAIPolicy | ReplayPolicy, Field(discriminator="kind")]


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


class RolloutConfig(Section):
    """Monte-Carlo completions of the function prefixes of training solutions."""

    samples: PositiveInt = 4
    """Rollouts per prefix."""
    roles: tuple[Role, ...] = (Role.TRAIN,)
    """Roles whose solutions are labelled step by step; the meta role needs final labels only."""
    policy: PolicyConfig | None = None
    """Who completes the prefixes; None: the policy that sampled the solutions."""
    pool: PoolConfig = PoolConfig()


class SandboxConfig(Section):
    """Where programs run."""

    isolation: Literal["docker", "unsafe-process"] = "docker"
    """`unsafe-process` has resource limits only; its verdicts are stamped isolation=none."""
    image: str = "chain-of-functions-sandbox"
    slots: PositiveInt = 2
    """Containers at once, over all nodes. A local cluster offers that many; on another each takes
    one unit of the `docker` resource that its nodes declare."""
    memory_mb: PositiveInt = 256
    """Memory limit of one test, MiB. Time limits and comparators are the problem's own."""


# --- training --------------------------------------------------------------------------------


class Targets(StrEnum):
    """What an intermediate step is trained towards, before any correction."""

    FINAL = "final"  # outcome reward model: only the last step is trained
    SOFT = "soft"  # passed / trials
    HARD = "hard"  # 1 if any rollout passed
    PROVEN = "proven"  # soft, but 1 on every prefix of a passing solution
    TRUE = "true"  # known truth: the ceiling, scale model only


class Correction(StrEnum):
    """How noisy step labels are corrected."""

    NONE = "none"
    LABELS = "labels"  # labels are learnable variables (arXiv 2512.15000)
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
    """Of the frozen base; adapters and score head are float32."""
    gradient_checkpointing: bool = False
    attention: str = "sdpa"


class OptimizerConfig(Section):
    """Linear warm-up and cosine decay of one optimizer."""

    kind: Literal["adamw", "sgd"] = "adamw"
    """`sgd` (no momentum) is for studies: the label correction is exact for both."""
    learning_rate: PositiveFloat = 1e-4
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    warmup: Fraction = 0.05
    """Fraction of the steps."""
    clip_norm: PositiveFloat = 1.0


class CorrectionConfig(Section):
    """Bi-level correction; the defaults behaved best on the scale model."""

    every: PositiveInt = 4
    """Correct once in so many steps; amortises the extra passes."""
    warmup: Fraction = 1 / 6
    """Fraction of the steps before the first correction: labels follow a model that knows
    something."""
    meta_batch: PositiveInt = 128
    """Finished programs of meta problems in one outer step."""
    label_rate: PositiveFloat = 0.15
    """Step of the label update, after the hypergradient is scaled to unit RMS."""
    gradient_ema: Fraction = 0.9
    """Decay of the running mean of the meta gradient, against its noise."""
    centred: bool = True
    """Take the mean out of a label update: without it labels drift together to 0 or 1."""
    anchor: Annotated[float, Field(ge=0.0)] = 0.3
    """Pull of a label back to its Monte-Carlo value, per unit of label rate."""


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
                f"{self.targets.value!r}: use soft, hard or proven"
            )
        return self


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
    epochs: PositiveInt = 3
    batch_size: PositiveInt = 32
    """Solutions per optimizer step, over all workers."""
    micro_batch_size: PositiveInt = 8
    """Solutions per forward pass on one worker."""
    workers: PositiveInt = 1
    use_gpu: bool = True
    cpus_per_worker: PositiveFloat = 1.0
    threads_per_worker: PositiveInt | None = None
    """Torch threads; 1 on a shared CPU, None leaves it to torch."""
    checkpoint_every: PositiveInt = 200
    """Optimizer steps between checkpoints."""
    seed: int = 0

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.batch_size % self.workers:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of workers ({self.workers})"
            )
        kinds = [(arm.targets, arm.correction) for arm in self.arms]
        if len(set(kinds)) < len(kinds):
            raise ValueError("arms: two have the same targets and correction: they are one model")
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"arms: names must differ, got {names}")
        return self


# --- evaluation ------------------------------------------------------------------------------


class EvaluationConfig(Section):
    """Best-of-N selection on the test problems."""

    bootstrap: PositiveInt = 2000
    """Resamples of the problems for the intervals."""
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    seed: int = 0


class ScaleModelPolicy(Section):
    """The small policy that the demo trains from scratch."""

    programs: PositiveInt = 20_000
    """Programs of its corpus; with more, none was seen often enough to be learned by heart."""
    steps: PositiveInt = 900
    """Optimizer steps."""
    batch_size: PositiveInt = 64
    """Programs per step, of about 27 tokens each."""
    learning_rate: PositiveFloat = 3e-3
    """Peak; reached after a twentieth of the steps, then falls to zero."""
    threads: PositiveInt = 1
    """Torch threads; more than one only pays where nothing else wants the cores."""
    seed: int = 0


class PipelineConfig(Section):
    """One run, from problems to a report."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")] = "run"
    """Name of the run; its outputs are in `<output>/<name>/`."""
    root: str = "runs/store"
    """Where stages keep their results: a folder, which on a cluster all nodes share."""
    output: str = "runs"
    """Where a run's log, models and report are written."""
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
        for option, where in (("root", self.root), ("output", self.output)):
            if "://" in where:
                raise ValueError(
                    f"{option}: {where!r} is an object store; name a folder, which on a cluster "
                    "all nodes must share"
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
        for section, policy, pool in (
            ("sampling", self.policy, self.sampling.pool),
            ("rollouts", completer, self.rollouts.pool),
        ):
            if isinstance(policy, OpenAIPolicy) and policy.budget_usd and pool.max_size > 1:
                raise ValueError(
                    f"{section}.pool.max_size: must be 1 with policy.budget_usd, because actors "
                    "that spend at the same time do not see each other's spending"
                )
        return self
