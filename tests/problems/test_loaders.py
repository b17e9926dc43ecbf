"""Files of every form to problems; what is wrong with a row is said by file, row and field."""

import base64
import dataclasses
import datetime
import gzip
import json
import logging
import pickle
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from pipeline import schemas
from pipeline.config import FileProblems
from pipeline.execution import to_program
from pipeline.problems import BadRows, NoProblems, Reading, load_problems, read_files
from pipeline.problems.livecodebench import unpack
from pipeline.problems.rows import FieldError
from sandbox import Comparator, Sandbox, Status, TestCase, Verdict
from sandbox.checks import checks_of

DATA = Path(__file__).parents[3] / "shared/data"
OURS = {
    "problem_id": "double",
    "title": "Double",
    "statement": "Print the double.",
    "difficulty": "easy",
    "released_on": "2024-05-01",
    "entry_point": None,
    "starter_code": "",
    "tests": [{"stdin": "1\n", "expected": "2\n", "public": True}, {"stdin": "", "expected": ""}],
}
CALL = OURS | {"problem_id": "call", "entry_point": "Solution().double", "time_limit_s": 2}
CALL["tests"] = [
    {"args": [1, "é"], "kwargs": {"k": None}, "expected": {"a": [2.5, True]}},
    {"args": [], "expected": None},
]


def write(path: Path, rows: list) -> Path:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def load(kind: str, path: Path, **options):
    return load_problems(FileProblems(kind=kind, paths=(str(path),), **options))


def bad(kind: str, path: Path) -> list[tuple[int, str]]:
    with pytest.raises(BadRows) as caught:
        load(kind, path)
    assert {row.file for row in caught.value.rows} == {str(path)}
    assert all(str(row) in str(caught.value) for row in caught.value.rows)
    return [(row.row, row.field) for row in caught.value.rows]


# --- our own form ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["problems.jsonl", "problems.jsonl.gz"])
def test_our_own_form_is_read_and_sorted_by_id(tmp_path, name):
    call, double = load("jsonl", write(tmp_path / name, [OURS, "", CALL]))
    assert (double.problem_id, double.entry_point, double.time_limit_s) == ("double", None, 6.0)
    assert double.released_on == datetime.date(2024, 5, 1)
    assert double.comparator is Comparator.LCB
    assert double.tests == (
        TestCase(expected="2\n", stdin="1\n", public=True),
        TestCase(expected="", stdin=""),
    )
    assert (call.entry_point, call.time_limit_s) == ("Solution().double", 2.0)
    assert call.tests == (
        TestCase(expected='{"a": [2.5, true]}', args='[1, "é"]', kwargs='{"k": null}'),
        TestCase(expected="null", args="[]"),
    )


def test_problems_survive_their_arrow_schema(tmp_path):
    problems = load("jsonl", write(tmp_path / "p.jsonl", [OURS, CALL]))
    assert schemas.PROBLEM.from_table(schemas.PROBLEM.to_table(problems)) == problems


def test_options_of_the_config_fill_in_what_rows_leave_out(tmp_path):
    path = write(tmp_path / "p.jsonl", [OURS, CALL])
    (call,) = load("jsonl", path, limit=1, time_limit_s=9.0, comparator=Comparator.STRICT)
    assert (call.problem_id, call.time_limit_s, call.comparator) == ("call", 2.0, Comparator.STRICT)
    assert load("jsonl", path, time_limit_s=9.0)[1].time_limit_s == 9.0


def without(field: str) -> dict:
    return {name: value for name, value in OURS.items() if name != field}


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ("{", "row"),
        ("[]", "row"),
        ('"\\ud800"', "row"),
        (without("statement"), "statement"),
        (OURS | {"problem_id": 3}, "problem_id"),
        (OURS | {"statement": ""}, "statement"),
        (OURS | {"colour": "red"}, "colour"),
        (OURS | {"released_on": "May 2024"}, "released_on"),
        (OURS | {"time_limit_s": 0}, "time_limit_s"),
        (OURS | {"time_limit_s": 1e300}, "time_limit_s"),
        (OURS | {"time_limit_s": float("inf")}, "time_limit_s"),
        (OURS | {"entry_point": "Solution.double"}, "entry_point"),
        (OURS | {"entry_point": ""}, "entry_point"),
        (CALL | {"entry_point": "class"}, "entry_point"),
        (OURS | {"tests": []}, "tests"),
        (OURS | {"tests": [{"stdin": "1"}]}, "tests[0].expected"),
        (OURS | {"tests": [{"stdin": "1", "expected": 2}]}, "tests[0].expected"),
        (OURS | {"tests": [*OURS["tests"], {"args": [1], "expected": 2}]}, "tests[2]"),
        (CALL | {"tests": [{"stdin": "1", "expected": 2}]}, "tests[0]"),
        (CALL | {"tests": [{"args": 1, "expected": 2}]}, "tests[0].args"),
        (CALL | {"tests": [{"args": [float("nan")], "expected": 2}]}, "tests[0].args"),
    ],
)
def test_a_bad_row_is_named_by_file_row_and_field(tmp_path, row, field):
    assert bad("jsonl", write(tmp_path / "p.jsonl", [OURS, row])) == [(2, field)]


def test_every_bad_row_is_listed_and_the_same_id_twice_is_one(tmp_path):
    rows = [OURS, without("tests"), OURS | {"statement": "Other."}, without("difficulty")]
    path = write(tmp_path / "p.jsonl", rows)
    assert bad("jsonl", path) == [(2, "tests"), (3, "id"), (4, "difficulty")]


def test_bad_rows_may_be_left_out_and_are_then_reported(tmp_path, caplog):
    path = write(tmp_path / "p.jsonl", [without("tests"), OURS])
    with caplog.at_level(logging.WARNING):
        (problem,) = load("jsonl", path, skip_bad_rows=True)
    assert problem.problem_id == "double"
    assert "left out: 1 row" in caplog.text
    assert f"{path}, row 1, tests" in caplog.text


def test_a_file_without_problems_is_an_error_that_names_it(tmp_path):
    path = write(tmp_path / "empty.jsonl", [])
    with pytest.raises(NoProblems, match=r"empty\.jsonl"):
        load("jsonl", path)


def test_a_missing_or_damaged_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(OSError, match=r"absent\.jsonl"):
        load("jsonl", tmp_path / "absent.jsonl")
    path = write(tmp_path / "p.jsonl.gz", [OURS] * 50)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(OSError, match=r"p\.jsonl\.gz"):
        load("jsonl", path)


# --- LiveCodeBench -----------------------------------------------------------------------------


def packed(value: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


STDIN_TESTS = json.dumps([{"input": "1\n", "output": "2\n", "testtype": "stdin"}])
CALL_TESTS = json.dumps([{"input": '[1, 2]\n"a"', "output": "3", "testtype": "functional"}])
LCB = {
    "question_title": "Double",
    "question_content": "Print the double.",
    "platform": "atcoder",
    "question_id": "abc1_a",
    "contest_id": "abc1",
    "contest_date": "2024-08-21T00:00:00",
    "starter_code": "",
    "difficulty": "easy",
    "public_test_cases": STDIN_TESTS,
    "private_test_cases": packed(STDIN_TESTS),
    "metadata": "{}",
}
LCB_CALL = LCB | {
    "question_id": "1",
    "platform": "leetcode",
    "starter_code": "class Solution:\n    def double(self, n, name):\n        ",
    "public_test_cases": CALL_TESTS,
    "private_test_cases": "[]",
    "metadata": '{"func_name": "double"}',
}


def test_livecodebench_problems_are_read(tmp_path):
    call, stdin = load("livecodebench", write(tmp_path / "lcb.jsonl", [LCB, LCB_CALL]))
    assert (stdin.platform, stdin.released_on) == ("atcoder", datetime.date(2024, 8, 21))
    assert stdin.entry_point is None
    assert stdin.tests == (
        TestCase(expected="2\n", stdin="1\n", public=True),
        TestCase(expected="2\n", stdin="1\n", public=False),
    )
    assert call.entry_point == "Solution().double"
    assert call.tests == (TestCase(expected="3", args='[[1, 2], "a"]', public=True),)


def test_programs_of_livecodebench_may_use_what_its_judge_imports(tmp_path):
    (problem,) = load("livecodebench", write(tmp_path / "lcb.jsonl", [LCB]))
    program = problem.prelude + (
        "assert deque is collections.deque and List[int] and inf == math.inf\n"
        "assert pow(2, 5, 7) == 4 and open is io.open and sum([1]) == 1\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_packed_string_is_read_in_every_pickle_protocol(protocol):
    pickled = pickle.dumps("[é\n]" * 99, protocol=protocol)
    assert unpack(base64.b64encode(zlib.compress(pickled)).decode()) == "[é\n]" * 99


class Explodes:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize("value", [Explodes(), ["text"], b"text", 7, None, ("a", "b")])
def test_a_pickle_of_anything_but_a_string_is_refused_and_never_run(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "lcb.jsonl", [LCB | {"private_test_cases": packed(value)}])
    assert bad("livecodebench", path) == [(1, "private_test_cases")]
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    "text",
    ["", "not base64!", base64.b64encode(b"no zlib").decode(), packed("text" * 99)[:-40]],
)
def test_private_tests_that_cannot_be_decoded_are_refused(text):
    with pytest.raises(FieldError):
        unpack(text)


def test_a_decompression_bomb_is_refused(monkeypatch):
    monkeypatch.setattr("pipeline.problems.livecodebench._MAX_BYTES", 1000)
    with pytest.raises(FieldError, match="larger than 1000"):
        unpack(packed("x" * 2000))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"contest_date": "soon"}, "contest_date"),
        ({"metadata": "{"}, "metadata"),
        ({"public_test_cases": "[{}]"}, "public_test_cases[0][input]"),
        ({"public_test_cases": CALL_TESTS}, "public_test_cases[0].testtype"),
        ({"public_test_cases": "[]", "private_test_cases": "[]"}, "tests"),
        ({"question_id": None}, "question_id"),
        ({"question_id": ""}, "question_id"),
        ({"question_content": ""}, "question_content"),
        ({"difficulty": ""}, "difficulty"),
        ({"metadata": '{"func_name": ""}'}, "metadata.func_name"),
        ({"metadata": '{"func_name": "f(); import os"}'}, "metadata.func_name"),
    ],
)
def test_a_bad_livecodebench_row_is_named_by_its_field(tmp_path, change, field):
    assert bad("livecodebench", write(tmp_path / "lcb.jsonl", [LCB | change])) == [(1, field)]


@pytest.mark.parametrize("value", ["[1", "NaN", "[-Infinity]", "[" * 9999, "-1" + "0" * 4300])
def test_values_of_livecodebenchs_calls_are_json_that_the_judge_can_read(tmp_path, value):
    for field in ("input", "output"):
        test = {"input": "1", "output": "3", "testtype": "functional", field: value}
        row = LCB_CALL | {"public_test_cases": json.dumps([test])}
        path = write(tmp_path / "lcb.jsonl", [row])
        assert bad("livecodebench", path) == [(1, f"public_test_cases[0].{field}")]


def test_the_longest_integers_that_are_read_can_be_judged_and_longer_ones_are_told(tmp_path):
    def load_with(digits: str):
        test = {"input": digits, "output": digits, "testtype": "functional"}
        row = LCB_CALL | {"public_test_cases": json.dumps([test])}
        return load("livecodebench", write(tmp_path / "lcb.jsonl", [row]))

    (problem,) = load_with("9" * 4300)
    assert checks_of(to_program(problem, "", 256))
    with pytest.raises(BadRows, match="an integer of 4,301 digits, of 4,300 at most"):
        load_with("9" * 4301)


# --- the recorded benchmarks -------------------------------------------------------------------


def reading(form: str, name: str) -> Reading:
    if not DATA.exists():
        pytest.skip("shared/data is not beside the project")
    return read_files(FileProblems(kind=form, paths=(str(DATA / name),)))


@pytest.fixture(scope="module")
def leetcode() -> Reading:
    return reading("leetcode", "leetcode-v0.3.1-test.jsonl.gz")


@pytest.fixture(scope="module")
def humaneval() -> Reading:
    return reading("humaneval", "humaneval.jsonl.gz")


def rejected(sandbox: Sandbox, found: Reading, most_tests: int | None = None) -> dict[str, Verdict]:
    """The canonical programs that are not accepted."""
    verdicts: dict[str, Verdict] = {}
    for each in found.read:
        assert each.canonical
        program = to_program(each.problem, each.canonical, 256)
        program = dataclasses.replace(program, tests=program.tests[:most_tests])
        verdicts[each.problem.problem_id] = verdict = sandbox.judge(program)
        assert verdict.tests_forgeable == sum(test.script is not None for test in program.tests)
    return {name: verdict for name, verdict in verdicts.items() if verdict.status != Status.AC}


def test_leetcode_dataset_is_read_whole_and_judged_outside_the_programs_process(leetcode):
    assert len(leetcode.problems) == 228
    tests = [test for problem in leetcode.problems for test in problem.tests]
    assert len(tests) == 23_234
    assert not any(test.script for test in tests)
    assert sum("TreeNode(" in (test.kwargs or "") for test in tests) == 75
    assert {problem.difficulty for problem in leetcode.problems} == {"easy", "medium", "hard"}
    dates = [problem.released_on for problem in leetcode.problems]
    assert (min(dates), max(dates)) == (datetime.date(2024, 8, 4), datetime.date(2025, 3, 30))


def test_humaneval_is_read_whole_and_what_is_no_literal_stays_a_script(humaneval):
    assert len(humaneval.problems) == 164
    scripted = [p for p in humaneval.problems if any(test.script for test in p.tests)]
    assert sorted(int(problem.problem_id.partition("/")[2]) for problem in scripted) == [
        *(2, 4, 32, 33, 37, 38, 44, 50, 53, 151)
    ]
    assert sum(len(problem.tests) for problem in humaneval.problems) == 1117


@pytest.mark.docker
def test_every_canonical_program_of_humaneval_is_accepted(humaneval, docker_sandbox):
    assert rejected(docker_sandbox, humaneval) == {}


@pytest.mark.docker
def test_every_canonical_program_of_leetcode_dataset_passes_its_first_tests(
    leetcode, docker_sandbox
):
    """All 23,234 tests take minutes: `python -m jobs.judge --programs canonical` runs them."""
    assert rejected(docker_sandbox, leetcode, most_tests=2) == {}
