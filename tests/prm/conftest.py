import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator

import pytest
import ray
import torch

# Parses its own source when it is first needed, which fails where another thread parses just then
# (see `pipeline.functions`); at the time of collection there is none.
import torch._decomp.decompositions_for_jvp

from tests.prm.ray_training import Trained, train
from tests.prm.world import make_base

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="package")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="package")
def by_two(cluster: None, base: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trained by two workers, undisturbed."""
    return train(base, tmp_path_factory.mktemp("two"), workers=2)
