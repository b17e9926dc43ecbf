"""`jobs.judge`: recorded programs in, verdicts out, and nothing is judged twice or mixed."""

import gzip
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from ray.cluster_utils import Cluster

import sandbox
from jobs.judge import main
from pipeline.files import StoreError
from pipeline.judging import CannotJudge, Conditions, Judging, OtherVerdicts
from pipeline.judging_queue import Slot
from pipeline.recorded import BadPrograms, RecordedProgram, read_programs
from pipeline.records import Problem
from sandbox import Isolation, Program, Status, TestCase, Verdict
from tests.scripted import problem

SUM = "print(sum(map(int, input().split())))"
PROBLEMS = [
    {
        "problem_id": "sum",
        "statement": "Add two numbers.",
        "difficulty": "easy",
        "released_on": "2024-05-01",
        "tests": [{"stdin": "1 2\n", "expected": "3\n"}, {"stdin": "4 5\n", "expected": "9\n"}],
    },
    {
        "problem_id": "twice",
        "statement": "Double a number.",
        "difficulty": "easy",
        "released_on": "2024-05-01",
        "entry_point": "Solution().twice",
        "tests": [{"args": [2], "expected": 4}],
    },
]
PROGRAMS = [
    {"problem_id": "sum", "code": SUM, "model": "any other field"},
    {"problem_id": "sum", "code": "print(3)"},
    {"problem_id": "sum", "code": ""},
    {"problem_id": "twice", "program_id": "mine", "code": "class Solution:\n    twice = 1 / 0"},
]


def write(path: Path, rows: list) -> str:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Options that name two problems, four programs and a folder for the verdicts."""
    problems = write(tmp_path / "problems.jsonl", PROBLEMS)
    programs = write(tmp_path / "programs.jsonl.gz", PROGRAMS)
    out = str(tmp_path / "out")
    return ["--problems", problems, "--programs", programs, "--out", out]


UNSAFE = ["--sandbox", "unsafe-process", "--slots", "2"]


def verdicts(out: Path) -> list[dict]:
    parts = sorted(out.glob("verdicts/*/part-*.arrow"))
    return [row for part in parts for row in pa.ipc.open_file(part).read_all().to_pylist()]


# --- the job -----------------------------------------------------------------------------------


def test_programs_are_judged_and_told_by_status(
    files: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*files, *UNSAFE]) == 0
    output = capfd.readouterr().out
    assert "4 programs of jsonl problems, 7 tests" in output
    assert "sum 1: WA, test 1 (1/2 passed) line 1: expected '9', got '3'" in output
    assert "twice mine: RE, test 0 (0/1 passed) line " in output

    rows = verdicts(tmp_path / "out")
    told = [(row["problem_id"], row["program_id"], row["status"]) for row in rows]
    assert told == [
        *(("sum", "0", "AC"), ("sum", "1", "WA"), ("sum", "2", "CE"), ("twice", "mine", "RE"))
    ]
    assert {(row["isolation"], row["comparator"]) for row in rows} == {("none", "lcb")}
    counts = [(row["tests_passed"], row["tests_run"], row["tests_total"]) for row in rows]
    assert counts == [(2, 2, 2), (1, 2, 2), (0, 0, 2), (0, 1, 1)]

    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert (summary["programs"], summary["kept"], summary["isolation"]) == (4, 0, "none")
    counted = {status for status, count in summary["statuses"].items() if count == 1}
    assert counted == {"AC", "WA", "CE", "RE"}
    assert [row["program_id"] for row in summary["not_accepted"]] == ["1", "2", "mine"]


def test_a_second_run_keeps_every_verdict(
    files: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*files, *UNSAFE]) == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/verdicts/*/*.arrow")}
    assert main([*files, *UNSAFE]) == 0
    assert "kept from an earlier run: 4 verdicts" in capfd.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(
    ("sent", "exit_code"),
    [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143), (signal.SIGINT, 130)],
    ids=["SIGKILL", "SIGTERM", "SIGINT"],
)
def test_a_run_that_was_ended_goes_on_where_it_was(
    files: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    sent: signal.Signals,
    exit_code: int,
) -> None:
    """By SIGTERM, as of Kubernetes, or Ctrl-C, it says so and leaves no lock; verdicts of a part
    that is not full are kept, too."""
    slow = [
        {"problem_id": "sum", "code": f"import time\ntime.sleep(0.05)  # {n}\n{SUM}"}
        for n in range(64)
    ]
    write(tmp_path / "programs.jsonl.gz", slow)
    command = [sys.executable, "-m", "jobs.judge", *files, *UNSAFE]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out/verdicts/*/part-00000.arrow")):
        assert time.monotonic() < deadline
        assert driver.poll() is None
        time.sleep(0.02)
    if sent is not signal.SIGKILL:
        time.sleep(0.2)  # for a few more, which fill no part
    driver.send_signal(sent)
    told, _ = driver.communicate(timeout=60)
    assert driver.returncode == exit_code
    there = len(verdicts(tmp_path / "out"))
    assert 16 <= there < 64
    if sent is not signal.SIGKILL:
        assert there > 16
        assert "stopped; the same command resumes" in told
        assert not list(tmp_path.glob("out/verdicts/*/lock.json"))

    assert main([*files, *UNSAFE]) == 0
    assert f"kept from an earlier run: {there} verdicts" in capfd.readouterr().out
    assert [row["status"] for row in verdicts(tmp_path / "out")] == ["AC"] * 64


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (["--comparator", "strict"], "comparator was ['lcb'], is ['strict']"),
        (["--sandbox", "docker"], "isolation was 'none', is 'docker'"),
        (["--memory-mb", "99"], "memory_mb was 256, is 99"),
    ],
)
def test_verdicts_that_are_made_differently_are_never_mixed(
    files: list[str], capfd: pytest.CaptureFixture[str], change: list[str], difference: str
) -> None:
    assert main([*files, *UNSAFE, "--limit", "1"]) == 0
    assert main([*files, *UNSAFE, "--limit", "1", *change]) == 1
    output = capfd.readouterr().out
    assert difference in output
    assert "choose another --out" in output


def test_bad_programs_are_all_named_by_file_row_and_field(
    files: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [
        PROGRAMS[0],
        "{",
        {"problem_id": "sum"},
        {"problem_id": "nowhere", "code": ""},
        {"code": SUM},
        {"problem_id": "sum", "code": 3},
        {"problem_id": "sum", "code": SUM, "program_id": "mine"},
        {"problem_id": "sum", "code": "print(3)", "program_id": "mine"},
        {"problem_id": "sum", "code": SUM, "program_id": ["x" * 10_000]},
    ]
    path = write(tmp_path / "programs.jsonl.gz", rows)
    assert main([*files, *UNSAFE]) == 1
    output = capfd.readouterr().out
    assert "7 rows cannot be read as programs" in output
    for row, field in ((2, "row"), (3, "code"), (4, "id"), (5, "problem_id"), (6, "code")):
        assert f"{path}, row {row}, {field}: " in output
    assert f"{path}, row 8, program_id: 'mine' of 'sum' was already in row 7" in output
    assert f"{path}, row 9, program_id: a text is wanted, not ['xxx" in output
    assert "x" * 100 not in output
    assert not (tmp_path / "out/verdicts").exists()


def test_without_an_engine_it_refuses_and_names_the_socket(
    files: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    assert main(files) == 1
    assert "no Docker engine answers at unix:///nonexistent/docker.sock" in capfd.readouterr().out


def test_a_form_without_right_programs_has_no_canonical_ones(
    files: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*files, *UNSAFE, "--programs", "canonical"]) == 1
    assert "carries no right programs" in capfd.readouterr().out


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_listens_is_refused_at_once(
    files: list[str], capfd: pytest.CaptureFixture[str], scheme: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    address = f"{scheme}127.0.0.1:{port}"
    started = time.monotonic()
    assert main([*files, *UNSAFE, "--address", address]) == 1
    assert time.monotonic() - started < 15  # Ray itself tries for 31 s or 100 s
    assert f"--address {address}: no Ray cluster answers" in capfd.readouterr().out


@pytest.mark.parametrize(
    "address", ["nonsense", "http://127.0.0.1:8265", "127.0.0.1:99999", "ray://head", ":6379"]
)
def test_what_is_no_address_is_refused_with_the_forms_that_are(
    files: list[str], capfd: pytest.CaptureFixture[str], address: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*files, *UNSAFE, "--address", address])
    error = capfd.readouterr().err
    assert f"--address: '{address}' is no address of a Ray cluster: HOST:PORT" in error


def test_a_uri_is_refused_as_the_folder_instead_of_one_named_like_it(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main([*files, *UNSAFE, "--out", "s3://bucket/verdicts"])
    assert "--out: 's3://bucket/verdicts' is a URI" in capfd.readouterr().err
    assert not (tmp_path / "s3:").exists()


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_file_in_the_place_of_the_folder_is_named(
    files: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str], below: str
) -> None:
    taken = write(tmp_path / "taken", PROGRAMS) + below
    assert main([*files, *UNSAFE, "--out", taken]) == 2
    told = capfd.readouterr().err
    assert told == f"--out {taken}: is a file, or below one; a folder is wanted\n"


def test_limits_out_of_all_reason_are_refused_by_option(
    files: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*files, *UNSAFE, "--time-limit-s", "1e9"]) == 1
    assert "--time-limit-s, --memory-mb: limits.cpu_s: seconds above 0" in capfd.readouterr().out


def test_a_problem_that_cannot_be_judged_is_left_out_where_bad_rows_are(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def row(name: str, test: str) -> dict:
        prompt = f'def {name}(n):\n    """Give n."""\n'
        names = {"task_id": name, "entry_point": name, "prompt": prompt, "test": test}
        return names | {"canonical_solution": "    return n\n"}

    check = "def check(candidate):\n    assert candidate(1) == 1\n"
    rows = [row("good", check), row("odd", check + "return\n")]  # parses, but does not compile
    path, out = write(tmp_path / "p.jsonl", rows), str(tmp_path / "out")
    command = ["--problems", path, "--programs", "canonical", "--out", out, *UNSAFE]
    assert main(command) == 1
    assert "problem odd: tests[1]: script: does not compile" in capfd.readouterr().out
    assert main([*command, "--skip-bad-rows"]) == 0
    assert "left out: problem odd: tests[1]: script" in capfd.readouterr().out
    assert [row["problem_id"] for row in verdicts(tmp_path / "out")] == ["good"]


@pytest.mark.slow
def test_on_a_cluster_the_declared_slots_are_used(files: list[str], tmp_path: Path) -> None:
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "resources": {"docker": 1}}
    )
    try:
        command = [sys.executable, "-m", "jobs.judge", *files, *UNSAFE]
        subprocess.run([*command, "--address", cluster.address], check=True, timeout=120)
    finally:
        cluster.shutdown()
    assert [row["status"] for row in verdicts(tmp_path / "out")] == ["AC", "WA", "CE", "RE"]


# --- what it is made of ------------------------------------------------------------------------

DOCKER = Conditions(Isolation.DOCKER, "image", 256)
PYTHON = "CPython 3.11.2, numpy 1.24.2"


class Scripted:
    """A slot that answers from a script, and remembers what it was asked."""

    def __init__(
        self,
        *answers: Status | Exception,
        isolation: Isolation = Isolation.DOCKER,
        interpreter: str = PYTHON,
    ) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)
        self._isolation = isolation
        self._interpreter = interpreter

    @contextmanager
    def __call__(self) -> Iterator[Slot]:
        yield Slot(self.judge, self._interpreter)

    def judge(self, program: Program) -> Verdict:
        self.asked.append(program.code)
        answer = self._answers.pop(0) if self._answers else Status.AC
        if isinstance(answer, Exception):
            raise answer
        total = len(program.tests)
        return Verdict(
            answer, 0, 0, total, None, "", 0.0, 0.0, 0.0, self._isolation, program.comparator
        )


def programs(*codes: str) -> list[RecordedProgram]:
    return [RecordedProgram("p", str(n), code) for n, code in enumerate(codes)]


def judging(root: Path, recorded: list[RecordedProgram], of: Problem | None = None) -> Judging:
    return Judging(str(root), {"p": of or problem("p")}, recorded, DOCKER)


def run(work: Judging, *slots: Scripted) -> list[Status]:
    for _ in work.run(slots):
        pass
    return [row.verdict.status for row in work.verdicts()]


def test_programs_that_are_the_same_to_the_letter_are_executed_once(tmp_path: Path) -> None:
    slot = Scripted(Status.WA, Status.AC)
    assert run(judging(tmp_path, programs("a", "b", "a")), slot) == ["WA", "AC", "WA"]
    assert slot.asked == ["a", "b"]


def test_what_the_sandbox_failed_on_is_tried_again_and_nothing_else(tmp_path: Path) -> None:
    first, second = Scripted(Status.WA, Status.INFRA, Status.AC), Scripted()
    assert run(judging(tmp_path, programs("a", "b", "c")), first) == ["WA", "INFRA", "AC"]
    again = judging(tmp_path, programs("a", "b", "c"))
    assert again.kept == 2
    assert run(again, second) == ["WA", "AC", "AC"]
    assert second.asked == ["b"]


def test_a_damaged_part_is_made_again_and_said(tmp_path: Path) -> None:
    work = judging(tmp_path, programs("a"))
    run(work, Scripted())
    path = Path(work.stage.path(0))
    path.write_bytes(path.read_bytes()[:-9])
    again, slot = judging(tmp_path, programs("a")), Scripted()
    assert "part-00000.arrow: not a whole Arrow file" in again.damaged[0]
    assert run(again, slot) == ["AC"]
    assert slot.asked == ["a"]


def test_what_was_judged_when_a_slot_failed_is_kept(tmp_path: Path) -> None:
    recorded = programs(*map(str, range(40)))
    failing = Scripted(*([Status.AC] * 20), StoreError("the disk is full"))
    with pytest.raises(StoreError, match="the disk is full"):
        run(judging(tmp_path, recorded), failing)
    again, rest = judging(tmp_path, recorded), Scripted()
    assert again.kept == 20  # a full part and four of the next
    assert len(run(again, rest)) == 40
    assert rest.asked == [str(n) for n in range(20, 40)]


def test_what_was_judged_and_under_way_when_the_caller_stopped_is_kept(tmp_path: Path) -> None:
    under_way, may_end = threading.Event(), threading.Event()

    @contextmanager
    def slot() -> Iterator[Slot]:
        def judge(program: Program) -> Verdict:
            if program.code == "3":
                under_way.set()
                may_end.wait(20)
            return scripted.judge(program)

        yield Slot(judge, PYTHON)

    scripted, work = (
        Scripted(Status.AC, Status.WA),
        judging(tmp_path, programs(*map(str, range(9)))),
    )
    standings = work.run([slot])
    next(standings)
    assert under_way.wait(20)
    threading.Timer(0.1, may_end.set).start()
    standings.close()  # as an interrupt in the caller's loop does
    assert scripted.asked == ["0", "1", "2", "3"]
    again = judging(tmp_path, programs(*map(str, range(9))))
    assert again.kept == 4
    assert run(again, Scripted()) == ["AC", "WA", *["AC"] * 7]


def test_a_program_that_does_not_end_is_not_waited_for_when_the_caller_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.judging.PATIENCE_S", 0.1)
    under_way, may_end = threading.Event(), threading.Event()

    @contextmanager
    def slot() -> Iterator[Slot]:
        def judge(program: Program) -> Verdict:
            if program.code == "b":
                under_way.set()
                may_end.wait(20)
            return Scripted().judge(program)

        yield Slot(judge, PYTHON)

    standings = judging(tmp_path, programs("a", "b")).run([slot])
    next(standings)
    assert under_way.wait(20)
    standings.close()
    assert judging(tmp_path, programs("a", "b")).kept == 1
    may_end.set()


def test_verdicts_of_another_python_are_never_mixed(tmp_path: Path) -> None:
    """The same image name, but not what was in it; a part is missing, so slots are asked."""
    recorded = programs("a", "b")
    old = Scripted(Status.AC, StoreError("the disk is full"), interpreter="CPython 3.11.2")
    with pytest.raises(StoreError, match="the disk is full"):
        run(judging(tmp_path, recorded), old)
    new = Scripted(interpreter="CPython 3.13.0")
    with pytest.raises(OtherVerdicts, match=r"ran on CPython 3\.11\.2; this.*on CPython 3\.13\.0"):
        run(judging(tmp_path, recorded), new)
    assert new.asked == []
    assert run(judging(tmp_path, recorded), Scripted(interpreter="CPython 3.11.2")) == ["AC", "AC"]


def test_slots_of_two_pythons_do_not_judge_together(tmp_path: Path) -> None:
    slots = [Scripted(interpreter=f"CPython 3.{minor}") for minor in (11, 13)]
    with pytest.raises(OtherVerdicts, match="never mixed"):
        run(judging(tmp_path, programs("a", "b")), *slots)


def test_verdicts_that_are_all_there_need_no_sandbox(tmp_path: Path) -> None:
    run(judging(tmp_path, programs("a")), Scripted(interpreter="CPython 3.11.2"))
    again = judging(tmp_path, programs("a"))
    assert run(again) == ["AC"]
    assert again.shaped_by["interpreter"] == "CPython 3.11.2"


def test_a_slot_of_another_isolation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OtherVerdicts, match="isolation none, not docker"):
        run(judging(tmp_path, programs("a")), Scripted(isolation=Isolation.NONE))


def test_no_more_slots_are_opened_than_there_is_work_for(tmp_path: Path) -> None:
    opened = []

    @contextmanager
    def slot() -> Iterator[Slot]:
        opened.append(slot)
        time.sleep(0.2)  # nobody has judged anything when the others could open
        yield Slot(Scripted().judge, PYTHON)

    for _ in judging(tmp_path, programs("a", "b", "a")).run([slot] * 6):
        pass
    assert len(opened) == 2


def test_problems_that_cannot_be_judged_are_all_named(tmp_path: Path) -> None:
    bad = problem("p", tests=(TestCase(args="[1", expected="1"),), entry_point="f")
    recorded = [RecordedProgram(name, "0", "x") for name in ("p", "q", "r")]
    with pytest.raises(CannotJudge) as caught:
        Judging(str(tmp_path), {"p": bad, "q": problem("q"), "r": bad}, recorded, DOCKER)
    assert list(caught.value.reasons) == ["p", "r"]


def test_a_problem_that_cannot_be_judged_is_named_before_anything_runs(tmp_path: Path) -> None:
    bad = problem("p", tests=(TestCase(args="[1", expected="1"),), entry_point="f")
    with pytest.raises(CannotJudge, match=r"problem p: tests\[0\]: neither strict JSON"):
        judging(tmp_path, programs("a"), bad)


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("livecodebench", {"question_id": "p"}),
        ("leetcode", {"question_id": "3319", "task_id": "p"}),
        ("humaneval", {"task_id": "p"}),
        ("humaneval", {"problem_id": "p", "task_id": "other"}),
        ("jsonl", {"problem_id": "p"}),
    ],
)
def test_a_problem_is_named_as_its_benchmark_names_it(tmp_path: Path, form: str, row: dict) -> None:
    path = write(tmp_path / "programs.jsonl", [row | {"code": "x"}])
    assert read_programs(path, form, {"p"}) == [RecordedProgram("p", "0", "x")]


def test_numbers_that_stand_for_ids_pass_over_those_that_are_given(tmp_path: Path) -> None:
    rows = [{}, {"program_id": "1"}, {"program_id": None}, {"program_id": "0"}, {}]
    path = write(
        tmp_path / "p.jsonl",
        [row | {"problem_id": "p", "code": str(n)} for n, row in enumerate(rows)],
    )
    read = {program.code: program.program_id for program in read_programs(path, "jsonl", {"p"})}
    assert read == {"0": "2", "1": "1", "2": "3", "3": "0", "4": "4"}


def test_a_file_of_no_programs_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"empty\.jsonl: holds no programs"):
        read_programs(write(tmp_path / "empty.jsonl", []), "jsonl", {"p"})
    with pytest.raises(BadPrograms, match="no Unicode text"):
        read_programs(
            write(tmp_path / "p.jsonl", ['{"problem_id": "p", "code": "\\ud800"}']), "jsonl", {"p"}
        )


# --- the library -------------------------------------------------------------------------------


def snippets(text: str) -> list[str]:
    """Blocks of code that use the sandbox: in Markdown fences, or indented in a docstring."""
    fenced = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    indented = re.findall(r"(?:^    .*\n|^\n)+", text, re.MULTILINE)
    blocks = fenced or [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in indented]
    return [block for block in blocks if "from sandbox import" in block]


README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.docker
@pytest.mark.parametrize(
    "code", [*snippets(README), *snippets(sandbox.__doc__ or "")], ids=lambda code: f"{len(code)}"
)
def test_the_examples_of_the_documentation_do_what_they_say(docker_engine: None, code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.stdout.split()[:2] == ["AC", "2"]
