"""The client against a real server on loopback that fails on demand."""

import asyncio
import dataclasses
import email.utils
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import OpenAIPolicy
from pipeline.journal import Journal
from pipeline.policies import openai_client
from pipeline.policies.budget import BudgetExhausted
from pipeline.policies.ledger import Ledger
from pipeline.policies.openai import OpenAI
from pipeline.policies.protocol import (
    PolicyError,
    PolicyRequest,
    PolicyResponse,
    PolicyUnavailable,
    UnanswerableRequest,
)
from pipeline.prompts import Prompt
from pipeline.records import FinishReason
from tests.policies import fault_server
from tests.policies.fault_server import Fault, FaultServer
from tests.policies.openai_world import CALL_USD, KEY, ask, config, request

Opened = Callable[..., OpenAI]


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


@pytest.fixture
def opened(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Opened]:
    """Opens policies on one journal directory."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    policies: list[OpenAI] = []

    def open_(**options: Any) -> OpenAI:
        policies.append(OpenAI(config(server, **options), Journal(tmp_path / "journal")))
        return policies[-1]

    yield open_
    for policy in policies:
        policy.close()


def one(policy: OpenAI) -> PolicyResponse:
    return ask(policy, request("p"))["p", 0]


# --- what is sent, what comes back ------------------------------------------------------------


def test_the_responses_api_is_asked_with_effort_and_without_temperature(
    opened: Opened, server: FaultServer
) -> None:
    answer = one(opened())
    assert server.calls == [
        {
            "model": "o4-mini",
            "instructions": "Write Python.",
            "input": "Problem p",
            "max_output_tokens": 1000,
            "reasoning": {"effort": "high"},
            "store": False,
        }
    ]
    assert answer == PolicyResponse(
        "p", 0, "answer to Problem p", FinishReason.STOP, 40, 100, 60, 0, pytest.approx(CALL_USD)
    )


def test_the_chat_api_is_asked_for_servers_that_only_have_that(
    opened: Opened, server: FaultServer
) -> None:
    answer = one(opened(api="chat", reasoning_effort=None))
    assert server.calls == [
        {
            "model": "o4-mini",
            "messages": [
                {"role": "system", "content": "Write Python."},
                {"role": "user", "content": "Problem p"},
            ],
            "max_completion_tokens": 1000,
        }
    ]
    assert (answer.text, answer.reasoning_tokens) == ("answer to Problem p", 60)


def with_content(content: Any, **changes: Any) -> dict[str, Any]:
    """A response whose message has this content, beside items and parts of another version."""
    body = fault_server.response("", **changes)
    body["output"][1]["content"] = content
    body["output"] += [{"id": "no type"}, "no item", {"type": "message", "content": None}]
    return body


def chat_parts(*parts: dict[str, Any]) -> dict[str, Any]:
    body = fault_server.chat_completion(None)
    body["choices"][0]["message"]["content"] = list(parts)
    return body


def refused() -> dict[str, Any]:
    body = fault_server.response("")
    body["output"][1]["content"] = [{"type": "refusal", "refusal": "I cannot."}]
    return body


@pytest.mark.parametrize(
    ("body", "text", "reason"),
    [
        (refused(), "I cannot.", FinishReason.REFUSED),
        (fault_server.response(""), "", FinishReason.STOP),
        (
            fault_server.response(
                "def ma",
                status="incomplete",
                incomplete_details={"reason": "max_output_tokens"},
            ),
            "def ma",
            FinishReason.LENGTH,
        ),
        (
            fault_server.response(
                "", status="incomplete", incomplete_details={"reason": "content_filter"}
            ),
            "",
            FinishReason.FILTERED,
        ),
        (
            fault_server.response(
                "def ma", status="incomplete", incomplete_details={"reason": "max_time"}
            ),
            "def ma",
            FinishReason.LENGTH,
        ),
        (fault_server.response("def ma", status="incomplete"), "def ma", FinishReason.LENGTH),
        (fault_server.response("text", status="weary"), "text", FinishReason.LENGTH),
        (fault_server.response("text", status=None), "text", FinishReason.LENGTH),
        (
            with_content([{"type": "output_text", "text": "te"}, {"new": 1}, {"text": "xt"}, "?"]),
            "text",
            FinishReason.STOP,
        ),
        (with_content([{"type": "output_text", "text": None}]), "", FinishReason.STOP),
        (with_content("text", incomplete_details="?"), "text", FinishReason.LENGTH),
    ],
)
def test_an_unusual_answer_is_kept_and_marked(
    opened: Opened, server: FaultServer, body: dict[str, Any], text: str, reason: FinishReason
) -> None:
    server.faults.append(fault_server.success(body))
    answer = one(opened())
    assert (answer.text, answer.finish_reason) == (text, reason)
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    ("body", "text", "reason"),
    [
        (fault_server.chat_completion("def ma", "length"), "def ma", FinishReason.LENGTH),
        (fault_server.chat_completion(None, "content_filter"), "", FinishReason.FILTERED),
        (fault_server.chat_completion(None, refusal="No."), "No.", FinishReason.REFUSED),
        (fault_server.chat_completion("def ma", "weariness"), "def ma", FinishReason.LENGTH),
        (fault_server.chat_completion("def ma", None), "def ma", FinishReason.LENGTH),
        (chat_parts({"type": "text", "text": "te"}, {"text": "xt"}, {}), "text", FinishReason.STOP),
        (chat_parts({"type": "refusal", "refusal": "No."}), "No.", FinishReason.REFUSED),
        (fault_server.chat_completion(None), "", FinishReason.STOP),
    ],
)
def test_an_unusual_chat_answer_is_kept_and_marked(
    opened: Opened, server: FaultServer, body: dict[str, Any], text: str, reason: FinishReason
) -> None:
    server.faults.append(fault_server.success(body))
    answer = one(opened(api="chat"))
    assert (answer.text, answer.finish_reason) == (text, reason)
    assert len(server.calls) == 1, "paid for twice"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("context_length_exceeded", FinishReason.LENGTH),
        ("invalid_prompt", FinishReason.FILTERED),
    ],
)
def test_a_prompt_that_the_server_cannot_take_is_an_answer_not_an_error(
    opened: Opened, server: FaultServer, code: str, reason: FinishReason
) -> None:
    server.faults.append(fault_server.error(400, code=code))
    answer = one(opened())
    assert (answer.text, answer.finish_reason, answer.cost_usd) == ("", reason, 0.0)


# --- failures that pass and failures that stay ------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        *(fault_server.error(status) for status in (408, 409, 429, 500, 503)),
        Fault(),
        Fault(200, body=b'{"id": "resp', missing_bytes=100),
        Fault(200, body=b'{"id": "resp'),
        Fault(200, body=b'{"id": "\xff"}'),
        Fault(200, body=b"[" * 100_000),
        Fault(200, body=b"[1, 2]"),
        fault_server.success({"object": "response", "status": "completed"}),
        fault_server.success(
            fault_server.response(
                "", status="failed", error={"code": "server_error", "message": "oops"}
            )
        ),
        *(
            fault_server.success(fault_server.response("", status=status))
            for status in ("cancelled", "in_progress", "queued")
        ),
    ],
    ids=[
        *("408", "409", "429", "500", "503", "dropped connection", "truncated body"),
        *("malformed JSON", "no UTF-8", "JSON without an end to its depth"),
        *("JSON of another kind", "JSON of another shape", "failed response"),
        *("cancelled", "in progress", "queued"),
    ],
)
def test_a_passing_failure_is_tried_again(
    opened: Opened, server: FaultServer, fault: Fault
) -> None:
    server.faults.append(fault)
    assert one(opened()).text == "answer to Problem p"
    assert len(server.calls) == 2


def test_an_answer_of_an_unknown_shape_is_asked_for_twice_at_most_and_kept(
    opened: Opened, server: FaultServer, tmp_path: Path
) -> None:
    strange = {"object": "response", "status": "completed", "text": "dear words"}
    server.faults.extend([fault_server.success(strange)] * 4)
    with pytest.raises(
        PolicyError, match=r"unknown shape: KeyError\('output'\); it is kept in "
    ) as e:
        one(opened(max_retries=6))
    assert not isinstance(e.value, PolicyUnavailable), "another of its kind would be paid for"
    assert len(server.calls) == 2
    kept = Path(str(e.value).rpartition("kept in ")[2])
    assert json.loads(kept.read_bytes()) == strange
    server.faults.clear()
    assert one(opened()).text == "answer to Problem p"


def test_what_is_no_http_is_tried_again_and_may_have_been_paid(
    opened: Opened, server: FaultServer, tmp_path: Path
) -> None:
    server.faults.append(Fault(raw=b"SSH-2.0-wrong port\r\n\r\n"))
    policy = opened(budget_usd=1.0)
    assert one(policy).text == "answer to Problem p"
    policy.close()
    account = Ledger(tmp_path / "journal" / "spending").others("")
    assert account.promised_usd > 0.01


def test_a_timeout_is_tried_again(opened: Opened, server: FaultServer) -> None:
    server.faults.append(Fault(200, body=b"{}", delay_s=2.0))
    assert one(opened(timeout_s=0.5)).text == "answer to Problem p"


@pytest.mark.parametrize("form", ["seconds", "milliseconds", "date"])
def test_retry_after_is_honoured(opened: Opened, server: FaultServer, form: str) -> None:
    policy = opened()
    policy.preflight()
    headers = {
        "seconds": {"retry_after": "1.5"},
        "milliseconds": {"retry_after_ms": "1500"},
        "date": {"retry_after": email.utils.formatdate(time.time() + 2.5, usegmt=True)},
    }[form]
    asked = time.monotonic()
    server.faults.append(fault_server.error(429, **headers))
    one(policy)
    first, second = server.times
    assert second - (first if form != "date" else asked) >= 1.4
    assert second - first < 15.0


@pytest.mark.parametrize(
    "fault",
    [
        fault_server.error(400, "no such effort", param="reasoning.effort"),
        fault_server.error(400, "no such option", code="unknown_parameter"),
        fault_server.error(401, "who are you"),
        fault_server.error(403, "not yours"),
        fault_server.error(429, "pay your bill", code="insufficient_quota"),
        fault_server.error(429, "come back tomorrow", retry_after="86400"),
    ],
    ids=["bad option", "unknown option", "401", "403", "used-up quota", "a day's patience"],
)
def test_a_failure_that_stays_is_not_tried_again(
    opened: Opened, server: FaultServer, fault: Fault
) -> None:
    server.faults.append(fault)
    assert fault.body is not None
    with pytest.raises(PolicyError, match=json.loads(fault.body)["error"]["message"]):
        one(opened())
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    "fault",
    [
        fault_server.error(400, "not this prompt", code="a_new_policy"),
        fault_server.error(400, "not this prompt", param="input[0].content"),
        fault_server.error(413, "not this prompt"),
        fault_server.error(422, "not this prompt"),
    ],
    ids=["400", "400 that names the prompt", "413", "422"],
)
def test_a_prompt_that_the_server_never_takes_is_one_unanswerable_request(
    opened: Opened, server: FaultServer, fault: Fault
) -> None:
    server.faults.append(fault)
    with pytest.raises(UnanswerableRequest, match=r"request p: 4\d\d.*not this prompt"):
        one(opened())
    assert len(server.calls) == 1


def test_calls_in_flight_are_recorded_before_a_failure_is_told(
    opened: Opened, server: FaultServer, tmp_path: Path
) -> None:
    """Its process may end with the failure, and nobody closes the policy before."""
    server.faults.append(dataclasses.replace(fault_server.error(403, "not yours"), delay_s=0.2))
    slow = json.dumps(fault_server.response("slow")).encode()
    server.faults.extend(Fault(200, body=slow, delay_s=1.0) for _ in range(5))
    with pytest.raises(PolicyError, match="not yours"):
        ask(opened(requests_in_flight=6), request("p", samples=6))
    assert len(server.calls) == 6
    assert len(Journal(tmp_path / "journal")) == 5
    account = Ledger(tmp_path / "journal" / "spending").others("")
    assert account.spent_usd == pytest.approx(5 * CALL_USD)
    assert account.promised_usd == pytest.approx(0.0)


def test_retries_end_with_the_last_failure(opened: Opened, server: FaultServer) -> None:
    server.faults.extend(fault_server.error(503, "still down") for _ in range(3))
    with pytest.raises(PolicyError, match=r"request p: 503.*still down"):
        one(opened(max_retries=1))
    assert len(server.calls) == 2


# --- before anything is spent -----------------------------------------------------------------


def test_preflight_names_an_unknown_model_and_similar_ones(
    opened: Opened, server: FaultServer
) -> None:
    with pytest.raises(PolicyError, match=r"'o4-min'.*retired.*o4-mini"):
        opened(model="o4-min").preflight()
    with pytest.raises(PolicyError, match="'o4-min'"):
        one(opened(model="o4-min"))
    assert server.calls == []


def test_a_server_that_is_down_at_the_preflight_may_be_up_later(
    opened: Opened, server: FaultServer
) -> None:
    server.preflight_faults.append(fault_server.error(503, "still down"))
    policy = opened(max_retries=0)
    with pytest.raises(PolicyUnavailable, match=r"preflight for 'o4-mini': 503.*still down"):
        policy.preflight()
    policy.preflight()


def test_preflight_names_a_bad_key_without_showing_it(opened: Opened, server: FaultServer) -> None:
    server.preflight_faults.append(fault_server.error(401, f"Incorrect API key: {KEY}"))
    with pytest.raises(PolicyError, match="OPENAI_API_KEY was refused") as caught:
        opened().preflight()
    assert KEY not in str(caught.value)
    assert server.calls == []


def test_a_missing_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    policy = OpenAI(OpenAIPolicy(), Journal(tmp_path))
    with pytest.raises(PolicyError, match="OPENAI_API_KEY is not set"):
        policy.preflight()
    policy.close()


def test_a_key_with_a_line_end_is_taken_without_it(
    opened: Opened, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    server.preflight_faults.append(fault_server.error(401, f"Incorrect API key: {KEY}"))
    with pytest.raises(PolicyError, match="was refused") as caught:
        opened().preflight()
    assert KEY not in str(caught.value)
    assert one(opened()).text == "answer to Problem p"


@pytest.mark.parametrize("stray", ["\u2026", "\n", "\x7f"])
def test_a_key_with_a_character_that_no_key_has_is_named_without_showing_it(
    opened: Opened, server: FaultServer, monkeypatch: pytest.MonkeyPatch, stray: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}{stray}{KEY}")
    with pytest.raises(PolicyError, match="OPENAI_API_KEY holds a character that") as caught:
        opened().preflight()
    assert KEY not in str(caught.value)


def test_the_config_alone_says_which_server_is_paid(
    opened: Opened, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_client, "OPENAI_URL", server.base_url)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert one(opened(base_url=None, max_retries=0)).text == "answer to Problem p"


def test_the_key_is_in_no_error_log_file_or_representation(
    opened: Opened, server: FaultServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.faults.append(fault_server.error(403, f"strange key {KEY}"))
    policy = opened()
    with pytest.raises(PolicyError) as caught:
        one(policy)
    one(policy)
    told = [str(caught.value), repr(caught.value), repr(policy), repr(vars(policy)), caplog.text]
    cause: BaseException | None = caught.value
    while cause is not None and not (cause.__suppress_context__ and cause.__cause__ is None):
        cause = cause.__cause__ or cause.__context__
        told.append(repr(cause))
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any(KEY in text for text in told)
    assert not any(KEY.encode() in data for data in files)


# --- what it costs ----------------------------------------------------------------------------


def with_cached_prompt(cached: int) -> dict[str, Any]:
    body = fault_server.response("text")
    body["usage"]["input_tokens_details"]["cached_tokens"] = cached
    return body


def test_cached_prompt_tokens_are_counted_and_cost_less(
    opened: Opened, server: FaultServer
) -> None:
    server.faults.append(fault_server.success(with_cached_prompt(30)))
    answer = one(opened())
    assert (answer.prompt_tokens, answer.cached_tokens) == (40, 30)
    assert answer.cost_usd == pytest.approx((10 * 1.0 + 30 * 0.25 + 100 * 10.0) / 1e6)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        "forty",
        {"input_tokens": "abc", "output_tokens": 100},
        {"input_tokens": 40, "output_tokens": float("inf")},
        {"input_tokens": 40, "output_tokens": -100},
        {"input_tokens": 40, "output_tokens": 10**400},
    ],
)
def test_an_answer_without_a_sound_usage_is_kept_and_counts_at_its_worst(
    opened: Opened, server: FaultServer, usage: Any
) -> None:
    server.faults.append(fault_server.success(fault_server.response("text", usage=usage)))
    prompt_bytes = len("Write Python.Problem p")
    answer = one(opened())
    assert answer.text == "text"
    assert answer.cost_usd == pytest.approx((prompt_bytes + 200 + 1000 * 10.0) / 1e6)


@pytest.mark.parametrize(
    ("fault", "lost"),
    [
        (Fault(), True),
        (Fault(200, body=b'{"id": "resp', missing_bytes=100), True),
        (Fault(200, body=b'{"id": "resp'), True),
        (fault_server.error(503), False),
        (fault_server.error(429), False),
    ],
    ids=["dropped connection", "truncated body", "malformed JSON", "503", "429"],
)
def test_an_answer_that_was_lost_on_the_way_counts_against_the_cap(
    opened: Opened, server: FaultServer, tmp_path: Path, fault: Fault, lost: bool
) -> None:
    server.faults.append(fault)
    policy = opened(budget_usd=1.0)
    one(policy)
    policy.close()
    account = Ledger(tmp_path / "journal" / "spending").others("")
    assert account.spent_usd == pytest.approx(CALL_USD)
    assert account.promised_usd == (pytest.approx(0.010222) if lost else pytest.approx(0.0))


def test_two_policies_at_once_keep_one_budget(opened: Opened, server: FaultServer) -> None:
    # One call costs 0.00104 dollars, and could cost at most 0.0103.
    server.latency_s = 0.02
    policies = [opened(budget_usd=0.03) for _ in range(2)]

    async def spend(policy: OpenAI, key: str) -> None:
        async for _ in policy.complete([request(key, samples=40)]):
            pass

    async def both() -> list[Any]:
        spending = [spend(policy, f"p{number}") for number, policy in enumerate(policies)]
        return await asyncio.gather(*spending, return_exceptions=True)

    assert all(isinstance(told, BudgetExhausted) for told in asyncio.run(both()))
    for policy in policies:
        policy.close()
    spent = len(server.calls) * CALL_USD
    assert 0.03 - 0.0103 < spent <= 0.03


# --- rate limits --------------------------------------------------------------------------------


def test_calls_wait_for_the_limits_that_the_servers_headers_name(
    opened: Opened, server: FaultServer
) -> None:
    server.answer_headers = {
        "x-ratelimit-limit-requests": "120",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-limit-tokens": "1000000",
        "x-ratelimit-remaining-tokens": "900000",
    }
    policy = opened(requests_in_flight=1)
    ask(policy, request("p", samples=3))
    first, second, third = server.times
    assert second - first < third - second
    assert third - second >= 0.4, "one request was left, the next comes half a second later"


def test_a_429_holds_back_all_calls_not_only_its_own(opened: Opened, server: FaultServer) -> None:
    server.faults.append(fault_server.error(429, retry_after="1.5"))
    policy = opened(requests_in_flight=2, requests_per_minute=60_000)
    ask(policy, request("p", samples=8))
    early = [at for at in server.times if at - server.times[0] < 1.4]
    assert len(early) <= 3, "the two in flight, and at most one that was just being sent"


# --- concurrency ------------------------------------------------------------------------------


def test_no_more_requests_are_in_flight_than_allowed(opened: Opened, server: FaultServer) -> None:
    server.latency_s = 0.05
    ask(opened(requests_in_flight=4), request("p", samples=24))
    assert server.peak_in_flight == 4


def test_many_requests_are_in_flight_at_once(opened: Opened, server: FaultServer) -> None:
    server.latency_s = 0.5
    ask(opened(requests_in_flight=32), request("p", samples=64))
    assert server.peak_in_flight == 32


# --- paying once ------------------------------------------------------------------------------


def test_a_recorded_answer_is_not_paid_for_again_and_needs_neither_key_nor_server(
    opened: Opened, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened()
    answers = ask(first, request("p", samples=3))
    first.close()
    monkeypatch.delenv("OPENAI_API_KEY")
    server.preflight_faults.append(fault_server.error(401))
    assert ask(opened(), request("p", samples=3)) == answers
    assert len(server.calls) == 3


def test_equal_prompts_share_their_answers_also_when_asked_at_once(
    opened: Opened, server: FaultServer
) -> None:
    server.latency_s = 0.1
    same = [request(key, samples=2, user="the same") for key in "abc"]
    answers = ask(opened(), *same)
    assert len(server.calls) == 2
    assert set(answers) == {(key, index) for key in "abc" for index in (0, 1)}


@pytest.mark.parametrize(
    "change", [{"model": "gpt-x"}, {"reasoning_effort": "low"}, {"max_output_tokens": 999}]
)
def test_another_model_or_option_is_another_answer(
    opened: Opened, server: FaultServer, change: dict[str, Any]
) -> None:
    one(opened())
    one(opened(**change))
    assert len(server.calls) == 2


def test_the_budget_stops_before_the_call_that_could_break_it(
    opened: Opened, server: FaultServer
) -> None:
    # One call costs 0.00104 dollars, and could cost at most 0.0103.
    server.latency_s = 0.02
    policy = opened(budget_usd=0.03)
    with pytest.raises(BudgetExhausted, match=r"budget_usd is 0\.03"):
        ask(policy, request("p", samples=100))
    assert policy.spent_usd == pytest.approx(len(server.calls) * CALL_USD)
    assert policy.spent_usd <= 0.03
    assert policy.spent_usd + 0.0103 > 0.03, "it stopped too early"
    policy.close()

    calls = len(server.calls)
    with pytest.raises(BudgetExhausted):
        ask(opened(budget_usd=0.03), request("p", samples=100))
    assert len(server.calls) == calls, "what is recorded counts, and is not asked again"
    assert len(ask(opened(budget_usd=0.2), request("p", samples=100))) == 100
    assert len(server.calls) == 100


def test_calls_in_flight_are_recorded_when_the_caller_stops(
    opened: Opened, server: FaultServer
) -> None:
    server.latency_s = 0.3
    policy = opened(requests_in_flight=8)

    async def first_only() -> None:
        answers = policy.complete([request("p", samples=40)])
        await anext(answers)
        await answers.aclose()  # type: ignore[attr-defined]

    asyncio.run(first_only())
    policy.close()
    paid = len(server.calls)
    assert paid <= 17
    ask(opened(), request("p", samples=40))
    assert len(server.calls) == 40, "a call was lost or repeated"


_CLIENT = """
import asyncio, sys
from pipeline.config import OpenAIPolicy
from pipeline.journal import Journal
from pipeline.policies.openai import OpenAI
from pipeline.policies.protocol import PolicyRequest
from pipeline.prompts import Prompt

async def main(url, directory, samples):
    config = OpenAIPolicy(base_url=url, requests_in_flight=8, max_output_tokens=1000)
    policy = OpenAI(config, Journal(directory))
    request = PolicyRequest("p", Prompt("", "Problem"), tuple(range(samples)))
    async for answer in policy.complete([request]):
        print(answer.sample_index, flush=True)
    policy.close()

if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def test_after_sigkill_no_more_is_paid_again_than_was_in_flight(
    server: FaultServer, tmp_path: Path
) -> None:
    server.latency_s = 0.05
    arguments = [sys.executable, "-c", _CLIENT, server.base_url, str(tmp_path), "200"]
    environment = os.environ | {"OPENAI_API_KEY": KEY}
    killed = subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    seen = [killed.stdout.readline() for _ in range(40)]
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    seen += killed.stdout.readlines()
    paid_before = len(server.calls)
    assert paid_before < 200

    subprocess.run(arguments, env=environment, stdout=subprocess.DEVNULL, check=True)
    repeated = len(server.calls) - 200
    assert repeated <= 8
    assert len(seen) <= paid_before
    assert len(Journal(tmp_path)) == 200


# --- a server that is not ours ----------------------------------------------------------------


@pytest.fixture(scope="module")
def vllm_server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """vLLM's own OpenAI-compatible server, on loopback, with the tiny model behind it."""
    log = tmp_path_factory.mktemp("vllm_server") / "log.txt"
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(tiny_model), "--served-model-name", "tiny", "--host", "127.0.0.1"),
        *("--port", "0", "--dtype", "float32", "--enforce-eager"),
        *("--kv-cache-memory-bytes", str(2**28)),
    ]
    environment = os.environ | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
    yield from _serve(command, environment, log)


def _serve(command: list[str], environment: dict[str, str], log: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command[command.index("--port") + 1] = port
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_vllms_own_server_is_served_through_both_apis(
    opened: Opened, vllm_server: str, api: str
) -> None:
    policy = opened(
        base_url=vllm_server,
        model="tiny",
        api=api,
        reasoning_effort=None,
        max_output_tokens=16,
    )
    answers = ask(policy, request("p", samples=8))
    assert len({answer.text for answer in answers.values()}) > 1
    for answer in answers.values():
        assert answer.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)
        assert answer.prompt_tokens > 0
        assert 0 < answer.completion_tokens <= 16
        assert answer.cost_usd == pytest.approx(
            (answer.prompt_tokens * 1.0 + answer.completion_tokens * 10.0) / 1e6
        )
    long = PolicyRequest("long", Prompt("", "x " * 2000), (0,))
    assert ask(policy, long)["long", 0].finish_reason is FinishReason.LENGTH
    with pytest.raises(PolicyError, match=r"'huge'.*similar ones"):
        opened(base_url=vllm_server, model="huge").preflight()
