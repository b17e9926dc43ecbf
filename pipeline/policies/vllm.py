"""An open model in a vLLM engine of its own, on GPUs or on CPU: a policy that continues a prefill.

The engine is a process beside this one, and its client lives on the event loop of a thread of its
own, so a policy can be used from any loop, and from several, for as long as it is open.

What the installed engine (0.32) made necessary:

- Every sample is a request of its own with a hashed seed. For `n` samples vLLM seeds
  `seed + index`, and neighbouring seeds drew the same answers again and again.
- On CPU prompts are never cut into chunks: a chunked prompt with a seed kills the engine there
  ("CPU Generator does not use offset").
- On CPU the model runs uncompiled and inside the engine process: a worker process of its own made
  the start 18 s longer and nothing faster.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.config import VLLMPolicy
from pipeline.policies.own_loop import OwnLoop
from pipeline.policies.protocol import PolicyError, PolicyRequest, PolicyResponse
from pipeline.policies.vllm_restarts import RestartingEngine
from pipeline.prompts import Prompt
from pipeline.records import FinishReason, content_hash

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.inputs.engine import TokensInput
    from vllm.v1.engine.async_llm import AsyncLLM

_FINISH_REASONS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}

_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",  # of the engine process, which has no other way to be quiet
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "TOKENIZERS_PARALLELISM": "false",
}
_CPU_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the model runs inside the engine process
    "VLLM_HOST_IP": "127.0.0.1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    # One thread unless someone (Ray, by the actor's CPUs) says more: threads that contend for a
    # core made small models ten times slower.
    "OMP_NUM_THREADS": "1",
}

_CANARY, _CANARY_TOKENS = Prompt(system="", user="Hello"), 4
"""What any engine can answer: a prompt, and how much of an answer."""

_CPU_SHUTDOWN_S = 1.0
"""Nothing is lost when the engine is killed after so long, and on CPU it rarely ends by itself."""


class VLLM:
    """A vLLM engine as a policy.

    The prompt is the tokenizer's chat template with the prefill appended, tokenised as one text.
    The seed of a sample depends on the policy's seed, the request's key and the sample's index
    alone, so a rerun asks for the same draws; vLLM's arithmetic depends a little on how requests
    were batched, so a rerun agrees nearly always, not always.

    A prompt that leaves no room for an answer in the model's context is answered at once with an
    empty text and `FinishReason.LENGTH`: one long prefix must not end a run of thousands.
    """

    continues_prefill = True

    def __init__(self, config: VLLMPolicy) -> None:
        """Start the engine: about 15 s on CPU. Raises PolicyError where it does not start."""
        self._config = config
        self._closed = False
        self._loop = OwnLoop("vllm")
        on_cpu = config.gpus == 0
        self._engine = RestartingEngine(
            start=lambda: _start_engine(config),
            end=lambda engine: _end_engine(engine, _CPU_SHUTDOWN_S if on_cpu else None),
            canary=self._canary,
        )
        try:
            engine: AsyncLLM = self._loop.submit(self._engine.open()).result()
        # vLLM raises bare Exceptions of many kinds on its way up (a bad model, too little memory, a
        # process that died); all of them mean that this policy cannot be had.
        except Exception as error:
            self._loop.stop()
            if isinstance(error, PolicyError):
                raise
            raise PolicyError(f"vLLM did not start with model {config.model!r}: {error}") from error
        _hand_logs_to_python()
        self._tokenizer: Any = engine.get_tokenizer()
        self._context = engine.model_config.max_model_len
        if not self._tokenizer.chat_template:
            self.close()
            raise PolicyError(
                f"the tokenizer of {config.model!r} has no chat template: use a chat model, or add "
                "a chat_template.jinja to its directory"
            )

    def complete(self, requests: Sequence[PolicyRequest]) -> AsyncIterator[PolicyResponse]:
        """Every answer, as it finishes, whatever becomes of the engine meanwhile.

        Raises UnanswerableRequest for one that the engine dies of every time, PolicyError when the
        engine is given up.
        """
        if self._closed:
            raise PolicyError("this vLLM policy is closed")
        return self._loop.as_they_finish(
            self._sample(request.key, tokens, request.prompt.stop, index)
            for request in requests
            for tokens in [self._tokens(request.prompt)]
            for index in request.sample_indices
        )

    def close(self) -> None:
        """End the engine's process; answers still in flight raise PolicyError."""
        if self._closed:
            return
        self._closed = True
        self._loop.submit(self._end()).result()
        self._loop.stop()
        del self._engine

    async def _end(self) -> None:
        await self._engine.close()
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=1.0)  # they see the engine's end, and end

    def _tokens(self, prompt: Prompt) -> list[int]:
        messages = [{"role": "user", "content": prompt.user}]
        if prompt.system:
            messages.insert(0, {"role": "system", "content": prompt.system})
        opening: str = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return self._tokenizer.encode(opening + prompt.prefill, add_special_tokens=False)

    def _canary(self) -> "tuple[TokensInput, SamplingParams]":
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind

        tokens = self._tokens(_CANARY)
        params = SamplingParams(
            max_tokens=_CANARY_TOKENS, seed=0, output_kind=RequestOutputKind.FINAL_ONLY
        )
        return tokens_input(tokens), params

    async def _sample(
        self, key: str, tokens: list[int], stop: Sequence[str], index: int
    ) -> PolicyResponse:
        from vllm import SamplingParams
        from vllm.exceptions import VLLMError
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind

        if len(tokens) >= self._context:
            return PolicyResponse(key, index, "", FinishReason.LENGTH, len(tokens), 0)
        params = SamplingParams(
            temperature=self._config.temperature,
            top_p=self._config.top_p,
            max_tokens=min(self._config.max_tokens, self._context - len(tokens)),
            stop=[*self._config.stop, *stop],
            seed=sample_seed(self._config.seed, key, index),
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,  # it is nobody else's
        )
        try:
            answer = await self._engine.answer(tokens_input(tokens), params, f"{key}-{index}")
        except VLLMError as error:
            raise PolicyError(f"vLLM failed on request {key}, sample {index}: {error}") from error
        if answer.finish_reason not in _FINISH_REASONS:
            raise PolicyError(
                f"vLLM ended request {key}, sample {index} with {answer.finish_reason!r}"
            )
        reason = _FINISH_REASONS[answer.finish_reason]
        return PolicyResponse(key, index, answer.text, reason, len(tokens), len(answer.token_ids))


def sample_seed(seed: int, key: str, index: int) -> int:
    """63 hashed bits: neighbouring requests get unrelated draws."""
    return int(content_hash("vllm", seed, key, index), 16) >> 1


def engine_options(config: VLLMPolicy) -> dict[str, Any]:
    """What vLLM is told of the engine (the arguments of `EngineArgs` and `LLM`)."""
    options: dict[str, Any] = {
        "model": config.model,
        "dtype": config.dtype,
        "seed": config.seed,
        "tensor_parallel_size": config.tensor_parallel,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "worker_extension_cls": "pipeline.policies.vllm_engine_life.DiesWithItsParent",
    }
    if config.max_model_len is not None:
        options["max_model_len"] = config.max_model_len
    if config.gpus == 0:
        options["enforce_eager"] = True
        options["enable_chunked_prefill"] = False
        options["kv_cache_memory_bytes"] = int(config.kv_cache_gb * 2**30)
    return options


def set_environment(config: VLLMPolicy) -> None:
    """What vLLM is told by environment variables, where nobody set them otherwise."""
    for name, value in (_ENVIRONMENT | (_CPU_ENVIRONMENT if config.gpus == 0 else {})).items():
        os.environ.setdefault(name, value)


async def _start_engine(config: VLLMPolicy) -> "AsyncLLM":
    on_cpu = config.gpus == 0
    set_environment(config)

    from vllm import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    if current_platform.is_cpu() != on_cpu:
        raise PolicyError(
            f"policy.gpus is {config.gpus}, but the installed vLLM runs on "
            f"{current_platform.device_name or 'no device here'}: set gpus to 0 for the CPU build, "
            "or install the gpu extra on a machine with GPUs"
        )
    args = AsyncEngineArgs(**engine_options(config))
    # vLLM's defaults for offline work batch more requests than those for serving.
    return AsyncLLM.from_engine_args(args, usage_context=UsageContext.LLM_CLASS)


async def _end_engine(engine: "AsyncLLM", timeout_s: float | None) -> None:
    """End its process; what is in flight raises EngineDeadError. It may be dead already."""
    from vllm.v1.engine.exceptions import EngineDeadError

    engine.output_processor.propagate_error(EngineDeadError())
    if engine.output_handler is not None:
        engine.output_handler.cancel()  # else it reports the engine's end as a failure
    engine.shutdown(timeout=timeout_s)


def _hand_logs_to_python() -> None:
    """vLLM gives its logger a handler of its own; what it says belongs to this process's logs."""
    logger = logging.getLogger("vllm")
    logger.handlers.clear()
    logger.propagate = True
