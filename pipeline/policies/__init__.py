"""Policies: models that write programs, behind one small protocol.

Importing this package is light; a policy brings its engine or client when it is opened.
"""

import json
from pathlib import Path

from pipeline.config import OpenAIPolicy, PolicyConfig, ReplayPolicy, VLLMPolicy
from pipeline.folders import local_folder
from pipeline.policies.protocol import Policy
from pipeline.prompts import prompt_version
from pipeline.records import PolicyVersion

# The options that shape an answer; all others say where and how fast it is made.
_SHAPING = {
    VLLMPolicy: ("temperature", "top_p", "max_tokens", "stop", "max_model_len", "dtype", "seed"),
    OpenAIPolicy: ("api", "base_url", "reasoning_effort", "max_output_tokens"),
    ReplayPolicy: (),
}


def open_policy(config: PolicyConfig, journal_dir: Path | str) -> Policy:
    """The policy that `config` describes; a paid one keeps its responses in `journal_dir`.

    Raises PolicyError where it cannot be had: a model that does not load, a missing key or file.
    """
    match config:
        case VLLMPolicy():
            from pipeline.policies.vllm import VLLM

            return VLLM(config.model_copy(update={"model": local_folder(config.model)}))
        case OpenAIPolicy():
            from pipeline.journal import Journal
            from pipeline.object_journal import open_journal
            from pipeline.policies.openai import OpenAI
            from pipeline.policies.openai_batch import OpenAIBatch

            if config.batch:  # needs a folder for its submissions: see PipelineConfig
                return OpenAIBatch(config, Journal(journal_dir))
            return OpenAI(config, open_journal(str(journal_dir)))
        case ReplayPolicy():
            from pipeline.policies.replay import Replay

            return Replay(config)


def policy_version(config: PolicyConfig) -> PolicyVersion:
    """What of `config` shapes the answers: model, parameters as canonical JSON, prompt version."""
    model = config.path if isinstance(config, ReplayPolicy) else config.model
    parameters = config.model_dump(mode="json", include=set(_SHAPING[type(config)]))
    return PolicyVersion(
        model=model,
        parameters=json.dumps(parameters, sort_keys=True, separators=(",", ":")),
        prompt_version=prompt_version(config.prompt),
    )
