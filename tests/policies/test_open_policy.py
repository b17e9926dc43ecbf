import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import OpenAIPolicy, PolicyConfig, PromptStyle, ReplayPolicy, VLLMPolicy
from pipeline.policies import open_policy, policy_version
from pipeline.policies.replay import Replay
from pipeline.prompts import prompt_version


def test_opening_the_package_imports_no_engine_and_no_client() -> None:
    code = "import sys, pipeline.policies; print({'vllm', 'torch', 'openai'} & sys.modules.keys())"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert loaded.stdout.strip() == b"set()"


def test_the_kind_decides_what_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "recorded.json"
    path.write_text(json.dumps([{"question_id": "1", "output_list": ["print(1)"]}]))
    assert isinstance(open_policy(ReplayPolicy(path=str(path)), tmp_path), Replay)
    assert not open_policy(OpenAIPolicy(), tmp_path).continues_prefill


@pytest.mark.parametrize(
    ("config", "change"),
    [
        (VLLMPolicy(model="m"), {"model": "n"}),
        (VLLMPolicy(model="m"), {"temperature": 0.5}),
        (VLLMPolicy(model="m"), {"seed": 1}),
        (VLLMPolicy(model="m"), {"prompt": PromptStyle.BARE}),
        (OpenAIPolicy(), {"reasoning_effort": "low"}),
        (OpenAIPolicy(), {"max_output_tokens": 5}),
    ],
)
def test_what_shapes_the_answers_changes_the_version(
    config: PolicyConfig, change: dict[str, Any]
) -> None:
    assert policy_version(config.model_copy(update=change)) != policy_version(config)


@pytest.mark.parametrize(
    ("config", "change"),
    [
        (VLLMPolicy(model="m"), {"kv_cache_gb": 8.0}),
        (OpenAIPolicy(), {"budget_usd": 5.0}),
        (OpenAIPolicy(), {"requests_in_flight": 1}),
    ],
)
def test_where_and_how_fast_they_are_made_does_not(
    config: PolicyConfig, change: dict[str, Any]
) -> None:
    assert policy_version(config.model_copy(update=change)) == policy_version(config)


def test_parameters_are_canonical_json_and_the_prompt_version_is_that_of_the_style() -> None:
    version = policy_version(VLLMPolicy(model="m", temperature=0.7))
    parameters = json.loads(version.parameters)
    assert version.parameters == json.dumps(parameters, sort_keys=True, separators=(",", ":"))
    assert parameters["temperature"] == 0.7
    assert version.prompt_version == prompt_version(PromptStyle.CHAIN_OF_FUNCTIONS)
