"""`jobs.evaluate`: pass@1 of recorded candidates, by their grades or judged again in Docker."""

import asyncio
import datetime
import json
from pathlib import Path

import pytest
import yaml

from jobs.evaluate import main
from pipeline import groundwork, schemas
from pipeline.config import ReplayPolicy
from pipeline.examples import build_examples
from pipeline.execution import judge_solutions
from pipeline.files import read_bytes
from pipeline.functions import split_steps
from pipeline.part_file import read_table
from pipeline.plan import make_plan
from pipeline.policies.replay import Replay
from pipeline.progress import Progress
from pipeline.records import ProgramVerdict, Role, ScoredSolution, Solution
from pipeline.sampling import sample_solutions
from pipeline.settings import load_config
from sandbox import Limits, Sandbox
from sandbox.protocol import Isolation, Status

RECORDED = Path(__file__).parents[2] / "shared/data/livecodebench-o1-mini.jsonl.gz"


def written(out: Path) -> dict:
    return json.loads((out / "pass_at_1.json").read_text())


def verdicts(out: Path) -> list[ProgramVerdict]:
    schema = schemas.PROGRAM_VERDICT
    return schema.from_table(read_table(str(out / "verdicts.arrow"), schema))


def solutions(out: Path) -> list[Solution]:
    return schemas.SOLUTION.from_table(read_table(str(out / "solutions.arrow"), schemas.SOLUTION))


@pytest.mark.skipif(not RECORDED.exists(), reason=f"{RECORDED.name} is not in shared/data")
def test_the_published_pass_at_1_of_o1_mini_is_reproduced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--candidates", str(RECORDED), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    for words in (["easy", "94.98"], ["medium", "73.41"], ["hard", "34.81"]):
        assert any(line.split()[:2] == words for line in shown.splitlines())
    found = written(tmp_path / "out")
    assert found["by_difficulty"]["easy"]["pass_at_1_percent"] == pytest.approx(94.98, abs=0.005)
    assert sum(group["passed"] for group in found["by_platform"].values()) == 602
    assert len(solutions(tmp_path / "out")) == len(verdicts(tmp_path / "out")) == 880


@pytest.mark.skipif(not RECORDED.exists(), reason=f"{RECORDED.name} is not in shared/data")
def test_a_window_of_dates_evaluates_only_its_problems(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--candidates", str(RECORDED), "--out", str(tmp_path), "--after", "2024-08-01"]
    assert main([*arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["overall"]["problems"] == 880 - 601
    assert printed == written(tmp_path)


# --- judged again -------------------------------------------------------------------------------

DOUBLE = "```python\nprint(2 * int(input()))\n```"
SQUARE = "```python\nprint(int(input()) ** 2)\n```"


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Candidates for three problems, all recorded as failing, and the tests of two of them."""
    rows = [
        {
            "question_id": name,
            "output_list": [DOUBLE, SQUARE, "I cannot."],
            "graded_list": [False] * 3,
            "difficulty": "as recorded",
            "platform": "as recorded",
            "contest_date": "2024-01-01T00:00:00",
        }
        for name in ("double", "square", "unknown")
    ]
    problems = [
        {
            "problem_id": name,
            "statement": f"Print the {name}.",
            "difficulty": level,
            "released_on": "2024-01-01",
            "tests": [{"stdin": "3\n", "expected": expected}, {"stdin": "2\n", "expected": "4\n"}],
        }
        for name, level, expected in (("double", "easy", "6\n"), ("square", "hard", "9\n"))
    ]
    (tmp_path / "candidates.json").write_text(json.dumps(rows))
    (tmp_path / "problems.jsonl").write_text("\n".join(map(json.dumps, problems)))
    return [
        *("--candidates", str(tmp_path / "candidates.json")),
        *("--problems", str(tmp_path / "problems.jsonl")),
        *("--out", str(tmp_path / "out")),
    ]


def test_recorded_grades_are_kept_unless_asked(files: list[str], tmp_path: Path) -> None:
    assert main(files) == 0
    found = written(tmp_path / "out")
    assert found["overall"]["passed"] == 0
    assert (found["overall"]["problems"], list(found["by_difficulty"])) == (2, ["easy", "hard"])


def test_results_go_into_an_object_store_and_other_verdicts_are_not_mixed_with_them(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    out = "memory://evaluated"
    judging = [*files[:-1], f"{out}/", "--judge", "--sandbox", "unsafe-process"]
    assert main(judging) == 0
    found = json.loads(read_bytes(f"{out}/pass_at_1.json") or b"")
    assert found["overall"]["pass_at_1_percent"] == pytest.approx(100 / 3)
    assert set(tmp_path.iterdir()) == before, "a folder named like the URI"
    capsys.readouterr()
    assert main([*judging, "--memory-mb", "99"]) == 1
    assert f"{out}/verdicts/" in (told := capsys.readouterr().err)
    assert f"memory_mb was {Limits().memory_mb}, is 99" in told


@pytest.mark.docker
def test_judged_again_the_verdicts_are_the_sandboxs_and_a_second_call_judges_nothing(
    files: list[str], tmp_path: Path, docker_engine: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*files, "--judge", "--slots", "1"]) == 0
    out = tmp_path / "out"
    found = written(out)
    assert found["verdicts"] == "judged again"
    assert found["overall"]["pass_at_1_percent"] == pytest.approx(100 / 3)
    assert {verdict.verdict.isolation for verdict in verdicts(out)} == {Isolation.DOCKER}
    by_id = {verdict.program_id: verdict.verdict for verdict in verdicts(out)}
    of_double = [s for s in solutions(out) if s.problem_id == "double"]
    statuses = [by_id[solution.solution_id].status for solution in of_double]
    assert statuses == [Status.AC, Status.WA, Status.CE]

    parts = list(out.glob("verdicts/*/part-*.arrow"))
    before = {part: part.stat().st_mtime_ns for part in parts}
    capsys.readouterr()
    assert main([*files, "--judge", "--slots", "1"]) == 0
    assert "kept from an earlier call: 6 verdicts" in capsys.readouterr().out
    assert before == {part: part.stat().st_mtime_ns for part in parts}


def test_verdicts_of_another_isolation_are_never_mixed_in(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unsafe = [*files, "--judge", "--slots", "1", "--sandbox", "unsafe-process"]
    assert main(unsafe) == 0
    before = verdicts(tmp_path / "out")
    assert {verdict.verdict.isolation for verdict in before} == {Isolation.NONE}
    assert main([*files, "--judge"]) == 1
    assert "isolation was 'none', is 'docker'" in capsys.readouterr().err
    assert verdicts(tmp_path / "out") == before


def test_no_engine_is_told_by_its_socket(
    files: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    assert main([*files, "--judge"]) == 1
    assert "/nowhere/docker.sock" in capsys.readouterr().err


# --- a run's own candidates ---------------------------------------------------------------------


class Silent:
    def stage(self, title: str) -> None: ...

    def progress(self, progress: Progress) -> None: ...

    def note(self, text: str) -> None: ...


@pytest.fixture
def config_file(files: list[str], tmp_path: Path) -> Path:
    """A config of recorded candidates for two test problems."""
    problems = (tmp_path / "problems.jsonl").read_text().replace("2024-01-01", "2025-03-01")
    (tmp_path / "problems.jsonl").write_text(problems)
    config = {
        "name": "run",
        "root": str(tmp_path / "store"),
        "output": str(tmp_path / "runs"),
        "problems": {"kind": "jsonl", "paths": [str(tmp_path / "problems.jsonl")]},
        "policy": {"kind": "replay", "path": str(tmp_path / "candidates.json")},
        "rollouts": {"policy": {"kind": "vllm", "model": "none"}},
        "sampling": {"samples": 3},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_run_without_scores_still_shows_what_its_candidates_are_worth(
    config_file: Path, process_sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan(load_config(config_file))
    roles = groundwork.lay_problems(plan, Silent())
    assert roles == {0: Role.TEST}
    assert main(["--config", str(config_file)]) == 1
    assert "1 of 1 parts of the examples are not there" in capsys.readouterr().err

    problems, policy = plan.problems.read(0), plan.config.policy
    assert isinstance(policy, ReplayPolicy)
    made = asyncio.run(
        sample_solutions(Replay(policy), plan.sampling_version(), problems, 3, policy.prompt)
    )
    plan.solutions.write(0, made)
    judged = judge_solutions(
        process_sandbox.judge_all, process_sandbox.isolation, problems, made, 256
    )
    plan.verdicts.write(0, judged)
    steps = {s.solution_id: split_steps(s.code, s.solution_id) for s in made}
    plan.examples.write(0, build_examples(Role.TEST, problems, made, judged, steps, (), None))

    assert main(["--config", str(config_file)]) == 0
    shown = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line.strip()}
    assert rows["pass@1"][1] == "33.3"
    assert rows["oracle"][1] == "100.0"
    for arm in plan.config.training.arms:
        assert f"left out: arm {arm.name} has no scores yet" in shown
    report = Path(plan.config.output) / "run" / "report"
    assert json.loads((report / "selection.json").read_text())["candidates"] == 6
    assert main(["--config", str(config_file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["candidates"] == 6

    plan = plan.with_examples(roles)
    arm = plan.config.training.arms[0]
    card = Path(plan.prm_model(arm), "README.md")
    card.parent.mkdir(parents=True)
    card.write_text("# A card")
    plan.scores(arm).write(0, [ScoredSolution(row.solution_id, ()) for row in made])
    assert main(["--config", str(config_file)]) == 0
    assert "Best-of-3 on 2 test problems in the run `run`" in card.read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--candidates", "absent.json", "--out", "x"], "absent.json"),
        (["--candidates", "pyproject.toml", "--out", "x"], "neither JSON lines nor a JSON list"),
        (["--config", "absent.yaml"], "absent.yaml: no such config file"),
        (["--config", "jobs/configs/demo.yaml", "--root", "/nowhere"], "this run has not begun"),
    ],
)
def test_what_is_wrong_is_told_in_words(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) > 0
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--candidates"),
        (["--candidates", "c.json"], "--candidates needs --out"),
        (["--candidates", "c.json", "--out", "x", "--judge"], "--judge needs --problems"),
        (["--candidates", "c.json", "--out", "x", "--wat", "3"], "unrecognized arguments: --wat"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--format", "jsonl"], "--format: heeded only with --problems"),
        (["--memory-mb", "64", "--slots", "1"], "--slots, --memory-mb: heeded only with --judge"),
        (["--slots", "none"], "'none' is no whole number above 0"),
        (["--memory-mb", "0"], "'0' is no whole number above 0"),
    ],
)
def test_an_option_that_would_not_be_heeded_is_refused(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--candidates", "c.json", "--out", "x", *arguments])
    assert told in capsys.readouterr().err


def test_a_run_has_no_filters_of_candidates(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--config", "c.yaml", "--judge", "--problems", "p", "--platform", "leetcode"])
    told = "--problems, --judge, --platform: heeded only with --candidates"
    assert told in capsys.readouterr().err


@pytest.fixture
def graded(tmp_path: Path) -> list[str]:
    """Candidates of an easy problem, which all pass, and of a hard one, which all fail."""
    rows = [
        {
            "question_id": level,
            "output_list": ["x"],
            "graded_list": [level == "easy"],
            "difficulty": level,
            "platform": "leetcode",
            "contest_date": "2024-01-01",
        }
        for level in ("easy", "hard")
    ]
    (tmp_path / "c.json").write_text(json.dumps(rows))
    return ["--candidates", str(tmp_path / "c.json"), "--out", str(tmp_path)]


def test_without_problem_files_filters_are_by_the_records_own_words(
    graded: list[str], tmp_path: Path
) -> None:
    assert main([*graded, "--difficulty", "hard", "--platform", "leetcode"]) == 0
    found = written(tmp_path)
    assert (list(found["by_difficulty"]), found["overall"]["passed"]) == (["hard"], 0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--difficulty", "esay"], "no problem has the difficulty 'esay'; there are easy, hard"),
        (["--platform", "atcoder"], "no problem has the platform 'atcoder'; there are leetcode"),
        (["--after", "2030-01-01"], "the filters leave out all 2 problems"),
        (["--after", "2030-01-01", "--before", "2024-01-01"], "must be earlier than before"),
    ],
)
def test_filters_that_take_nothing_are_refused(
    graded: list[str], arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*graded, *arguments]) > 0
    assert told in capsys.readouterr().err


def test_candidates_of_other_problems_than_those_given_are_refused(
    graded: list[str], files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*graded, "--problems", files[3]]) == 1
    assert "none of its 2 problems is among the 2 of --problems" in capsys.readouterr().err


def test_bad_rows_are_all_told_and_may_be_left_out(
    graded: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads((tmp_path / "c.json").read_text())
    bad = [rows[0] | {"question_id": "b", "graded_list": []}, rows[0], {"question_id": "c"}]
    (tmp_path / "c.json").write_text(json.dumps(rows + bad))
    assert main(graded) == 1
    told = capsys.readouterr().err
    assert told.startswith("3 rows cannot be read as recorded candidates")
    for place in ("row 3, row: graded_list has 0", "row 4, question_id", "row 5, output_list"):
        assert f"{tmp_path / 'c.json'}, {place}" in told
    assert "--skip-bad-rows" in told
    assert main([*graded, "--skip-bad-rows"]) == 0
    assert "left out: 3 rows" in capsys.readouterr().out
    assert written(tmp_path)["overall"]["candidates"] == 2


def test_results_of_other_candidates_are_not_written_over(
    graded: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(graded) == main([*graded, "--difficulty", "hard"]) == 0
    before = (tmp_path / "pass_at_1.json").read_bytes()
    other = tmp_path / "other.json"
    other.write_bytes((tmp_path / "c.json").read_bytes())
    assert main(["--candidates", str(other), "--out", str(tmp_path)]) == 1
    assert f"has the results of {tmp_path / 'c.json'}, not of {other}" in capsys.readouterr().err
    assert (tmp_path / "pass_at_1.json").read_bytes() == before


@pytest.mark.parametrize("name", ["c.json", "c.json/below"])
def test_a_folder_for_results_that_is_a_file_is_told_by_its_option(
    graded: list[str], tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*graded[:2], "--out", str(tmp_path / name)]) == 2
    assert f"--out {tmp_path / name}: is a file, or below one" in capsys.readouterr().err


def test_dates_of_a_record_that_are_none_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question_id": "a", "output_list": ["x"], "contest_date": "soon"}]
    (tmp_path / "c.json").write_text(json.dumps(rows))
    day = str(datetime.date(2024, 1, 1))
    arguments = ["--candidates", str(tmp_path / "c.json"), "--out", str(tmp_path), "--after", day]
    assert main(arguments) == 1
    assert "contest_date: 'soon' is no date" in capsys.readouterr().err
