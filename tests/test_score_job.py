"""`jobs.score` as a person calls it: scores in files, the same wherever they are computed."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForTokenClassification, AutoTokenizer

from jobs.score import main
from pipeline.part_file import read_table
from pipeline.records import Role, ScoredSolution
from pipeline.schemas import SCORED_SOLUTION
from tests.training_files import write_examples

COUNT = 24


@pytest.fixture(scope="module")
def model(base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PRM in Hugging Face form; what it believes is nothing to these tests."""
    directory = str(tmp_path_factory.mktemp("prm"))
    AutoModelForTokenClassification.from_pretrained(base, num_labels=1).save_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.model_max_length = 256
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_examples(tmp_path_factory.mktemp("examples"), Role.TEST, count=COUNT)


def parts(out: Path) -> list[Path]:
    return sorted(out.glob("scores/*/part-*.arrow"))


def scores(out: Path) -> dict[str, tuple[float, ...]]:
    rows: list[ScoredSolution] = [
        row
        for path in parts(out)
        for row in SCORED_SOLUTION.from_table(read_table(str(path), SCORED_SOLUTION))
    ]
    return {row.solution_id: row.step_scores for row in rows}


@pytest.mark.slow
def test_an_actor_pool_gives_the_scores_of_this_process(
    model: str, examples: str, tmp_path: Path
) -> None:
    arguments = ["--model", model, "--examples", examples]
    assert main([*arguments, "--out", str(tmp_path / "here")]) == 0
    assert main([*arguments, "--out", str(tmp_path / "pool"), "--actors", "2"]) == 0
    here, pool = scores(tmp_path / "here"), scores(tmp_path / "pool")
    assert len(here) == COUNT
    assert all(0 < score < 1 for of_solution in here.values() for score in of_solution)
    assert here.keys() == pool.keys()
    for solution, of_solution in here.items():
        assert pool[solution] == pytest.approx(of_solution, abs=1e-6)


def test_run_again_it_scores_only_what_is_missing(
    model: str, examples: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("jobs.score.CANDIDATES_PER_PART", COUNT // 3)
    arguments = ["--model", model, "--examples", examples, "--out", str(tmp_path)]
    assert main(arguments) == 0
    first, second, third = parts(tmp_path)
    whole = scores(tmp_path)
    kept = [path.stat().st_mtime_ns for path in (first, third)]
    second.write_bytes(second.read_bytes()[:500])
    assert main(arguments) == 0
    assert "redone" in capfd.readouterr().out
    assert [path.stat().st_mtime_ns for path in (first, third)] == kept
    assert scores(tmp_path) == whole


def test_programs_of_a_file_are_scored_function_by_function(model: str, tmp_path: Path) -> None:
    problem = {
        "problem_id": "double", "statement": "Print the double.", "difficulty": "easy",
        "released_on": "2024-01-01", "tests": [{"stdin": "1\n", "expected": "2\n"}],
    }  # fmt: skip
    code = "def main():\n    print(double(3))\n\n\ndef double(x):\n    return 2 * x\n\n\nmain()\n"
    programs = [
        {"problem_id": "double", "program_id": "two", "code": code},
        {"problem_id": "double", "program_id": "none", "code": ""},
    ]
    (tmp_path / "problems.jsonl").write_text(json.dumps(problem))
    (tmp_path / "programs.jsonl").write_text("\n".join(map(json.dumps, programs)))
    arguments = [
        *("--problems", str(tmp_path / "problems.jsonl")),
        *("--programs", str(tmp_path / "programs.jsonl")),
    ]
    assert main(["--model", model, *arguments, "--out", str(tmp_path / "out")]) == 0
    found = scores(tmp_path / "out")
    assert len(found["double/two"]) == 2
    assert found["double/none"] == ()


def test_what_cannot_be_scored_is_one_clear_error(
    model: str, examples: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for chosen, of, message in [
        (str(empty), examples, "no trained PRM (config.json) is there"),
        (model, str(empty), "holds no part-*.arrow; name Example shards"),
        (model, str(tmp_path / "nowhere.arrow"), "nowhere.arrow"),
    ]:
        assert main(["--model", chosen, "--examples", of, "--out", str(tmp_path / "out")]) == 1
        told = capfd.readouterr()
        assert message in " ".join((told.out + told.err).split())
        assert "Traceback" not in told.out + told.err


@pytest.mark.parametrize(
    "words", [[], ["--problems", "p.jsonl"], ["--examples", "e", "--actors", "-1"]]
)
def test_options_that_do_not_go_together_are_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--model", "m", "--out", str(tmp_path), *words])
    assert "error: " in capsys.readouterr().err
