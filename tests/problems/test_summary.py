"""`jobs.problems`: what is in files of problems, and what of them a run would leave out."""

import json
from pathlib import Path

import pytest

from jobs.problems import main

DATA = Path(__file__).parents[3] / "shared/data"
LONG = "Given an array of integers, print the sum of all elements that are larger than their index."


def row(problem_id: str, **changes: object) -> dict:
    fields = {
        "problem_id": problem_id,
        "statement": f"Print {problem_id}.",
        "difficulty": "easy",
        "released_on": "2024-05-01",
        "tests": [{"stdin": "", "expected": "1", "public": True}, {"stdin": "2", "expected": "3"}],
    }
    return fields | changes


@pytest.fixture
def file(tmp_path: Path) -> str:
    call = {"entry_point": "f", "tests": [{"args": [1], "expected": 2}]}
    rows = [
        row("a"),
        row("b", difficulty="hard", released_on="2025-03-02", statement=LONG),
        row("c", **call),
        row("a"),
        row("d", statement=LONG + " Hurry.", released_on="2023-12-31"),
        row("bad", tests=[]),
    ]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(f"{json.dumps(each)}\n" for each in rows))
    return str(path)


def summary(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_everything_is_counted_and_what_is_left_out_is_told(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = summary(capsys, file, "--skip-bad-rows")
    assert (found["format"], found["problems"]) == ("jsonl", 4)
    assert found["by_platform"] == {"jsonl": 4}
    assert found["by_difficulty"] == {"easy": 3, "hard": 1}
    assert found["by_month"] == {"2023-12": 1, "2024-05": 2, "2025-03": 1}
    assert found["by_kind_of_test"] == {"stdin": 3, "call": 1}
    assert found["tests"] == {"least": 1, "median": 2.0, "most": 2, "total": 7}
    assert found["public_tests"] == 3
    assert found["by_role"] == {"train": 0, "meta": 2, "validation": 0, "test": 1, "no role": 0}
    assert found["near_duplicates"] == [
        "train problem d dropped: its statement is 93% that of test problem b"
    ]
    assert [(bad["row"], bad["field"]) for bad in found["bad_rows"]] == [(6, "tests")]
    assert [each["place"] for each in found["duplicates"]] == [f"{file}, row 4"]


def test_bad_rows_stop_the_summary_unless_they_are_skipped(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([file]) == 1
    told = capsys.readouterr().err
    assert f"{file}, row 6, tests: a problem needs at least one test" in told
    assert "--skip-bad-rows" in told


def test_json_lists_every_bad_row_also_where_they_stop_the_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text("{}\n" * 30)
    assert main([str(path), "--format", "jsonl"]) == 1
    assert "`python -m jobs.problems FILE --json` lists all" in capsys.readouterr().err
    assert main([str(path), "--format", "jsonl", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["bad_rows"]
    assert {bad["row"] for bad in found} == set(range(1, 31))


def test_filters_choose_what_is_counted(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    window = ("--after", "2024-01-01", "--before", "2025-01-01")
    found = summary(capsys, file, "--skip-bad-rows", *window)
    assert (found["problems"], found["filtered"]) == (2, 2)
    assert summary(capsys, file, "--skip-bad-rows", "--difficulty", "hard")["problems"] == 1


def test_the_table_names_counts_bad_rows_and_near_duplicates(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([file, "--skip-bad-rows"]) == 0
    shown = capsys.readouterr().out
    assert "tests per problem: 1 to 2, median 2 (3 of 7 public)" in shown
    assert "left out: 0 by filters, 1 bad rows, 1 duplicates" in shown
    assert "row 6, tests" in shown
    assert "train problem d dropped" in shown


def test_the_longest_bar_is_whole_on_80_columns(
    file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([file, "--skip-bad-rows"]) == 0
    (longest,) = (line for line in capsys.readouterr().out.splitlines() if "2024-05" in line)
    assert longest.count("▇") == 30
    assert "…" not in longest


def test_words_of_a_file_are_shown_and_not_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row("a", difficulty="[/x]"), row("b", difficulty="\x1b[31mred\n")]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(f"{json.dumps(each)}\n" for each in rows))
    assert main([str(path)]) == 0
    shown = capsys.readouterr().out
    assert "[/x]" in shown
    assert "\ufffd[31mred\ufffd" in shown
    assert "\x1b" not in shown


@pytest.mark.skipif(not DATA.exists(), reason="shared/data is not beside the project")
def test_the_recorded_livecodebench_problems_are_summarised_without_tests(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = summary(capsys, str(DATA / "livecodebench-o1-mini.jsonl.gz"))
    assert (found["format"], found["problems"]) == ("eval_all", 880)
    assert found["by_platform"] == {"atcoder": 490, "leetcode": 381, "codeforces": 9}
    assert found["by_difficulty"] == {"medium": 331, "easy": 279, "hard": 270}
    assert found["by_kind_of_test"] == {"none": 880}
    assert sum(found["by_month"].values()) == 880


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["absent.jsonl"], 1, "absent.jsonl: cannot be read: No such file"),
        (["README.md"], 1, "README.md, row 1: no JSON object"),
        (["README.md", "--format", "jsonl"], 1, "README.md, row 1, row"),
    ],
)
def test_what_is_wrong_is_told_in_words(
    arguments: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    assert told in capsys.readouterr().err


def test_a_window_that_ends_before_it_begins_is_told_as_our_own_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    window = ("--after", "2025-01-01", "--before", "2024-01-01")
    assert main(["x", "--format", "jsonl", *window]) == 2
    assert capsys.readouterr().err.startswith("after (2025-01-01) must be earlier than before")


def test_a_date_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["x", "--before", "soon"])
    assert "'soon' is no date such as 2024-08-01" in capsys.readouterr().err
