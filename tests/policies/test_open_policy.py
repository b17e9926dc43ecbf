import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

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


@pytest.mark.parametrize(
    ("url", "named"),
    [
        (None, None),
        ("https://api.openai.com/v1", None),
        ("https://API.openai.com/v1/", None),
        ("http://h:8000/v1", "http://h:8000/v1"),
        ("HTTP://H:8000/v1//", "http://h:8000/v1"),
    ],
)
def test_a_server_has_one_name_however_it_is_written(url: str | None, named: str | None) -> None:
    assert OpenAIPolicy(base_url=url).base_url == named


@pytest.mark.parametrize(
    ("url", "told"),
    [
        *((url, "must be a URL") for url in ("", "h/v1", "ftp://h/v1", "http://", "http://h:port")),
        ("http://h/v1\n", "must be a URL"),
        ("https://gw:s3cret@h/v1", "no user, password"),
        ("https://h/v1?key=s3cret", "no user, password"),
    ],
)
def test_a_server_that_is_no_url_or_holds_a_secret_is_refused(url: str, told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        OpenAIPolicy(base_url=url)
    (error,) = refused.value.errors()
    assert error["loc"] == ("base_url",)
    assert told in error["msg"]
    assert "s3cret" not in error["msg"]
