"""What is sent to the two OpenAI APIs, and what their answers mean."""

from dataclasses import dataclass
from typing import Any

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion
from openai.types.responses import Response, ResponseOutputMessage

from pipeline.config import OpenAIPolicy, Price
from pipeline.policies.retries import MalformedResponse
from pipeline.prompts import Prompt
from pipeline.records import FinishReason

_SERVER_FAILURES = frozenset({"server_error", "rate_limit_exceeded"})
_INCOMPLETE = {
    "max_output_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.FILTERED,
}
_CHAT_FINISH = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.FILTERED,
}
# Characters around the two messages that the API adds by itself, in tokens, with room to spare.
_FRAMING_TOKENS = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. `completion_tokens` includes `reasoning_tokens`; None: the server did not say."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int | None
    completion_tokens: int | None
    reasoning_tokens: int = 0

    def cost_usd(self, price: Price, worst_usd: float) -> float:
        """Dollars, at full price for cached input too; the worst case where usage is unknown."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return worst_usd
        return (self.prompt_tokens * price.input + self.completion_tokens * price.output) / 1e6


def worst_cost_usd(config: OpenAIPolicy, prompt: Prompt) -> float:
    """The most that one call can cost: a token of the prompt is at least one byte of it."""
    prompt_tokens = len((prompt.system + prompt.user).encode()) + _FRAMING_TOKENS
    price = config.price
    return (prompt_tokens * price.input + config.max_output_tokens * price.output) / 1e6


def body(config: OpenAIPolicy, prompt: Prompt) -> dict[str, Any]:
    """The request of the configured API. There is no temperature: reasoning models refuse one."""
    effort = config.reasoning_effort
    if config.api == "responses":
        return {
            "model": config.model,
            **({"instructions": prompt.system} if prompt.system else {}),
            "input": prompt.user,
            "max_output_tokens": config.max_output_tokens,
            **({"reasoning": {"effort": effort}} if effort else {}),
            "store": False,
        }
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    return {
        "model": config.model,
        "messages": [*system, {"role": "user", "content": prompt.user}],
        "max_completion_tokens": config.max_output_tokens,
        **({"reasoning_effort": effort} if effort else {}),
    }


async def ask(client: AsyncOpenAI, config: OpenAIPolicy, request: dict[str, Any]) -> Answer:
    """One call. Raises openai.OpenAIError or MalformedResponse."""
    create = (
        client.responses.create if config.api == "responses" else client.chat.completions.create
    )
    told: Response | ChatCompletion = await create(**request)
    try:
        return _of_response(told) if isinstance(told, Response) else _of_chat(told)
    # The client builds its objects without looking at what they hold, so a body of another shape
    # shows up only when an attribute is missing or is something else.
    except (AttributeError, TypeError, IndexError, KeyError) as error:
        raise MalformedResponse(f"the server's answer has an unknown shape: {error}") from error


def _of_response(response: Response) -> Answer:
    if response.status == "failed" or response.error is not None:
        error = response.error
        if error is None or error.code in _SERVER_FAILURES:
            raise MalformedResponse(f"the server failed: {error.message if error else 'no reason'}")
        return Answer(error.message, FinishReason.FILTERED, *_usage_of(response))
    parts = [
        part
        for item in response.output
        if isinstance(item, ResponseOutputMessage)
        for part in item.content
    ]
    text = "".join(part.text for part in parts if part.type == "output_text")
    refusal = "".join(part.refusal for part in parts if part.type == "refusal")
    finish = FinishReason.REFUSED if refusal and not text else FinishReason.STOP
    if response.incomplete_details is not None:
        finish = _INCOMPLETE[response.incomplete_details.reason or "max_output_tokens"]
    return Answer(text or refusal, finish, *_usage_of(response))


def _usage_of(response: Response) -> tuple[int | None, int | None, int]:
    usage = response.usage
    if usage is None:
        return None, None, 0
    details = usage.output_tokens_details
    reasoning = details.reasoning_tokens if details else 0
    return usage.input_tokens, usage.output_tokens, reasoning or 0


def _of_chat(completion: ChatCompletion) -> Answer:
    choice = completion.choices[0]
    finish = _CHAT_FINISH[choice.finish_reason]
    refusal = choice.message.refusal
    if refusal and not choice.message.content:
        finish = FinishReason.REFUSED
    text = choice.message.content or refusal or ""
    usage = completion.usage
    if usage is None:
        return Answer(text, finish, None, None)
    details = usage.completion_tokens_details
    reasoning = (details.reasoning_tokens or 0) if details else 0
    return Answer(text, finish, usage.prompt_tokens, usage.completion_tokens, reasoning)
