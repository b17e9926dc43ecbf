"""Costs are what a table worked out by hand says, and every assumption tells where it is from."""

import dataclasses
import datetime
import json
from pathlib import Path

import pytest

from jobs.estimate import main
from pipeline.assumed import UNITS, Records, assumptions
from pipeline.config import OpenAIPolicy, PipelineConfig, Price
from pipeline.estimate import Assumption, Assumptions, Estimate, estimate
from pipeline.plan import make_plan
from pipeline.records import (
    Completion,
    FinishReason,
    PolicyVersion,
    Problem,
    ProgramVerdict,
    Role,
    Solution,
)
from pipeline.settings import dump_config, load_config
from sandbox.protocol import Comparator, Isolation, Status, Verdict
from tests.scripted import problem

RECORDED = Path(__file__).parents[2] / "shared/data/livecodebench-o1-mini.jsonl.gz"
PRICE = Price(input=1.0, cached_input=0.25, output=4.0, as_of=datetime.date(2025, 1, 1))
TODAY = PolicyVersion("m", "{}", "1")
OPENAI = {
    "kind": "openai",
    "model": "o4-mini",
    "price": PRICE.model_dump(),
    "requests_in_flight": 2,
}
VLLM = {"kind": "vllm", "model": "none", "gpus": 2, "tensor_parallel": 2}

NUMBERS = {
    "answer_tokens": 400.0,
    "reasoning_tokens": 1600.0,
    "rollout_reasoning_tokens": 800.0,
    "steps": 5.0,
    "cache_hits": 0.0,
    "stream_tokens_per_s": 50.0,
    "gpu_tokens_per_s": 1000.0,
    "tests_per_program": 10.0,
    "cpu_s_per_test": 0.5,
    "solution_bytes": 1000.0,
    "rollout_bytes": 500.0,
    "part_bytes": 100.0,
}


def assumed(**changes: float) -> Assumptions:
    values = NUMBERS | changes
    return Assumptions(**{name: Assumption(values[name], "", "") for name in NUMBERS})


def config(policy: dict, **sections: object) -> PipelineConfig:
    fields = {
        "problems": {"kind": "jsonl", "paths": ["p.jsonl"]},
        "policy": policy,
        "sampling": {"samples": 2},
        "rollouts": {"samples": 3},
        "sandbox": {"slots": 4},
    }
    return PipelineConfig.model_validate(fields | sections)


PROBLEMS = [problem(name) for name in "abcd"]
ROLES = {"a": Role.TRAIN, "b": Role.TRAIN, "c": Role.TEST}  # d has none


def of(options: PipelineConfig, tokens: float = 100.0, **changes: float) -> Estimate:
    return estimate(options, PROBLEMS, ROLES, assumed(**changes), lambda _: tokens)


def test_parts_bytes_and_the_drivers_share_are_worked_out_by_hand() -> None:
    """Of 3 problems, 2 are labelled: 3 parts of one problem, with 4 stages and 2 more each wave."""
    sampling = {"samples": 2, "problems_per_part": 1}
    found = of(config(OPENAI, sampling=sampling)).footprint
    assert found.parts == 3 * 4 + 2 * 2
    assert found.shard_bytes == 6 * 1000 + 48 * 500
    assert found.driver_bytes == 16 * 100
    stopping = {"samples": 3, "early_stop": {"first": 2}}  # two waves
    found = of(config(OPENAI, sampling=sampling, rollouts=stopping)).footprint
    assert found.parts == 3 * 4 + 2 * 2 * 2


def test_calls_are_counted_by_role_samples_steps_and_rollouts() -> None:
    found = of(config(OPENAI))
    assert found.sampling.calls == 3 * 2  # every problem with a role
    assert found.rollouts.calls == 2 * 2 * (5 - 1) * 3  # training problems; no last steps
    assert found.problems_by_role == {"train": 2, "meta": 0, "validation": 0, "test": 1}


def test_tokens_and_dollars_of_an_api_are_those_worked_out_by_hand() -> None:
    found = of(config(OPENAI))
    sampling, rollouts = found.sampling, found.rollouts
    assert dataclasses.astuple(sampling.tokens) == (6 * 100, 0, 6 * 400, 6 * 1600)
    # Half a program is shown on average, and the other half is asked for.
    assert dataclasses.astuple(rollouts.tokens) == (48 * 300, 0, 48 * 200, 48 * 800)
    assert sampling.usd == pytest.approx((600 * 1 + 12_000 * 4) / 1e6)
    assert rollouts.usd == pytest.approx((14_400 * 1 + 48_000 * 4) / 1e6)
    assert sampling.batch_usd == pytest.approx(sampling.usd / 2)
    assert sampling.worst_usd == pytest.approx((600 + 6 * 32_000 * 4) / 1e6)
    assert sampling.hours == pytest.approx(12_000 / 50 / 2 / 3600)
    assert (sampling.batch_hours, sampling.gpu_hours) == (24.0, None)


def test_only_long_repeated_prompts_are_cached_and_cost_less() -> None:
    options = config(OPENAI)
    assert of(options, tokens=1000.0, cache_hits=1.0).sampling.tokens.cached == 0
    found = of(options, tokens=1300.0, cache_hits=0.5).sampling
    assert found.tokens.cached == 3 * (2 - 1) * 1280 * 0.5  # whole steps of 128 tokens
    full = of(options, tokens=1300.0).sampling
    assert found.usd == pytest.approx(full.usd - found.tokens.cached * 0.75 / 1e6)


@pytest.mark.parametrize(
    ("limit", "hours", "of_two_actors"),
    [
        ({"requests_per_minute": 1}, 6 / 60, 6 / 60),
        ({"tokens_per_minute": 100}, 12_600 / 100 / 60, 12_600 / 100 / 60),
        ({"requests_per_minute": 10_000}, 12_000 / 50 / 2 / 3600, 12_000 / 50 / 4 / 3600),
    ],
)
def test_the_tightest_bound_decides_how_long_an_api_takes(
    limit: dict, hours: float, of_two_actors: float
) -> None:
    """Two actors have twice as many calls in flight, and share the rates."""
    assert of(config(OPENAI | limit)).sampling.hours == pytest.approx(hours)
    two = config(OPENAI | limit, sampling={"samples": 2, "pool": {"max_size": 2}})
    assert of(two).sampling.hours == pytest.approx(of_two_actors)


def test_a_vllm_policy_takes_gpu_hours_and_no_dollars() -> None:
    found = of(config(VLLM, rollouts={"samples": 3, "pool": {"max_size": 3}})).rollouts
    assert found.tokens.reasoning == 0
    assert found.tokens.cached == found.tokens.prompt * 2 / 3  # one of three reads the prompt
    assert found.gpu_hours == pytest.approx(48 * 200 / 1000 / 3600)
    assert found.hours == pytest.approx(found.gpu_hours / (2 * 3))
    assert (found.usd, found.batch_usd, found.worst_usd, found.batch_hours) == (None,) * 4


def test_recorded_solutions_cost_nothing_but_their_execution() -> None:
    options = config({"kind": "replay", "path": "r.jsonl"}, rollouts={"samples": 3, "policy": VLLM})
    found = of(options)
    assert found.sampling.tokens.prompt == 0
    assert (found.sampling.usd, found.sampling.hours, found.sampling.gpu_hours) == (None,) * 3
    assert found.executed.solutions == 6


def test_executions_are_programs_times_tests() -> None:
    run = of(config(OPENAI)).executed
    assert run.programs == 6 + 48
    assert run.core_hours == pytest.approx(54 * 10 * 0.5 / 3600)
    assert run.hours == pytest.approx(run.core_hours / 4)


def test_programs_of_one_function_need_no_rollouts() -> None:
    found = of(config(OPENAI), steps=1.0)
    assert (found.rollouts.calls, found.rollouts.usd, found.rollouts.batch_hours) == (0, 0, 0)


# --- where the numbers are from -----------------------------------------------------------------


def solution(index: int, code: str, tokens: int, reasoning: int) -> Solution:
    return Solution(
        *(str(index), "a", TODAY, index, code, code, FinishReason.STOP),
        prompt_tokens=50,
        completion_tokens=tokens,
        reasoning_tokens=reasoning,
        cost_usd=0.0,
    )


def completion(tokens: int) -> Completion:
    return Completion(
        *("s", 0, "a", TODAY, "", "", FinishReason.STOP),
        prompt_tokens=9,
        completion_tokens=tokens,
        cost_usd=0.0,
    )


def verdict(cpu_s: float, run: int) -> ProgramVerdict:
    told = Verdict(
        Status.AC, run, run, 20, None, "", cpu_s, 0, 0, Isolation.DOCKER, Comparator.LCB
    )  # fmt: skip
    return ProgramVerdict("x", "a", told)


def test_every_number_says_its_unit_and_where_it_is_from() -> None:
    assert set(UNITS) == {field.name for field in dataclasses.fields(Assumptions)}
    found = assumptions(config(OPENAI), PROBLEMS, Records(), {"steps": 3.0})
    for field in dataclasses.fields(found):
        each = getattr(found, field.name)
        assert each.unit
        assert each.source
    assert found.steps == Assumption(3.0, UNITS["steps"], "--steps")
    assert found.tests_per_program.value == 1.0
    assert found.tests_per_program.source == "mean of 4 problems"
    assert "'high'" in found.reasoning_tokens.source


def test_a_policy_that_does_not_reason_is_given_no_reasoning() -> None:
    options = config(OPENAI, rollouts={"policy": VLLM})
    found = assumptions(options, [], Records(), {})
    assert found.reasoning_tokens.value > 0
    assert found.rollout_reasoning_tokens.value == 0


def test_numbers_are_measured_where_the_store_has_rows() -> None:
    two = "def a():\n    pass\ndef b():\n    pass\n"
    four = two + two.replace("a", "c").replace("b", "d")
    records = Records(
        [solution(0, two, 700, 500), solution(1, four, 1100, 700)],
        [completion(500), completion(700)],
        [verdict(1.0, 10), verdict(4.0, 10)],
    )
    found = assumptions(config(OPENAI), PROBLEMS, records, {})
    assert found.steps.value == 3.0
    assert found.reasoning_tokens.value == 600.0
    assert found.answer_tokens.value == 300.0
    assert found.rollout_reasoning_tokens.value == 600.0 - 150.0
    assert found.cpu_s_per_test.value == pytest.approx(0.25)
    assert found.steps.source == "measured on 2 solutions of the store"


def test_recorded_answers_without_token_counts_measure_no_tokens() -> None:
    records = Records([solution(0, "def a(): pass\n", 0, 0)])
    found = assumptions(config(OPENAI), PROBLEMS, records, {})
    assert found.answer_tokens.source == "assumed"
    assert found.steps.value == 1.0


# --- the command --------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.skipif(not RECORDED.exists(), reason=f"{RECORDED.name} is not in shared/data")
def test_the_papers_setting_is_estimated_from_a_problem_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = run(
        capsys,
        *("--config", "jobs/configs/livecodebench.yaml", "--problems", str(RECORDED)),
        *("--before", "2024-08-01", "--sampling.samples", "1", "--rollouts.samples", "16"),
        *("--rollouts.policy", "null", "--rollouts.roles", "[train, meta]", "--steps", "6"),
    )
    assert sum(found["problems_by_role"].values()) == 601
    assert found["sampling"]["calls"] == 601
    assert found["rollouts"]["calls"] == 601 * 5 * 16
    for stage in ("sampling", "rollouts"):
        price, tokens = OpenAIPolicy().price, found[stage]["tokens"]
        output = tokens["answer"] + tokens["reasoning"]
        usd = (tokens["prompt"] * price.input + output * price.output) / 1e6
        assert found[stage]["usd"] == pytest.approx(usd, rel=1e-6)
        assert found[stage]["batch_usd"] == pytest.approx(usd / 2, rel=1e-6)
    assert any("budget_usd is 500.00" in note for note in found["notes"])


def test_a_tokenizer_counts_the_very_prompts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    from pipeline.prompts import solution_prompt
    from pipeline.scale_model.tokenizer import train_tokenizer

    folder, problems = tmp_path / "tokenizer", tmp_path / "p.jsonl"
    train_tokenizer(["read a number and print its double\n"] * 9, 300).save_pretrained(folder)
    row = {
        "problem_id": "a", "statement": "Print the double.", "difficulty": "easy",
        "released_on": "2024-01-01", "tests": [{"stdin": "1", "expected": "2"}],
    }  # fmt: skip
    problems.write_text(json.dumps(row))
    found = run(
        capsys,
        *("--config", "jobs/configs/livecodebench.yaml", "--problems", str(problems)),
        *("--tokenizer", str(folder)),
    )
    options = config(OPENAI)
    prompt = solution_prompt(_loaded(problems), options.policy.prompt)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = len(tokenizer(prompt.system + prompt.user, add_special_tokens=False)["input_ids"])
    assert found["sampling"]["tokens"]["prompt"] == 8 * expected
    assert any("counted with the tokenizer" in note for note in found["notes"])


def _loaded(path: Path) -> Problem:
    from pipeline.config import FileProblems
    from pipeline.problems import load_problems

    (only,) = load_problems(FileProblems(kind="jsonl", paths=(str(path),)))
    return only


def test_rows_of_the_store_take_the_place_of_assumptions(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    row = {
        "problem_id": "a", "statement": "Print the double.", "difficulty": "easy",
        "released_on": "2024-01-01", "tests": [{"stdin": "1", "expected": "2"}],
    }  # fmt: skip
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    options = ["--config", "jobs/configs/livecodebench.yaml", "--root", str(tmp_path / "store")]
    options += ["--problems", f"{{kind: jsonl, paths: [{tmp_path / 'p.jsonl'}]}}"]
    config_file = tmp_path / "config.yaml"
    config_file.write_text(dump_config(load_config(options[1], options[2:])))
    plan = make_plan(load_config(config_file))
    assumed_first = run(capsys, "--config", str(config_file))["assumptions"]["steps"]

    made = [solution(index, "def a(): pass\ndef b(): pass\n", 900, 600) for index in range(8)]
    plan.solutions.write(0, made)
    found = run(capsys, "--config", str(config_file))
    assert assumed_first["source"] == "assumed"
    assert found["assumptions"]["steps"]["value"] == 2.0
    assert found["assumptions"]["answer_tokens"]["value"] == 300.0
    # One prompt was 50 tokens each time, so it is counted as that.
    assert found["sampling"]["tokens"]["prompt"] == pytest.approx(8 * 50)
    assert found["rollouts"]["calls"] == 8 * 1 * 16
    assert any("measured on 8 solutions" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--problems", "absent.jsonl"], "absent.jsonl"),
        (["--sampling.sampels", "3"], "Did you mean 'samples'?"),
        (["--problems", "README.md"], "README.md, row 1: no JSON object"),
        (
            ["--policy", "{kind: replay, path: r.jsonl}", "--rollouts.policy", "null"],
            "a replay policy cannot complete prefixes",
        ),
        (["--problems.paths", "[absent.jsonl]"], "absent.jsonl: cannot be read"),
        (["--problems.paths", "[pyproject.toml]", "--tokenizer", "nowhere"], "row 1, row"),
    ],
)
def test_what_is_wrong_is_told_in_words(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", "jobs/configs/livecodebench.yaml", *arguments]) > 0
    assert told in capsys.readouterr().err


def test_the_tables_name_every_assumption_that_they_rest_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--config", "jobs/configs/demo.yaml", "--root", "/nowhere"]) == 0
    shown = capsys.readouterr().out
    assert "6,560" in shown  # calls: (240 + 80 + 100 + 400) problems, 8 solutions each
    assert "mean of 820 problems" in shown
    assert "dollars" not in shown
    assert "reasoning before" not in shown


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--cache-hits", "50"], "'50' is no share from 0 to 1"),
        (["--steps", "six"], "'six' is no number from 0 on"),
        (["--steps", "nan"], "'nan' is no number from 0 on"),
        (["--answer-tokens", "1e308"], "'1e308' is no number from 0 on"),
        (["--gpu-tokens-per-s", "0"], "'0' is no number above 0"),
        (["--difficulty", "easy"], "filters go with --problems FILE"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--config", "jobs/configs/livecodebench.yaml", *arguments])
    assert told in capsys.readouterr().err


def test_a_batch_that_waits_for_anothers_answers_takes_another_day() -> None:
    early = {"samples": 16, "early_stop": {"first": 4}}
    found = of(config(OPENAI, rollouts=early))  # waves of 4, 4 and 8
    assert (found.sampling.batch_hours, found.rollouts.batch_hours) == (24.0, 72.0)


def paid_config(tmp_path: Path, sampling: dict, rollouts: dict | None) -> list[str]:
    """Options of an estimate of one problem, which two policies may pay for."""
    (tmp_path / "p.jsonl").write_text(json.dumps(ONE_PROBLEM) + "\n{}\n")
    options = config(
        OPENAI | sampling,
        problems={"kind": "jsonl", "paths": [str(tmp_path / "p.jsonl")]},
        rollouts={"samples": 3, "policy": rollouts and OPENAI | rollouts},
        root=str(tmp_path / "store"),
    )
    (tmp_path / "config.yaml").write_text(dump_config(options))
    return ["--config", str(tmp_path / "config.yaml")]


ONE_PROBLEM = {
    "problem_id": "a", "statement": "Print the double.", "difficulty": "easy",
    "released_on": "2024-01-01", "tests": [{"stdin": "1", "expected": "2"}],
}  # fmt: skip


def test_bad_rows_of_the_configs_own_files_can_be_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = paid_config(tmp_path, {}, None)
    assert main(options) == 1
    assert "--problems.skip_bad_rows true" in capsys.readouterr().err
    for mend in (["--skip-bad-rows"], ["--problems.skip_bad_rows", "true"]):
        assert run(capsys, *options, *mend)["problems_by_role"]["train"] == 1


def test_each_stage_is_paid_at_its_own_policys_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = paid_config(tmp_path, {"budget_usd": 1e-6}, {"batch": True, "budget_usd": 1e-6})
    found = run(capsys, *both, "--skip-bad-rows", "--answer-tokens", "1e6")
    sampling = found["sampling"]["usd"]
    notes = [note for note in found["notes"] if note.startswith("budget_usd")]
    wanted = [sampling, sampling + found["rollouts"]["batch_usd"]]
    told = [note.split(" and ")[1].split(" are wanted")[0] for note in notes]
    assert told == [f"{usd:,.2f}" for usd in wanted]
