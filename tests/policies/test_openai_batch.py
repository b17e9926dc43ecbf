"""The Batch API against a real server on loopback: half the price, nothing submitted twice."""

import collections
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.journal import Journal
from pipeline.policies import batch_submissions, budget, openai_batch, retries
from pipeline.policies.budget import BudgetExhausted
from pipeline.policies.ledger import Ledger
from pipeline.policies.openai_batch import OpenAIBatch
from pipeline.policies.protocol import PolicyError, PolicyUnavailable, UnanswerableRequest
from pipeline.records import FinishReason
from tests.policies import fault_server
from tests.policies.batch_endpoints import Line, Reply, answered, expired, succeeded
from tests.policies.fault_server import FaultServer
from tests.policies.openai_world import CALL_USD, KEY, ask, config, request

Opened = Callable[..., OpenAIBatch]


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
    policies: list[OpenAIBatch] = []

    def open_(**options: Any) -> OpenAIBatch:
        options = {"batch": True} | options
        policies.append(OpenAIBatch(config(server, **options), Journal(tmp_path)))
        return policies[-1]

    yield open_
    for policy in policies:
        policy.close()


@pytest.mark.parametrize("api", ["responses", "chat"])
def test_all_requests_go_into_one_batch_and_cost_half(
    opened: Opened, server: FaultServer, api: str, tmp_path: Path
) -> None:
    policy = opened(api=api)
    answers = ask(policy, request("a", 3), request("b", 2))
    assert len(answers) == 5
    assert all(answer.text == f"answer to Problem {key}" for (key, _), answer in answers.items())
    assert [len(batch.lines) for batch in server.batches.batches] == [5]
    assert server.batches.batches[0].endpoint.endswith(
        "/responses" if api == "responses" else "/chat/completions"
    )
    assert {line["url"] for line in server.batches.batches[0].lines} == {
        server.batches.batches[0].endpoint
    }
    assert all(answer.cost_usd == pytest.approx(CALL_USD / 2) for answer in answers.values())
    assert policy.spent_usd == pytest.approx(5 * CALL_USD / 2)
    assert server.calls == [], "a call at full price"
    assert not list((tmp_path / "batches").glob("*.jsonl")), "what was uploaded is of no use now"


def test_recorded_answers_need_neither_batch_nor_key_nor_server(
    opened: Opened, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = ask(opened(), request("a", 3))
    monkeypatch.delenv("OPENAI_API_KEY")
    server.preflight_faults.append(fault_server.error(401))
    assert ask(opened(), request("a", 3)) == answers
    assert ask(opened(), request("a", 2)).keys() == {("a", 0), ("a", 1)}
    assert len(server.batches.batches) == 1


def test_only_what_is_missing_is_submitted_and_equal_requests_once(
    opened: Opened, server: FaultServer
) -> None:
    ask(opened(), request("a", 2))
    answers = ask(opened(), request("a", 3), request("b", 1), request("c", 1, user="Problem b"))
    assert len(answers) == 5
    assert [len(batch.lines) for batch in server.batches.batches] == [2, 2]


def test_batches_keep_the_services_limits(
    opened: Opened, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_submissions, "MAX_REQUESTS", 4)
    ask(opened(), request("a", 10))
    assert [len(batch.lines) for batch in server.batches.batches] == [4, 4, 2]
    monkeypatch.setattr(batch_submissions, "MAX_REQUESTS", 50_000)
    three_lines = 3 * (len(server.batches.files["file0"]) + 1) // 4
    monkeypatch.setattr(batch_submissions, "MAX_BYTES", three_lines)
    ask(opened(), request("b", 5))
    assert [len(batch.lines) for batch in server.batches.batches[3:]] == [3, 2]


def test_what_expired_or_failed_in_passing_or_got_lost_is_submitted_again(
    opened: Opened, server: FaultServer
) -> None:
    tries: collections.Counter[str] = collections.Counter()

    def result(line: Line) -> Line | None:
        tries[line["custom_id"]] += 1
        index = int(line["custom_id"].rpartition("-")[2])
        if tries[line["custom_id"]] > 1 or index > 3:
            return succeeded(line)
        too_many = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
        down = {"error": {"message": "down", "code": None}}
        return [expired(line), None, answered(line, 429, too_many), answered(line, 503, down)][
            index
        ]

    server.batches.result = result
    server.batches.ends.append("expired")
    policy = opened()
    assert len(ask(policy, request("a", 6))) == 6
    assert [len(batch.lines) for batch in server.batches.batches] == [6, 4]
    assert policy.spent_usd == pytest.approx(6 * CALL_USD / 2), "what expired is not billed"


def refusing(**error: str) -> Callable[[Line], Line]:
    """A server that refuses the second sample of every prompt."""
    told = {"error": {"message": "not this one"} | error}

    def result(line: Line) -> Line:
        return answered(line, 400, told) if line["custom_id"].endswith("-1") else succeeded(line)

    return result


def test_a_request_that_is_refused_for_good_is_asked_for_once_a_run_and_the_others_are_kept(
    opened: Opened, server: FaultServer
) -> None:
    server.batches.result = refusing(code="a_new_policy")
    opened().prepare([request("a", 3), request("b", 1)], lambda done, total: None)
    for policy in (opened(), opened()):  # those of two workers
        with pytest.raises(UnanswerableRequest, match="a: batch batch0: 400: not this one"):
            ask(policy, request("a", 3))
        assert len(ask(policy, request("b", 1))) == 1
    assert [len(batch.lines) for batch in server.batches.batches] == [4]
    server.batches.result = succeeded
    again = opened()
    again.prepare([request("a", 3)], lambda done, total: None)
    assert len(ask(again, request("a", 3))) == 3
    assert [len(batch.lines) for batch in server.batches.batches] == [4, 1]


def test_a_request_whose_option_is_wrong_blames_no_prompt_and_the_others_are_kept(
    opened: Opened, server: FaultServer
) -> None:
    server.batches.result = refusing(param="reasoning.effort")
    with pytest.raises(PolicyError, match=r"1 of 3 requests.*a: batch batch0: 400: not this one"):
        ask(opened(), request("a", 3))
    server.batches.result = succeeded
    assert len(ask(opened(), request("a", 3))) == 3
    assert [len(batch.lines) for batch in server.batches.batches] == [3, 1]


def test_an_answer_that_makes_no_sense_is_asked_for_again_and_counts_against_the_cap(
    opened: Opened, server: FaultServer, tmp_path: Path
) -> None:
    tried: set[str] = set()

    def result(line: Line) -> Line:
        first = line["custom_id"] not in tried
        tried.add(line["custom_id"])
        return answered(line, 200, {"status": "completed"}) if first else succeeded(line)

    server.batches.result = result
    policy = opened(budget_usd=1.0)
    assert len(ask(policy, request("a", 2))) == 2
    assert policy.spent_usd == pytest.approx(2 * CALL_USD / 2)
    account = Ledger(tmp_path / "spending").others("")
    assert account.promised_usd == pytest.approx(2 * 0.010222 / 2)


def test_an_answer_with_a_strange_usage_is_kept_as_the_rest_of_its_batch_is(
    opened: Opened, server: FaultServer
) -> None:
    strange = fault_server.response("kept", usage={"input_tokens": "abc"})
    server.batches.result = lambda line: answered(line, 200, strange)
    assert [answer.text for answer in ask(opened(), request("a", 2)).values()] == ["kept", "kept"]
    assert len(server.batches.batches) == 1


@pytest.mark.parametrize("lost", ["batch", "results"])
def test_a_batch_that_the_server_has_no_more_names_the_note_to_delete(
    opened: Opened, server: FaultServer, tmp_path: Path, lost: str
) -> None:
    server.batches.lose = lost
    policy = opened(budget_usd=1.0)
    with pytest.raises(PolicyError, match=r"batch0.*delete .*\.json and run again") as told:
        ask(policy, request("a", 2))
    policy.close()
    server.batches.lose = None
    (note,) = (tmp_path / "batches").glob("*.json")
    assert f"delete {note} and" in str(told.value)
    note.unlink()
    policy = opened(budget_usd=1.0)
    assert len(ask(policy, request("a", 2))) == 2
    policy.close()
    promised = Ledger(tmp_path / "spending").others("").promised_usd
    assert promised == pytest.approx(2 * 0.010222 / 2), "the lost batch was perhaps billed"


def test_a_prompt_that_is_too_long_and_a_refusal_are_answers(
    opened: Opened, server: FaultServer
) -> None:
    long = {"error": {"message": "too long", "code": "context_length_exceeded"}}
    refusal = fault_server.response("")
    refusal["output"][1]["content"] = [{"type": "refusal", "refusal": "I cannot."}]

    def result(line: Line) -> Line:
        first = line["custom_id"].endswith("-0")
        return answered(line, 400, long) if first else answered(line, 200, refusal)

    server.batches.result = result
    answers = ask(opened(), request("a", 2))
    assert answers["a", 0].finish_reason is FinishReason.LENGTH
    assert answers["a", 0].cost_usd == 0.0
    assert answers["a", 1].finish_reason is FinishReason.REFUSED


def test_what_a_cancelled_batch_has_done_is_kept_and_the_rest_waits_for_the_next_run(
    opened: Opened, server: FaultServer
) -> None:
    server.batches.ends.append("cancelled")
    server.batches.result = lambda line: succeeded(line) if line["custom_id"][-1] in "01" else None
    with pytest.raises(PolicyError, match=r"2 of 4 requests.*batch0 was cancelled; run again"):
        ask(opened(), request("a", 4))
    server.batches.result = succeeded
    assert len(ask(opened(), request("a", 4))) == 4
    assert [len(batch.lines) for batch in server.batches.batches] == [4, 2]


def test_a_batch_that_is_refused_says_why_and_costs_nothing(
    opened: Opened, server: FaultServer
) -> None:
    server.batches.refusals.append("invalid_json_line")
    policy = opened()
    with pytest.raises(PolicyError, match="batch0 was refused: not this one"):
        ask(policy, request("a", 2))
    assert policy.spent_usd == 0.0
    assert len(ask(policy, request("a", 2))) == 2


def test_smaller_batches_are_tried_where_the_servers_queue_is_too_short(
    opened: Opened, server: FaultServer
) -> None:
    server.batches.refusals.append("token_limit_exceeded")
    assert len(ask(opened(), request("a", 8))) == 8
    assert [len(batch.lines) for batch in server.batches.batches] == [8, 4, 4]


def test_results_that_arrive_damaged_are_fetched_again(opened: Opened, server: FaultServer) -> None:
    server.batches.garble_files = 1
    assert len(ask(opened(), request("a", 3))) == 3
    assert len(server.batches.batches) == 1


def test_a_line_that_stays_damaged_costs_itself_alone(
    opened: Opened, server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "_BACKOFF", lambda state: 0.0)
    server.batches.garble_files = 2  # its end is missing, at the first try and at the second
    policy = opened(max_retries=1, budget_usd=1.0)
    assert len(ask(policy, request("a", 5))) == 5
    whole, again = (len(batch.lines) for batch in server.batches.batches)
    assert (whole, again) == (5, 3)
    policy.close()
    account = Ledger(tmp_path / "spending").others("")
    assert account.spent_usd == pytest.approx(5 * CALL_USD / 2)
    assert account.promised_usd == pytest.approx(3 * 0.010222 / 2), "billed, and never read"


def test_a_collector_that_is_killed_after_its_last_answer_leaves_no_promise_behind(
    opened: Opened, server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise PolicyError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(OpenAIBatch, "_close", killed)
        with pytest.raises(PolicyError, match="killed"):
            ask(opened(budget_usd=1.0), request("a", 3))
    ledger = Ledger(tmp_path / "spending")
    assert ledger.others("").promised_usd == pytest.approx(3 * 0.010222 / 2)
    assert len(ask(opened(budget_usd=1.0), request("a", 3))) == 3
    account = ledger.others("")
    assert account.promised_usd == pytest.approx(0.0)
    assert account.spent_usd == pytest.approx(3 * CALL_USD / 2)
    assert len(server.batches.batches) == 1


def test_a_batch_is_promised_once_before_the_server_hears_of_it(
    opened: Opened, server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is killed from then on leaves no second promise: the regular writes of the asker's
    own account, which would withdraw it in time, never come here."""
    monkeypatch.setattr(budget, "_WRITE_S", 3600.0)
    ledger, promised = Ledger(tmp_path / "spending"), list[float]()
    post = server.batches.post

    def heard(path: str, data: bytes) -> Reply:
        promised.append(ledger.others("").promised_usd)
        return post(path, data)

    server.batches.post = heard  # type: ignore[method-assign]
    assert len(ask(opened(budget_usd=1.0), request("a", 3))) == 3
    assert promised == [pytest.approx(3 * 0.010222 / 2)] * 2, "at the upload, at the creation"
    assert ledger.others("").promised_usd == pytest.approx(0.0)


def test_what_another_process_collects_meanwhile_is_not_submitted_again(
    opened: Opened, server: FaultServer
) -> None:
    server.batches.looks = 3
    first, second = opened(), opened()
    look = server.batches.get

    def collected_after_the_look(path: str) -> Reply:
        reply = look(path)
        server.batches.get = look  # type: ignore[method-assign]
        assert len(ask(second, request("a", 2))) == 2
        return reply

    server.batches.get = collected_after_the_look  # type: ignore[method-assign]
    assert len(ask(first, request("a", 2))) == 2
    assert len(server.batches.batches) == 1


def test_a_batch_whose_creation_was_not_confirmed_is_found_not_created_again(
    opened: Opened, server: FaultServer
) -> None:
    server.batches.drop_replies = 1
    assert len(ask(opened(), request("a", 3))) == 3
    assert len(server.batches.batches) == 1


def down_for(server: FaultServer, looks: int) -> None:
    """From now on, so many looks at a batch fail."""
    get = server.batches.get

    def look(path: str) -> Reply:
        nonlocal looks
        if "/batches/" not in path or not looks:
            return get(path)
        looks -= 1
        return 503, {}, b'{"error": {"message": "down for a while"}}'

    server.batches.get = look  # type: ignore[method-assign]


def test_an_outage_while_batches_are_under_way_is_waited_for(
    opened: Opened, server: FaultServer
) -> None:
    down_for(server, looks=4)
    assert len(ask(opened(max_retries=0), request("a", 3))) == 3
    assert len(server.batches.batches) == 1


def test_an_outage_that_lasts_ends_the_waiting_and_the_next_to_ask_finds_the_batch(
    opened: Opened, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_batch, "LONGEST_OUTAGE_S", 0.0)
    down_for(server, looks=1)
    with pytest.raises(PolicyUnavailable, match=r"Batch API: 503.*down for a while"):
        ask(opened(max_retries=0), request("a", 3))
    assert len(ask(opened(max_retries=0), request("a", 3))) == 3
    assert len(server.batches.batches) == 1


def test_the_budget_holds_over_batches(opened: Opened, server: FaultServer, tmp_path: Path) -> None:
    # A call costs at most 0.0103 / 2 dollars, and in the end 0.00104 / 2.
    policy = opened(budget_usd=0.03)
    with pytest.raises(BudgetExhausted, match=r"budget_usd is 0\.03"):
        ask(policy, request("p", 100))
    sizes = [len(batch.lines) for batch in server.batches.batches]
    assert sizes[0] == 5, "the first batch takes what fits at its worst"
    assert len(sizes) > 1, "what came out cheaper makes room for another"
    assert policy.spent_usd == pytest.approx(sum(sizes) * CALL_USD / 2)
    assert policy.spent_usd <= 0.03
    assert Ledger(tmp_path / "spending").others("").promised_usd == pytest.approx(0.0, abs=1e-9)
    assert len(ask(opened(budget_usd=1.0), request("p", 100))) == 100
    assert len(server.batches.submitted()) == len(set(server.batches.submitted())) == 100


_CLIENT = """
import sys
from pathlib import Path
from tests.policies.openai_world import ask, config, open_paid, request

if __name__ == "__main__":
    policy = open_paid(config(sys.argv[1], batch=True), Path(sys.argv[2]))
    print(len(ask(policy, request("p", 20))), flush=True)
    policy.close()
"""


@pytest.mark.parametrize("moment", ["uploaded", "created", "waiting", "ended"])
def test_a_client_that_is_killed_goes_on_with_the_same_batch(
    server: FaultServer, tmp_path: Path, moment: str
) -> None:
    """SIGKILL after the upload, between the creation and its reply, while waiting, while results
    are fetched."""
    environment = os.environ | {"OPENAI_API_KEY": KEY}
    arguments = [sys.executable, "-c", _CLIENT, server.base_url, str(tmp_path)]
    stopped = {
        "uploaded": ("POST", "/batches"),
        "created": ("POST", "/batches"),
        "waiting": ("GET", "/batches/"),
        "ended": ("GET", "/content"),
    }[moment]
    server.hang_on = stopped
    server.hang_before = moment == "uploaded"
    client = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL)
    assert server.hung.wait(60), "the client never came so far"
    client.send_signal(signal.SIGKILL)
    client.wait()
    server.hang_on = None
    time.sleep(0.05)

    done = subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "20"
    assert len(server.batches.batches) == 1
    assert len(server.batches.submitted()) == 20
    accounts = [json.loads(path.read_text()) for path in (tmp_path / "spending").glob("batch-*")]
    assert [account["spent_usd"] for account in accounts] == [pytest.approx(20 * CALL_USD / 2)]
