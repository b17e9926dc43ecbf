"""What several areas share: the Docker engine's one sandbox slot, Ray clusters, and how the tests
are shared between processes."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox import Sandbox, SandboxUnavailable
from sandbox.container import connect
from sandbox.image import ensure_image
from tests.order import rank

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts in the background so, and processes pass it on: the jobs that
    # tests interrupt would not hear of it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: rank(item.nodeid))  # stable: files stay whole


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.processes import ByGroup  # a single process does without xdist

    return ByGroup(config, log)


@pytest.fixture(scope="session")
def docker_engine() -> None:
    """Skips where no engine answers. Anything else that is missing is a failure."""
    try:
        connect().close()
    except SandboxUnavailable as reason:
        pytest.skip(str(reason))
    ensure_image()


@pytest.fixture(scope="session")
def docker_sandbox(docker_engine: None) -> Iterator[Sandbox]:
    with Sandbox("docker") as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def process_sandbox() -> Iterator[Sandbox]:
    with Sandbox("unsafe-process") as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny randomly initialised decoder with its tokenizer, as a folder."""
    from tests.prm.world import make_base  # imports torch, which most tests do without

    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A Ray cluster of this module: jobs of this process work on it, jobs it starts join it."""
    import ray  # most tests do without

    slots = {"docker": 1}
    ray.init("local", num_cpus=2, resources=slots, include_dashboard=False, log_to_driver=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
        yield
    ray.shutdown()
