"""pass@1 is the mean over problems of the share of each problem's candidates that passed."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.config import EvaluationConfig
from pipeline.eval_all import EvalAllError, EvalAllRow, read_eval_all
from pipeline.evaluation.evaluate import EvaluationError
from pipeline.evaluation.pass_at_1 import Outcome, pass_at_1, pass_at_1_table, to_json
from pipeline.evaluation.recorded import recorded_solutions, recorded_verdicts
from sandbox.protocol import Isolation, Status

CONFIG = EvaluationConfig(bootstrap=50)


def outcomes(problem_id: str, difficulty: str, platform: str, passed: str) -> list[Outcome]:
    return [Outcome(problem_id, difficulty, platform, each == "+") for each in passed]


def test_problems_count_alike_however_many_candidates_they_have() -> None:
    found = pass_at_1(
        [
            *outcomes("a", "easy", "x", "+"),
            *outcomes("b", "easy", "y", "+---"),
            *outcomes("c", "hard", "y", "--"),
        ],
        CONFIG,
    )
    assert found.overall.estimate.value == pytest.approx((1 + 1 / 4 + 0) / 3)
    assert found.by_difficulty["easy"].estimate.value == pytest.approx((1 + 1 / 4) / 2)
    assert found.by_platform["y"].estimate.value == pytest.approx((1 / 4 + 0) / 2)
    group = found.by_difficulty["easy"]
    assert (group.problems, group.candidates, group.passed) == (2, 5, 2)
    assert list(found.by_difficulty) == ["easy", "hard"]


def test_the_written_form_holds_percentages_and_the_counts_behind_them() -> None:
    found = to_json(pass_at_1(outcomes("a", "easy", "x", "++-"), CONFIG), CONFIG)
    written = json.loads(json.dumps(found))
    assert written["by_difficulty"]["easy"] == {
        "problems": 1,
        "candidates": 3,
        "passed": 2,
        "pass_at_1_percent": pytest.approx(200 / 3),
        "interval_percent": None,
    }


def test_nothing_to_evaluate_and_contradictions_are_errors() -> None:
    with pytest.raises(EvaluationError, match="no candidate has a verdict"):
        pass_at_1([], CONFIG)
    twice = [*outcomes("a", "easy", "x", "+"), *outcomes("a", "hard", "x", "+")]
    with pytest.raises(EvaluationError, match="problem 'a' has two"):
        pass_at_1(twice, CONFIG)


def test_words_of_a_record_are_shown_and_not_obeyed() -> None:
    found = pass_at_1(outcomes("a", "[/x]", "\x1b[31mred", "+"), CONFIG)
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(pass_at_1_table(found, CONFIG.confidence))
    shown = console.export_text()
    assert "[/x]" in shown
    assert "\ufffd[31mred" in shown


# --- from the record ----------------------------------------------------------------------------


def recorded(**changes: object) -> EvalAllRow:
    fields = {
        "question_id": "q",
        "output_list": ["```python\nx = 1\n```", "```python\nx = 2\n```"],
        "graded_list": [True, False],
    }
    return EvalAllRow.model_validate(fields | changes)


def test_candidates_become_solutions_with_the_program_that_was_graded() -> None:
    with_codes = recorded_solutions([recorded(code_list=["a()", ""])], "model")
    assert [s.code for s in with_codes] == ["a()", ""]
    extracted = recorded_solutions([recorded()], "model")
    assert [s.code for s in extracted] == ["x = 1\n", "x = 2\n"]
    assert [s.sample_index for s in extracted] == [0, 1]
    assert len({s.solution_id for s in extracted}) == 2
    assert extracted == recorded_solutions([recorded()], "model")


@pytest.mark.parametrize(
    ("metadata", "status", "detail"),
    [
        ('{"error_code": -2, "error_message": "Wrong Answer"}', "WA", "recorded: Wrong Answer"),
        ('{"error_code": -3, "error_message": "Late"}', "TLE", "recorded: Late"),
        ('{"error_code": -4}', "RE", "recorded"),
        ({"error_code": -5, "error_message": "died"}, "RE", "recorded: died"),
        ("no json", "WA", "recorded"),
        ("[]", "WA", "recorded"),
        ('{"error_code": "?"}', "WA", "recorded"),
    ],
)
def test_a_failure_keeps_how_it_failed_where_the_record_says(
    metadata: object, status: str, detail: str
) -> None:
    row = recorded(metadata=["{}", metadata])
    passed, failed = (v.verdict for v in recorded_verdicts([row], recorded_solutions([row], "m")))
    assert (passed.status, passed.detail) == (Status.AC, "recorded")
    assert (failed.status, failed.detail) == (Status(status), detail)
    assert failed.isolation is Isolation.NONE
    assert failed.tests_run == 0


def test_a_row_without_grades_is_named() -> None:
    row = recorded(graded_list=None)
    with pytest.raises(EvalAllError, match="problem 'q' has no graded_list: judge"):
        recorded_verdicts([row], recorded_solutions([row], "m"))


def test_a_compressed_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl.gz"
    path.write_bytes(b"\x1f\x8b\x08broken")
    with pytest.raises(EvalAllError, match=r"r\.jsonl\.gz: (cannot|the compressed)"):
        read_eval_all(path)
