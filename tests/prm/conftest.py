import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from tests.prm.world import make_base

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_base(tmp_path_factory.mktemp("base"))
