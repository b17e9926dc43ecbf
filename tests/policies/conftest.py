import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config import VLLMPolicy
from pipeline.policies.vllm import VLLM
from tests.policies.tiny_model import save_tiny_model

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny_model")
    save_tiny_model(directory)
    return directory


@pytest.fixture(scope="session")
def tiny_config(tiny_model: Path) -> VLLMPolicy:
    return VLLMPolicy(
        model=str(tiny_model), gpus=0, dtype="float32", max_tokens=24, kv_cache_gb=0.25
    )


@pytest.fixture(scope="session")
def engine(tiny_config: VLLMPolicy) -> Iterator[VLLM]:
    """One engine for the whole session: its start is what costs."""
    policy = VLLM(tiny_config)
    yield policy
    policy.close()
