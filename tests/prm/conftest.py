import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

# Parses its own source when it is first needed, which fails where another thread parses just then
# (see `pipeline.functions`); at the time of collection there is none.
import torch._decomp.decompositions_for_jvp

from tests.prm.world import make_base

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_base(tmp_path_factory.mktemp("base"))
