import asyncio
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import ReplayPolicy
from pipeline.policies.protocol import PolicyError, PolicyRequest, PolicyResponse
from pipeline.policies.replay import Replay
from pipeline.prompts import Prompt

RECORDED = Path(__file__).parents[3] / "shared/data/livecodebench-o1-mini.jsonl.gz"
ANY = Prompt("", "whatever")


def ask(policy: Replay, *requests: PolicyRequest) -> list[PolicyResponse]:
    async def gather() -> list[PolicyResponse]:
        return [response async for response in policy.complete(requests)]

    return asyncio.run(gather())


def recorded(path: Path, rows: Any) -> Replay:
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return Replay(ReplayPolicy(path=str(path)))


@pytest.mark.skipif(not RECORDED.exists(), reason=f"{RECORDED.name} is not in shared/data")
def test_the_published_answers_of_o1_mini_are_replayed_verbatim() -> None:
    policy = Replay(ReplayPolicy(path=str(RECORDED)))
    with gzip.open(RECORDED, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    answers = ask(policy, *(PolicyRequest(row["question_id"], ANY, (0,)) for row in rows))
    assert len(answers) == 880
    assert [answer.text for answer in answers] == [row["output_list"][0] for row in rows]


def test_a_json_list_and_json_lines_read_alike(tmp_path: Path) -> None:
    rows = [
        {"question_id": "a", "output_list": ["x", "y"]},
        {"question_id": "b", "output_list": []},
    ]
    as_list = recorded(tmp_path / "list.json", rows)
    as_lines = recorded(tmp_path / "lines.jsonl", "\n".join(json.dumps(row) for row in rows))
    request = PolicyRequest("a", ANY, (0, 1))
    assert ask(as_list, request) == ask(as_lines, request)
    assert [answer.text for answer in ask(as_list, request)] == ["x", "y"]


def test_a_problem_without_candidates_is_named(tmp_path: Path) -> None:
    policy = recorded(tmp_path / "r.json", [{"question_id": "a", "output_list": ["x"]}])
    with pytest.raises(PolicyError, match="no candidates for problem 'b'"):
        ask(policy, PolicyRequest("b", ANY, (0,)))


def test_a_sample_beyond_the_recorded_ones_is_named(tmp_path: Path) -> None:
    policy = recorded(tmp_path / "r.json", [{"question_id": "a", "output_list": ["x"]}])
    with pytest.raises(PolicyError, match=r"has 1 candidates for problem 'a'.*sampling.samples"):
        ask(policy, PolicyRequest("a", ANY, (0, 1)))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("not json", "neither JSON lines nor a JSON list"),
        ([], "holds no recorded candidates"),
        ([{"output_list": ["x"]}], "row 1, question_id: Field required"),
        ([{"question_id": "a", "output_list": "x"}], "row 1, output_list: Input should be a"),
        ([{"question_id": "a", "output_list": ["", 7]}], "row 1, output_list[1]: Input should be"),
        (["text"], "row 1, row: Input should be"),
        ([{"question_id": "a", "output_list": []}] * 2, "row 2, question_id: 'a' came before"),
        (
            [{"question_id": "a", "output_list": ["x"], "graded_list": [True, False]}],
            "row 1, row: graded_list has 2 entries for 1 answers",
        ),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, rows: Any, told: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(told)):
        recorded(tmp_path / "r.json", rows)


def test_half_a_surrogate_pair_in_an_answer_becomes_a_replacement_character(tmp_path: Path) -> None:
    policy = recorded(tmp_path / "r.json", '[{"question_id": "a", "output_list": ["\\ud800!"]}]')
    assert [a.text for a in ask(policy, PolicyRequest("a", ANY, (0,)))] == ["\ufffd!"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"gone\.json"):
        Replay(ReplayPolicy(path=str(tmp_path / "gone.json")))
