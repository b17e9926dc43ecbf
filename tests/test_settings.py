"""A config is either understood whole or refused in words that say what to change."""

from pathlib import Path

import pytest
import yaml

from pipeline.config import ArmConfig, Correction, VLLMPolicy
from pipeline.config.idle import idle_options
from pipeline.records import Role
from pipeline.settings import ConfigError, dump_config, load_config, options

MINIMAL = """
problems: {kind: scale_model, train: 10}
policy: {kind: vllm, model: small}
"""


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(MINIMAL)
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(path, overrides)
    return str(error.value)


def test_a_minimal_config_gets_every_default(config_file: Path) -> None:
    config = load_config(config_file)
    assert config.sampling.samples == 8
    assert config.rollouts.roles == (Role.TRAIN,)


def test_an_override_wins_over_the_file(config_file: Path) -> None:
    config = load_config(config_file, ["--sampling.samples", "3", "--policy.temperature=0.5"])
    assert config.sampling.samples == 3
    assert isinstance(config.policy, VLLMPolicy)
    assert config.policy.temperature == 0.5


def test_an_override_may_be_a_list_or_a_section(config_file: Path) -> None:
    config = load_config(
        config_file, ["--rollouts.roles", "[train, meta]", "--training.arms", "[{name: only}]"]
    )
    assert config.rollouts.roles == (Role.TRAIN, Role.META)
    assert [arm.name for arm in config.training.arms] == ["only"]


def test_the_resolved_config_loads_to_itself(config_file: Path, tmp_path: Path) -> None:
    config = load_config(config_file)
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(dump_config(config))
    assert load_config(resolved) == config


def test_a_typo_is_named_with_what_was_meant(config_file: Path) -> None:
    message = refusal(config_file, "--sampling.sampels", "3")
    assert f"{config_file}: sampling.sampels: unknown key. Did you mean 'samples'?" in message
    assert "problems_per_part" in message


def test_a_typo_inside_a_union_names_the_key_without_its_tag(config_file: Path) -> None:
    message = refusal(config_file, "--problems.trian", "3")
    assert "problems.trian: unknown key. Did you mean 'train'?" in message


def test_a_typo_inside_a_list_names_the_item(config_file: Path) -> None:
    message = refusal(config_file, "--training.arms", "[{name: a}, {name: b, target: soft}]")
    assert "training.arms.1.target: unknown key. Did you mean 'targets'?" in message


def test_a_wrong_type_names_key_and_value(config_file: Path) -> None:
    message = refusal(config_file, "--sampling.samples", "many")
    assert "sampling.samples: input should be a valid integer" in message
    assert "'many'" in message


def test_every_error_is_told_at_once(config_file: Path) -> None:
    message = refusal(config_file, "--sampling.samples", "0", "--sandbox.slots", "0")
    assert "sampling.samples" in message
    assert "sandbox.slots" in message


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("problems: {kind: scale_model}")
    assert "policy: missing" in refusal(path)


def test_an_unknown_kind_lists_those_there_are(config_file: Path) -> None:
    message = refusal(config_file, "--policy.kind", "gpt")
    assert "policy: " in message
    assert "'openai'" in message
    assert "'vllm'" in message


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["--training.batch_size", "1", "--training.workers", "2"], "at most batch_size (1)"),
        (["--splits.meta.after", "2024-01-01"], "the windows of train and meta overlap"),
        (
            ["--training.arms", "[{name: a, targets: final, correction: labels}]"],
            "nothing to correct",
        ),
        (
            [
                "--problems",
                "{kind: jsonl, paths: [p.jsonl]}",
                "--training.arms",
                "[{name: ceiling, targets: 'true'}]",
            ],
            "which only scale_model problems have",
        ),
        (["--output", "s3://bucket/runs"], "name a folder"),
        (["--root", "s3://bucket/store", "--policy", "{kind: openai, batch: true}"], "batch off"),
        (["--policy.model", "scale-model"], "needs a section `scale_model`"),
        (
            ["--problems", "{kind: jsonl, paths: [p.jsonl]}", "--scale_model", "{}"],
            "can only answer scale_model problems",
        ),
        (["--policy", "{kind: openai, model: o9}"], "no price is known for the model 'o9'"),
        (["--policy", "{kind: openai, prompt: bare}"], "cannot continue a prefix"),
        (["--training.arms", "[{name: a}, {name: b}]"], "they are one model"),
    ],
)
def test_an_impossible_combination_says_why(
    config_file: Path, overrides: list[str], words: str
) -> None:
    assert words in refusal(config_file, *overrides)


CORRECTOR = "[{name: a, correction: corrector}, {name: b}]"
WEIGHTS = "[{name: a, correction: weights}]"


@pytest.mark.parametrize(
    ("arms", "option", "value", "reason"),
    [
        (WEIGHTS, "label_space", "logit", "for correction 'labels' or 'shuffled'"),
        (CORRECTOR, "label_space", "logit", "and the arms have 'corrector'"),
        (CORRECTOR, "label_rate", "0.3", "for correction 'weights' or 'labels' or 'shuffled'"),
        (WEIGHTS, "corrector_rate", "0.01", "for correction 'corrector'"),
    ],
)
def test_an_option_of_a_correction_that_no_arm_has_is_refused(
    config_file: Path, arms: str, option: str, value: str, reason: str
) -> None:
    chosen = ["--training.arms", arms, f"--training.correction.{option}", value]
    message = refusal(config_file, *chosen)
    assert f"{config_file}: training.correction.{option}: " in message
    assert "would change nothing" in message
    assert reason in message
    labels = ArmConfig(name="labels", correction=Correction.LABELS)
    others = [ArmConfig(name=kind.value, correction=kind) for kind in Correction]
    load_config(config_file, chosen, arms=[labels, *others])  # a job with arms of its own


def test_options_of_every_correction_may_stand_beside_each_other(config_file: Path) -> None:
    both = "[{name: a, correction: corrector}, {name: b, correction: labels}]"
    rates = ["--training.correction.label_rate", "0.3", "--training.correction.corrector_rate", "1"]
    config = load_config(config_file, ["--training.arms", both, *rates])
    assert list(idle_options(config.training)) == []


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["correction.every", "2"],
            "training.correction.every: 2 changes nothing: no arm corrects",
        ),
        (["correction.meta_problems", "same"], "training.correction.meta_problems: 'same' changes"),
        (["crossfit_strength", "4"], "training.crossfit_strength: 4 changes nothing"),
        (["parallel", "fsdp"], "training.parallel: 'fsdp' changes nothing"),
    ],
)
def test_an_option_of_arms_that_were_left_out_is_told(
    config_file: Path, overrides: list[str], told: str
) -> None:
    key, value = overrides
    config = load_config(
        config_file, ["--training.arms", "[{name: a}]", f"--training.{key}", value]
    )
    (sentence,) = idle_options(config.training)
    assert sentence.startswith(told)


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(MINIMAL + "policy: {kind: vllm, model: other}\n")
    assert "'policy' is given twice" in refusal(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not valid YAML"),
        ("a: {{b}}", "not valid YAML"),
        ("- 1", "not `key: value` pairs"),
        (None, "no such config file"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text)
    assert words in refusal(path)


@pytest.mark.parametrize("words", [["sampling.samples", "3"], ["--sampling.samples"]])
def test_a_malformed_override_is_refused(config_file: Path, words: list[str]) -> None:
    refusal(config_file, *words)


def test_every_option_has_a_key_and_a_default() -> None:
    listed = {key: default for key, default, _ in options()}
    assert listed["sampling.samples"] == "8"
    assert listed["policy.model"] in ("required", "o4-mini")
    assert len(listed) > 60


def test_an_option_with_few_values_lists_them() -> None:
    meanings = {key: meaning for key, _, meaning in options()}
    assert "responses | chat" in meanings["policy.api"]
    assert "lcb | strict" in meanings["problems.comparator"]


@pytest.mark.parametrize("path", sorted(Path("jobs/configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_config_that_we_ship_is_valid(path: Path) -> None:
    assert list(idle_options(load_config(path).training)) == []
    assert yaml.safe_load(path.read_text())
