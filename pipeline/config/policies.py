"""Who writes the programs."""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from pipeline.config.prices import PRICES, Price, price_of
from pipeline.config.section import Section

OPENAI_URL = "https://api.openai.com/v1"
"""The server where a config names none."""


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
    stop: tuple[str, ...] = ()
    """Texts that end an answer, besides the model's own end and, for a rollout in a code block, the
    end of that block; they are not part of it."""
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


def _one_name(url: str | None) -> str | None:
    """A server under one name: it is part of what identifies a paid answer. Its error does not show
    the URL, which may hold a secret. Raises ValueError."""
    if url is None:
        return None
    wrong = ValueError("must be a URL, http://HOST/v1 or https://HOST/v1; null means OpenAI's")
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise wrong
    except ValueError:  # of urlsplit, or of a port that is no number
        raise wrong from None
    if any(character.isspace() for character in url):
        raise wrong
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "must have no user, password, query or fragment: it is written into every shard. Give "
            "a secret in OPENAI_API_KEY"
        )
    named = f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"
    return None if named == OPENAI_URL else named


class OpenAIPolicy(Section):
    """A model behind the OpenAI API. The key is read from OPENAI_API_KEY and nowhere else."""

    kind: Literal["openai"] = "openai"
    model: str = "o4-mini"
    api: Literal["responses", "chat"] = "responses"
    """`chat` for servers that only have Chat Completions."""
    base_url: Annotated[str | None, AfterValidator(_one_name)] = None
    """Another OpenAI-compatible server: http(s)://HOST/v1, without any secret; None: OpenAI's."""
    prompt: PromptStyle = PromptStyle.CHAIN_OF_FUNCTIONS
    reasoning_effort: Literal["low", "medium", "high"] | None = "high"
    """None for models that do not reason."""
    max_output_tokens: PositiveInt = 32_000
    """Longest answer, reasoning included, in tokens."""
    requests_in_flight: PositiveInt = 64
    """Calls at once, of one actor."""
    requests_per_minute: PositiveInt | None = None
    """Rate limit of all actors of a stage together; None: what the server tells of in its headers,
    if it does."""
    tokens_per_minute: PositiveInt | None = None
    """Rate limit of all actors of a stage, prompt and answer together; None: as above."""
    timeout_s: PositiveFloat = 900.0
    """Longest silence of the server during one call, seconds."""
    max_retries: Annotated[int, Field(ge=0)] = 6
    """Retries of one call after 408, 409, 429, 5xx or a dropped connection; with `batch`, times
    that a request which expired or failed in passing is submitted again."""
    batch: bool = False
    """Ask through the Batch API: half the price, answers within 24 hours."""
    batch_poll_s: PositiveFloat = 60.0
    """Seconds between two looks at the batches under way."""
    price: Price = PRICES["o4-mini"]
    """Of `model`; where it is not given, that of the price table."""
    budget_usd: PositiveFloat | None = None
    """Stop before the call that could break this cap, dollars. It counts all that was ever spent
    through the store's journal, by every actor and run."""

    @model_validator(mode="before")
    @classmethod
    def _priced(cls, options: Any) -> Any:
        if not isinstance(options, dict) or options.get("price") is not None:
            return options
        model = options.get("model")
        return options | {"price": price_of(model)} if isinstance(model, str) else options

    def shared_by(self, actors: int) -> Self:
        """For one of so many actors: its share of the rate limits, at least one per minute. So more
        actors than requests per minute exceed the limit together; the server's 429 is then heeded.
        """
        limits = {
            name: max(1, limit // actors)
            for name in ("requests_per_minute", "tokens_per_minute")
            if (limit := getattr(self, name)) is not None
        }
        return self.model_copy(update=limits)


class ReplayPolicy(Section):
    """Recorded candidates in LiveCodeBench's `eval_all` form."""

    kind: Literal["replay"] = "replay"
    path: str
    prompt: PromptStyle = PromptStyle.CHAIN_OF_FUNCTIONS


PolicyConfig = Annotated[VLLMPolicy | OpenAIPolicy | ReplayPolicy, Field(discriminator="kind")]


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
