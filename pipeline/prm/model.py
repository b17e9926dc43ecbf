"""The PRM: a Hugging Face decoder as token classification with one label, read at the steps.

The head is applied in float32 to the hidden states of the step positions alone. Dropout is zero
everywhere: the hypergradient compares two forward passes, which must differ by the weights only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from pipeline.config import LoRA, ModelConfig
from pipeline.folders import local_folder
from pipeline.prm.encoding import TokenBatch

COMPUTE_DTYPE = "prm_compute_dtype"
"""The key in a trained PRM's config.json that names the dtype it was computed in."""


class StepScorer(nn.Module):
    """Logits of the steps of a batch; sigmoid(logit) is the score."""

    def __init__(self, network: nn.Module, compute_dtype: torch.dtype) -> None:
        """`network`: a token-classification model, or a peft model around one."""
        super().__init__()
        self.network = network
        self.compute_dtype = compute_dtype

    @property
    def head(self) -> nn.Module:
        return _head(self.classifier)

    @property
    def classifier(self) -> PreTrainedModel:
        """The token-classification model itself; LoRA lives inside its modules."""
        unwrap = getattr(self.network, "get_base_model", None)
        return unwrap() if unwrap else self.network  # pyright: ignore[reportReturnType]

    def forward(self, batch: TokenBatch) -> Float[Tensor, " S"]:
        classifier = self.classifier
        device_type = batch.token_ids.device.type
        with torch.autocast(
            device_type, self.compute_dtype, enabled=self.compute_dtype is not torch.float32
        ):
            hidden = classifier.base_model(
                input_ids=batch.token_ids, use_cache=False
            ).last_hidden_state
        at_steps = hidden[batch.step_rows, batch.step_positions].float()
        with torch.autocast(device_type, enabled=False):
            # Not a view of the head's output, which FSDP hooks.
            return self.head(at_steps).squeeze(-1).clone()


def _head(classifier: PreTrainedModel) -> nn.Module:
    """Architectures call the head of token classification by one of two names."""
    return classifier.score if hasattr(classifier, "score") else classifier.classifier  # pyright: ignore[reportReturnType]


def build_scorer(
    config: ModelConfig, seed: int, device: torch.device
) -> tuple[StepScorer, PreTrainedTokenizerBase]:
    """A PRM to train, its new weights drawn from `seed`, and the tokenizer that encodes for it.

    With LoRA the base is frozen in `config.dtype`, adapters and head are float32; without, all
    weights are float32 and `config.dtype` is that of the computation.
    """
    torch.manual_seed(seed)
    base = local_folder(config.base)
    architecture = AutoConfig.from_pretrained(base, num_labels=1)
    _without_dropout(architecture)
    network = _load(
        base,
        architecture,
        dtype=getattr(torch, config.dtype) if config.lora else torch.float32,
        attn_implementation=config.attention,
    )
    return made_trainable(network, config).to(device), build_tokenizer(config)


def made_trainable(network: PreTrainedModel, config: ModelConfig) -> StepScorer:
    """A token-classification model as a PRM in training; with LoRA, `network` is the frozen base.
    Of `config`, `base` does not count."""
    setattr(network.config, COMPUTE_DTYPE, config.dtype)
    _head(network).float()
    scorer = StepScorer(
        _with_lora(network, config.lora) if config.lora else network, getattr(torch, config.dtype)
    )
    if config.gradient_checkpointing:
        scorer.classifier.gradient_checkpointing_enable({"use_reentrant": False})
        scorer.classifier.enable_input_require_grads()
    for module in scorer.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for parameter in scorer.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    # Gradient checkpointing is on in training mode alone; with dropout zero nothing else is.
    return scorer.train()


def _without_dropout(architecture: PreTrainedConfig) -> None:
    """Architectures call their rates by many names (residual_dropout, attn_pdrop), and some apply
    them without a module that could be found later."""
    architecture.classifier_dropout = 0.0  # else taken from another rate, or a default
    for name, value in vars(architecture).items():
        if isinstance(value, PreTrainedConfig):
            _without_dropout(value)
        elif isinstance(value, float) and ("dropout" in name or "pdrop" in name):
            setattr(architecture, name, 0.0)


def build_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The base model's, with the context that the PRM is trained with."""
    base = local_folder(config.base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    longest = AutoConfig.from_pretrained(base).max_position_embeddings
    # Saved with the tokenizer, so that scoring cuts statements where training did.
    tokenizer.model_max_length = min(config.max_tokens, longest)
    return tokenizer


def load_scorer(directory: str, device: torch.device) -> tuple[StepScorer, PreTrainedTokenizerBase]:
    """A trained PRM and its tokenizer: weights in the dtype they were saved in, computed in that
    of its training, as its config says (of the weights, where it does not)."""
    architecture = AutoConfig.from_pretrained(directory)
    network = _load(directory, architecture, dtype="auto")
    trained_in = getattr(architecture, COMPUTE_DTYPE, None)
    compute_dtype = getattr(torch, trained_in) if trained_in else network.dtype
    scorer = StepScorer(network, compute_dtype).to(device).eval()
    return scorer, AutoTokenizer.from_pretrained(directory)


def _load(name: str, architecture: PreTrainedConfig, **options: object) -> PreTrainedModel:
    """A model and its head, which is kept in float32 where that is how it was saved: transformers
    would round it to the dtype of the base."""
    # An architecture without token classification is refused by transformers below, in its words.
    kind: Any = MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING.get(type(architecture), PreTrainedModel)
    kept = kind._keep_in_fp32_modules_strict
    kind._keep_in_fp32_modules_strict = [*(kept or ()), r"^(score|classifier)\."]
    try:
        with quiet():
            return AutoModelForTokenClassification.from_pretrained(
                name, config=architecture, **options
            )
    finally:
        kind._keep_in_fp32_modules_strict = kept


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, and no notice that the head of a new PRM is new: it is meant to be."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _with_lora(network: PreTrainedModel, lora: LoRA) -> nn.Module:
    # peft takes seconds to import, and full fine-tuning needs none of it.
    from peft import LoraConfig, TaskType, get_peft_model

    modules = lora.target_modules
    return get_peft_model(
        network,
        LoraConfig(
            task_type=TaskType.TOKEN_CLS,
            r=lora.rank,
            lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType]  (a float works)
            lora_dropout=0.0,
            target_modules=modules if isinstance(modules, str) else list(modules),
            exclude_modules=["score", "classifier"],  # the head is trained whole
        ),
    )
