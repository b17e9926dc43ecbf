"""What the output and error files of a batch say about its requests."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from pipeline.config import OpenAIPolicy
from pipeline.policies import openai_wire
from pipeline.policies.batch_submissions import slot_in
from pipeline.policies.openai_wire import Answer, Usage
from pipeline.policies.paid_answers import Slot
from pipeline.policies.retries import MalformedResponse

_PASSING_STATUS = frozenset({0, 408, 409, 429})
_PASSING_CODES = frozenset({"batch_expired", "batch_cancelled"})


class Blame(Enum):
    """What a request without an answer tells of the next try."""

    PASSING = "passing"  # it may have one, and this one is not billed
    BILLED = "billed"  # it may have one, but this one's answer came to nothing on the way
    REQUEST = "request"  # this request never has one
    ALL = "all"  # no request like it has one: an option, the key or the account is at fault


@dataclass(frozen=True, slots=True)
class Failure:
    """A request without an answer."""

    reason: str
    blame: Blame


def read_results(
    config: OpenAIPolicy, lines: Iterable[str]
) -> Iterator[tuple[Slot, Answer | Failure]]:
    """What became of each request. Raises MalformedResponse for a line that is no result of ours:
    the file came damaged, and should be fetched again."""
    for line in lines:
        if not line.strip():
            continue
        try:
            told = json.loads(line)
            slot = slot_in(told["custom_id"])
            response, error = told.get("response"), told.get("error")
            status = response["status_code"] if response else None
            body = response["body"] if response else None
        except (ValueError, KeyError, TypeError) as damage:
            raise MalformedResponse(f"a line of a batch's results is damaged: {damage!r}") from None
        if status == 200:
            try:
                yield slot, openai_wire.read_answer(config, body)
            except MalformedResponse as strange:
                yield slot, Failure(str(strange), Blame.BILLED)
        else:
            yield slot, _failure(status, body, error)


def _failure(status: int | None, body: object, error: object) -> Answer | Failure:
    inner = body.get("error") if isinstance(body, dict) else None
    told = inner if isinstance(inner, dict) else error if isinstance(error, dict) else {}
    message, code = str(told.get("message") or "no reason given"), told.get("code")
    if status == 400 and (finish := openai_wire.prompt_failure(message, code)) is not None:
        return Answer("", finish, Usage())
    if code in _PASSING_CODES or (
        status is not None
        and code != "insufficient_quota"
        and (status in _PASSING_STATUS or status >= 500)
    ):
        blame = Blame.PASSING
    elif status is not None and openai_wire.is_unanswerable(status, code, told.get("param")):
        blame = Blame.REQUEST
    else:
        blame = Blame.ALL
    return Failure(f"{status or code}: {message}", blame)
