"""What is sent to the two OpenAI APIs, and what their answers mean.

Answers are read as the plain JSON that they are: the same reading then serves a live call and a
line of a batch's output file, and building the client's objects cost more than all else of a call.
"""

import json
from dataclasses import dataclass
from typing import Any

from pipeline.config import OpenAIPolicy
from pipeline.policies.retries import MalformedResponse, UnknownShape
from pipeline.prompts import Prompt
from pipeline.records import FinishReason

PATHS = {"responses": "/responses", "chat": "/chat/completions"}

_NO_SENSE = (AttributeError, TypeError, LookupError, ValueError, OverflowError)
"""What reading JSON of an unknown shape can raise."""

_NO_ANSWER_YET = frozenset({"queued", "in_progress", "cancelled"})
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
_PROMPT_FAILURES = {
    "context_length_exceeded": FinishReason.LENGTH,
    "invalid_prompt": FinishReason.FILTERED,
    "content_filter": FinishReason.FILTERED,
}
_ABOUT_ONE_REQUEST = frozenset({400, 413, 422})
_ABOUT_ALL_REQUESTS = frozenset(
    {
        *("unknown_parameter", "unsupported_parameter", "unsupported_value"),
        *("model_not_found", "billing_hard_limit_reached"),
    }
)
_PARTS_OF_A_PROMPT = ("input", "instructions", "messages")
# Characters around the two messages that the API adds by itself, in tokens, with room to spare.
_FRAMING_TOKENS = 200
_TOO_MANY_TOKENS = 2**31  # to be true, or for the shards' columns
_BYTES_PER_TOKEN = 4  # OpenAI's own rule of thumb, and how its rate limits guess a prompt's size


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer. `prompt` includes `cached`, `completion` includes `reasoning`."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; `usage` None: the server did not say, or not in a way that makes sense."""

    text: str
    finish_reason: FinishReason
    usage: Usage | None


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


def worst_usage(config: OpenAIPolicy, prompt: Prompt) -> Usage:
    """The most that one call can use: a token of the prompt is at least one byte of it."""
    prompt_tokens = len((prompt.system + prompt.user).encode("utf-8", "replace"))
    return Usage(prompt=prompt_tokens + _FRAMING_TOKENS, completion=config.max_output_tokens)


def worst_cost_usd(config: OpenAIPolicy, prompt: Prompt) -> float:
    """The most that one call can cost, dollars."""
    return cost_usd(config, worst_usage(config, prompt))


def cost_usd(config: OpenAIPolicy, usage: Usage) -> float:
    """Dollars of one answer, the discounts for cached prompts and batches taken off."""
    return config.price.cost_usd(usage.prompt, usage.cached, usage.completion, batch=config.batch)


def likely_prompt_tokens(prompt: Prompt) -> float:
    """A guess at the size of a prompt."""
    return len((prompt.system + prompt.user).encode("utf-8", "replace")) / _BYTES_PER_TOKEN


def parsed(data: bytes) -> Any:
    """The JSON of a body. Raises MalformedResponse."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:  # no UTF-8 is a ValueError, as no JSON is
        raise MalformedResponse(f"the server's answer is no JSON: {error}") from error


def read_answer(config: OpenAIPolicy, told: Any) -> Answer:
    """The answer in the body of a success. Raises MalformedResponse for one that tells of a
    failure, UnknownShape for one that tells neither.

    What has a text is an answer, for it was paid for: what stands beside the text and is not known
    is skipped, one that ended for a reason that we do not know counts as cut, and a use of tokens
    that makes no sense as not told.
    """
    try:
        return _of_response(told) if config.api == "responses" else _of_chat(told)
    except _NO_SENSE as error:
        raise UnknownShape(f"the server's answer has an unknown shape: {error!r}") from error


def prompt_failure(message: str, code: str | None) -> FinishReason | None:
    """What a 400 says about the prompt; None where it says that the request is wrong."""
    if "maximum context length" in message:  # other servers have no code for it
        return FinishReason.LENGTH
    return _PROMPT_FAILURES.get(code or "")


def is_unanswerable(status: int, code: object, param: object) -> bool:
    """Whether an error is about this one prompt: not where it names what all requests share."""
    return (
        status in _ABOUT_ONE_REQUEST
        and code not in _ABOUT_ALL_REQUESTS
        and (not param or str(param).startswith(_PARTS_OF_A_PROMPT))
    )


def _of_response(told: dict[str, Any]) -> Answer:
    status, error = told.get("status"), told.get("error")
    if status == "failed" or error is not None:
        code, message = _error_of(error)
        if error is None or code in _SERVER_FAILURES:
            raise MalformedResponse(f"the server failed: {message}")
        return Answer(message, FinishReason.FILTERED, _usage_of(told))
    messages = [item for item in _dicts(told["output"]) if item.get("type") == "message"]
    said = [_said(message.get("content")) for message in messages]
    text, refusal = ("".join(texts) for texts in zip(*said, strict=True)) if said else ("", "")
    details = told.get("incomplete_details")
    match status:
        case "completed" if details is None:
            finish = FinishReason.REFUSED if refusal and not text else FinishReason.STOP
        case "completed" | "incomplete":
            reason = details.get("reason") if isinstance(details, dict) else None
            finish = _INCOMPLETE.get(str(reason), FinishReason.LENGTH)
        case _ if text or refusal:
            finish = FinishReason.LENGTH
        case _ if status in _NO_ANSWER_YET:
            raise MalformedResponse(f"the server has no answer yet, its status is {status!r}")
        case _:
            raise UnknownShape(f"the server's answer has no text, and the status {status!r}")
    return Answer(text or refusal, finish, _usage_of(told))


def _error_of(error: Any) -> tuple[str | None, str]:
    """Code and message."""
    if not isinstance(error, dict):
        return None, str(error or "no reason")
    return error.get("code"), str(error.get("message") or "no reason")


def _dicts(items: list[Any]) -> list[dict[str, Any]]:
    return [item for item in items if isinstance(item, dict)]


def _said(content: Any) -> tuple[str, str]:
    """Text and refusal in a message's content: a text, or parts, of which unknown ones are skipped.
    Raises TypeError."""
    if content is None or isinstance(content, str):
        return content or "", ""
    if not isinstance(content, list):
        raise TypeError(f"a message whose content is a {type(content).__name__}")
    parts = _dicts(content)
    text, refusal = (
        "".join(part[name] for part in parts if isinstance(part.get(name), str))
        for name in ("text", "refusal")
    )
    return text, refusal


def _usage_of(told: dict[str, Any]) -> Usage | None:
    return _usage(told, "input_tokens", "output_tokens")


def _of_chat(told: dict[str, Any]) -> Answer:
    if told.get("error") is not None and not told.get("choices"):  # a gateway's way to say 502
        raise MalformedResponse(f"the server failed: {_error_of(told['error'])[1]}")
    choice = told["choices"][0]
    message = choice["message"]
    finish = _CHAT_FINISH.get(str(choice.get("finish_reason")), FinishReason.LENGTH)
    text, part = _said(message.get("content"))
    refusal = message.get("refusal") or part
    if refusal and not text:
        finish = FinishReason.REFUSED
    text = "".join([text or refusal])  # a TypeError where it is no text
    return Answer(text, finish, _usage(told, "prompt_tokens", "completion_tokens"))


def _usage(told: dict[str, Any], prompt: str, completion: str) -> Usage | None:
    """Both APIs tell it alike, but for the names of the two counts."""
    try:
        usage = told["usage"]
        counts = Usage(
            prompt=int(usage[prompt]),
            cached=_detail(usage, f"{prompt}_details", "cached_tokens"),
            completion=int(usage[completion]),
            reasoning=_detail(usage, f"{completion}_details", "reasoning_tokens"),
        )
    except _NO_SENSE:
        return None
    least = min(counts.cached, counts.prompt - counts.cached, counts.completion, counts.reasoning)
    return counts if least >= 0 and counts.prompt + counts.completion < _TOO_MANY_TOKENS else None


def _detail(usage: dict[str, Any], details: str, name: str) -> int:
    """A count that many servers leave out."""
    return int((usage.get(details) or {}).get(name) or 0)
