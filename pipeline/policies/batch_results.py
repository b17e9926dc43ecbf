"""What the output and error files of a batch say about its requests."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from pipeline.config import OpenAIPolicy
from pipeline.policies import openai_wire
from pipeline.policies.batch_submissions import slot_in
from pipeline.policies.openai_wire import Answer, Usage
from pipeline.policies.paid_answers import Slot
from pipeline.policies.retries import MalformedResponse, UnknownShape

_PASSING_STATUS = frozenset({0, 408, 409, 429})
_PASSING_CODES = frozenset({"batch_expired", "batch_cancelled"})


class Blame(Enum):
    """What a request without an answer tells of the next try."""

    PASSING = "passing"  # it may have one, and this one is not billed
    BILLED = "billed"  # it may have one, but this one's answer came to nothing on the way
    STRANGE = "strange"  # as billed, but likely to come so again
    REQUEST = "request"  # this request never has one
    ALL = "all"  # no request like it has one: an option, the key or the account is at fault


@dataclass(frozen=True, slots=True)
class Failure:
    """A request without an answer."""

    reason: str
    blame: Blame
    body: bytes = b""  # of a strange one, JSON


def read_results(
    config: OpenAIPolicy, lines: Iterable[str]
) -> tuple[dict[Slot, Answer | Failure], str | None]:
    """What became of each request, and what is wrong with the first line that is no result of ours,
    if there is one: the file came damaged, and should be fetched again."""
    results: dict[Slot, Answer | Failure] = {}
    damage: str | None = None
    for line in lines:
        if not line.strip():
            continue
        try:
            told = json.loads(line)
            slot = slot_in(told["custom_id"])
            response, error = told.get("response"), told.get("error")
            status = response["status_code"] if response else None
            body = response["body"] if response else None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as failure:
            damage = damage or f"a line of a batch's results is damaged: {failure!r}"
            continue
        results[slot] = _read(config, body) if status == 200 else _failure(status, body, error)
    return results, damage


def _read(config: OpenAIPolicy, body: object) -> Answer | Failure:
    try:
        return openai_wire.read_answer(config, body)
    except UnknownShape as strange:
        return Failure(str(strange), Blame.STRANGE, json.dumps(body).encode())
    except MalformedResponse as failed:
        return Failure(str(failed), Blame.BILLED)


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
