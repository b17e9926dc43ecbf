"""Which problems of which files are taken, and what is left out and why."""

import datetime
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import FileProblems
from pipeline.problems import BadRows, NoProblems, UnknownForm, read_files
from pipeline.problems.forms import FORMS, STATEMENTS, detect_form
from pipeline.problems.reading import Reading
from pipeline.problems.sources import problem_files

DATA = Path(__file__).parents[3] / "shared/data"


def row(problem_id: str, **changes: object) -> dict:
    fields = {
        "problem_id": problem_id,
        "statement": f"Print {problem_id}.",
        "difficulty": "easy",
        "released_on": "2024-05-01",
        "tests": [{"stdin": "", "expected": problem_id}],
    }
    return fields | changes


def write(path: Path, *rows: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(each)}\n" for each in rows))
    return path


def read(*paths: Path | str, **options: object) -> Reading:
    config = {"kind": "jsonl", "paths": tuple(map(str, paths))} | options
    return read_files(FileProblems.model_validate(config))


def ids(reading: Reading) -> list[str]:
    return [problem.problem_id for problem in reading.problems]


# --- filters ------------------------------------------------------------------------------------


@pytest.fixture
def dated(tmp_path: Path) -> Path:
    days = ["2024-07-31", "2024-08-01", "2025-02-01"]
    levels = ["easy", "hard", "hard"]
    rows = [row(d, released_on=d, difficulty=x) for d, x in zip(days, levels, strict=True)]
    return write(tmp_path / "p.jsonl", *rows)


@pytest.mark.parametrize(
    ("window", "taken"),
    [
        ({"before": "2024-08-01"}, ["2024-07-31"]),
        ({"after": "2024-08-01"}, ["2024-08-01", "2025-02-01"]),
        ({"after": "2024-08-01", "before": "2025-02-01"}, ["2024-08-01"]),
        ({"difficulties": ["hard"]}, ["2024-08-01", "2025-02-01"]),
        ({"difficulties": ["hard", "easy"], "limit": 2}, ["2024-07-31", "2024-08-01"]),
        ({"platforms": ["jsonl"], "before": "2024-08-01"}, ["2024-07-31"]),
        ({"difficulties": ["hard"], "limit": 1}, ["2024-08-01"]),
    ],
)
def test_filters_take_the_problems_they_name_and_count_the_rest(
    dated: Path, window: dict, taken: list[str]
) -> None:
    options = {
        name: datetime.date.fromisoformat(value) if name in ("before", "after") else value
        for name, value in window.items()
    }
    reading = read(dated, **options)
    assert ids(reading) == taken
    if "limit" not in window:
        assert reading.filtered == 3 - len(taken)


def test_a_word_that_no_problem_has_is_refused_with_those_there_are(dated: Path) -> None:
    with pytest.raises(NoProblems, match=r"difficulties: no problem has 'esay'; .* easy, hard"):
        read(dated, difficulties=("esay", "hard"))


def test_filters_that_leave_nothing_say_what_was_there(dated: Path) -> None:
    with pytest.raises(NoProblems, match="leave out all 3; released 2024-07-31 to 2025-02-01"):
        read(dated, after=datetime.date(2030, 1, 1))


# --- duplicates ---------------------------------------------------------------------------------


def test_a_problem_that_is_in_two_files_counts_once_and_is_told(tmp_path: Path) -> None:
    one = write(tmp_path / "1.jsonl", row("a"), row("b"))
    two = write(tmp_path / "2.jsonl", row("b"), row("c"))
    reading = read(one, two)
    assert ids(reading) == ["a", "b", "c"]
    assert reading.left_out() == [
        f"left out: {two}, row 1: b is the same problem as b in {one}, row 2"
    ]


def test_the_same_problem_under_another_id_is_a_duplicate(tmp_path: Path) -> None:
    reading = read(write(tmp_path / "p.jsonl", row("a"), row("a") | {"problem_id": "again"}))
    assert ids(reading) == ["a"]
    assert [(each.problem_id, each.kept) for each in reading.duplicates] == [("again", "a")]


@pytest.mark.parametrize(
    "change", [{"tests": [{"stdin": "", "expected": "other"}]}, {"starter_code": "x = 1"}]
)
def test_one_statement_with_other_tests_or_starter_code_is_another_problem(
    tmp_path: Path, change: dict
) -> None:
    other = row("a") | {"problem_id": "b"} | change
    assert ids(read(write(tmp_path / "p.jsonl", row("a"), other))) == ["a", "b"]


def test_two_problems_of_one_id_are_a_bad_row(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", row("a"), row("a", statement="Another."))
    with pytest.raises(BadRows, match=rf"row 2, id: 'a' is another problem .* in {path}, row 1"):
        read(path)


def test_bad_rows_that_are_skipped_are_counted_and_listed(tmp_path: Path) -> None:
    bad = [row(str(number), difficulty=1, tests=1) for number in range(30)]
    reading = read(write(tmp_path / "p.jsonl", *bad, row("good")), skip_bad_rows=True)
    assert ids(reading) == ["good"]
    assert (reading.bad_rows, len(reading.bad)) == (30, 60)
    (note,) = reading.left_out()
    assert note.startswith("left out: 30 rows cannot be read as problems")
    assert "and 40 more; `python -m jobs.problems FILE --json` lists all" in note


# --- files --------------------------------------------------------------------------------------


def test_a_folder_is_all_its_json_lines_files_in_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("test10.jsonl", "test.jsonl", "test2.jsonl", "more/part1.jsonl"):
        write(tmp_path / name, row(name))
    (tmp_path / "README.md").write_text("no rows")
    found = [str(Path(file).relative_to(tmp_path)) for file in problem_files([str(tmp_path)])]
    assert found == ["more/part1.jsonl", "test.jsonl", "test2.jsonl", "test10.jsonl"]
    assert len(read(tmp_path).problems) == 4


def test_a_folder_without_json_lines_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=f"{tmp_path}: holds no file that ends in .jsonl"):
        read(tmp_path)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A cache of the Hugging Face hub, as its own client lays it out, with one dataset."""
    place = tmp_path / "hub" / "datasets--livecodebench--code_generation_lite"
    for name, problem_id in (("test.jsonl", "1"), ("test2.jsonl", "2")):
        blob = write(place / "blobs" / f"blob-{problem_id}", row(problem_id))
        link = place / "snapshots" / COMMIT / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    write(place / "snapshots" / COMMIT / "code_generation_lite.py").write_text("raise SystemExit")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    return tmp_path / "hub"


def test_a_dataset_of_the_hub_is_read_by_name_from_its_cache_and_runs_no_script(hub: Path) -> None:
    name = "hf://datasets/livecodebench/code_generation_lite"
    program = f"""
from pipeline.config import FileProblems
from pipeline.problems import load_problems
for path in ("{name}", "{name}@{COMMIT}", "{name}/test2.jsonl"):
    print([p.problem_id for p in load_problems(FileProblems(kind="jsonl", paths=(path,)))])
try:
    load_problems(FileProblems(kind="jsonl", paths=("hf://datasets/no/such",)))
except OSError as error:
    print(error)
try:
    load_problems(FileProblems(kind="jsonl", paths=("hf://livecodebench",)))
except OSError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *read_, absent, misnamed = done.stdout.splitlines()
    assert read_ == ["['1', '2']", "['1', '2']", "['2']"]
    assert absent.startswith("hf://datasets/no/such: not in the hub's cache and cannot be")
    assert "is named hf://datasets/OWNER/NAME[@REVISION][/FILE]" in misnamed


# --- forms --------------------------------------------------------------------------------------


@pytest.mark.skipif(not DATA.exists(), reason="shared/data is not beside the project")
@pytest.mark.parametrize(
    ("file", "form"),
    [
        ("humaneval", "humaneval"),
        ("leetcode-v0.3.1-test", "leetcode"),
        ("livecodebench-o1-mini", STATEMENTS),
    ],
)
def test_the_form_of_a_benchmarks_file_is_found_out(file: str, form: str) -> None:
    assert detect_form([str(DATA / f"{file}.jsonl.gz")]) == form


def test_our_own_form_is_found_out_even_where_a_field_is_missing(tmp_path: Path) -> None:
    first = row("a")
    del first["difficulty"]
    assert detect_form([str(write(tmp_path / "p.jsonl", first))]) == "jsonl"


def test_statements_without_tests_are_no_form_that_a_run_takes() -> None:
    assert STATEMENTS not in FORMS
    assert "livecodebench" in FORMS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}\n", "in none of the forms"),
        ('{"id": 1}\n', "in none of the forms"),
        ("prose\n", "no JSON object; problems are JSON lines"),
        ('[{"question_id": "a"}]\n', "a JSON list begins here"),
        ('{\n  "problem_id": "a"\n}\n', "not a whole JSON object"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(UnknownForm, match=rf"p\.jsonl, row 1: {told}"):
        detect_form([str(tmp_path / "p.jsonl")])


def test_files_of_two_forms_are_refused_and_both_are_named(tmp_path: Path) -> None:
    empty, ours = write(tmp_path / "1.jsonl"), write(tmp_path / "2.jsonl", row("a"))
    code = {"prompt": "def f():\n", "canonical_solution": "", "test": "", "entry_point": "f"}
    other = write(tmp_path / "3.jsonl", {"task_id": "b"} | code)
    told = rf"{other} is in the form humaneval, {ours} in the form jsonl: give files of one form"
    with pytest.raises(UnknownForm, match=told):
        detect_form([str(tmp_path)])
    assert detect_form([str(empty), str(ours), str(ours)]) == "jsonl"


def test_a_first_row_that_is_no_problem_is_left_to_be_told_with_the_other_bad_rows(
    tmp_path: Path,
) -> None:
    write(tmp_path / "1.jsonl", row("a"))
    write(tmp_path / "2.jsonl", {"id": 1})
    assert detect_form([str(tmp_path)]) == "jsonl"


def test_an_empty_file_is_told_as_empty(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("\n")
    with pytest.raises(NoProblems, match=r"p\.jsonl: empty; give files with at least one problem"):
        detect_form([str(tmp_path / "p.jsonl")])
