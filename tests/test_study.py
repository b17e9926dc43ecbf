"""`jobs.study`: the plan of its runs, and its choices on validation. A study of a run is in
tests/test_story.py, the figures over several seeds in tests/evaluation/test_study.py."""

from pathlib import Path

import pytest

from jobs.study import ARMS, StudyPlan, best_rate, main, seed_result
from pipeline.config import ArmConfig, EvaluationConfig, Targets
from pipeline.evaluation.evaluate import ScoredSplit, evaluate
from pipeline.evaluation.results import Selection
from pipeline.evaluation.selection import Candidate
from pipeline.plan import make_plan
from pipeline.settings import load_config

DEMO = "jobs/configs/demo.yaml"
SOFT, HARD = ArmConfig(name="prm_soft"), ArmConfig(name="prm_hard", targets=Targets.HARD)


def plan(tmp_path: Path, **options: str) -> StudyPlan:
    words = [word for key, value in options.items() for word in (f"--{key}", value)]
    config = load_config(DEMO, ["--root", str(tmp_path / "store"), *words])
    return StudyPlan(config, ARMS, range(3), (0.001, 0.003), tmp_path / "out")


def test_seeds_share_problems_and_policy_and_nothing_that_is_drawn(tmp_path: Path) -> None:
    one, other = (
        make_plan(plan(tmp_path).run_of(seed, 0.001, ARMS)).with_examples({}) for seed in (0, 1)
    )
    assert one.policy_directory == other.policy_directory
    assert one.problems.directory == other.problems.directory
    assert one.solutions.directory != other.solutions.directory
    assert one.completions.directory != other.completions.directory
    for arm in ARMS:
        assert one.prm_fingerprint(arm) != other.prm_fingerprint(arm)


def test_the_first_seed_is_the_demos_own_run(tmp_path: Path) -> None:
    demo = make_plan(load_config(DEMO, ["--root", str(tmp_path / "store")])).with_examples({})
    first = make_plan(plan(tmp_path).run_of(0, 0.001, ARMS)).with_examples({})
    assert first.examples.directory == demo.examples.directory
    assert {first.prm_fingerprint(arm) for arm in ARMS} >= {
        demo.prm_fingerprint(arm) for arm in demo.config.training.arms
    }


def test_every_rate_is_a_run_of_its_own(tmp_path: Path) -> None:
    config = plan(tmp_path).run_of(2, 0.003, [SOFT])
    assert (config.name, config.output) == ("seed-2-rate-0.003", str(tmp_path / "out"))
    assert (config.training.seed, config.training.optimizer.learning_rate) == (2, 0.003)
    assert [arm.name for arm in config.training.arms] == ["prm_soft"]


# --- choices --------------------------------------------------------------------------------------


def selection(solved_on_validation: dict[str, int], solved_on_test: dict[str, int]) -> Selection:
    """Ten problems per role, two candidates each: an arm chooses right on the first so many."""

    def split(role: str, solved: dict[str, int]) -> ScoredSplit:
        candidates = [
            Candidate(f"{role}{n}", f"{role}{n}-{right}", "easy", right)
            for n in range(10)
            for right in (True, False)
        ]
        scores = {
            arm: {
                c.solution_id: ((0.9,) if c.passed == (int(c.problem_id[-1]) < wins) else (0.1,))
                for c in candidates
            }
            for arm, wins in solved.items()
        }
        return ScoredSplit(candidates, scores)

    return evaluate(
        [SOFT, HARD],
        split("test", solved_on_test),
        split("validation", solved_on_validation),
        config=EvaluationConfig(bootstrap=50),
    )


BY_RATE = {
    0.001: selection({"prm_soft": 6, "prm_hard": 4}, {"prm_soft": 1, "prm_hard": 9}),
    0.003: selection({"prm_soft": 6, "prm_hard": 5}, {"prm_soft": 9, "prm_hard": 1}),
}


def test_each_arm_takes_its_rate_by_validation_whatever_the_test_problems_say() -> None:
    assert best_rate("prm_hard", BY_RATE) == 0.003  # though 0.001 solves far more of the test
    assert best_rate("prm_soft", BY_RATE) == 0.001  # of equals the first


def test_a_seed_has_every_arm_from_the_run_with_its_own_rate() -> None:
    result = seed_result(4, BY_RATE, {"prm_soft": 0.001, "prm_hard": 0.003})
    assert (result.seed, len(result.problem_ids)) == (4, 10)
    assert {name: sum(row.solved) for name, row in result.methods.items()} == {
        "pass_at_1": 5.0,
        "oracle": 10.0,
        "prm_soft": 1.0,
        "prm_hard": 1.0,
    }


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arms", "prm_soft,prm"], "--arms: 'prm' is none of orm, prm_soft"),
        (["--trainin.epochs", "3"], "trainin: unknown key. Did you mean 'training'?"),
        (
            ["--arms", "prm_corrector", "--training.correction.label_space", "logit"],
            "label_space: 'logit' would change nothing",
        ),
        (["--rollouts.own_ending", "true"], "'hard', which leave a solution's own ending out"),
    ],
)
def test_what_cannot_be_studied_is_told_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    arguments = ["--config", DEMO, "--out", str(tmp_path / "out"), *words]
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["--seeds", "0"], ["--learning-rates", "0.001,-1"]])
def test_numbers_that_are_none_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--config", DEMO, "--out", str(tmp_path), *words])
    assert "above 0" in capsys.readouterr().err
