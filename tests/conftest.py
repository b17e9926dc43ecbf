"""Fixtures that several areas share: the Docker engine's one sandbox slot, and a Ray cluster."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from sandbox import Sandbox, SandboxUnavailable
from sandbox.container import connect
from sandbox.image import ensure_image

if TYPE_CHECKING:
    from tests.soak import Nodes, Soaked


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

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
        yield
    ray.shutdown()


@pytest.fixture(scope="session")
def nodes() -> Iterator["Nodes"]:
    """A Ray cluster of several nodes, which stays up: its start is what costs. Jobs that join it
    start their own workers; see `on_nodes`."""
    from tests.soak import NODES, Nodes  # imports Ray, which most tests do without

    with Nodes(NODES) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def on_nodes(nodes: "Nodes") -> Iterator[None]:
    """Jobs of this process join the cluster instead of starting one of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", nodes.address)
        yield


@pytest.fixture(scope="session")
def undisturbed(
    docker_engine: None, nodes: "Nodes", tmp_path_factory: pytest.TempPathFactory
) -> "Soaked":
    """A run that nobody disturbed."""
    from tests.soak import config_of, soak

    place = tmp_path_factory.mktemp("undisturbed")
    return soak(place, nodes, config_of(place, problems=16))


@pytest.fixture(scope="session")
def soaked(
    docker_engine: None, nodes: "Nodes", tmp_path_factory: pytest.TempPathFactory
) -> "Soaked":
    """The same run, in which one of each kind of process was killed at a random moment."""
    from tests.soak import Kind, config_of, soak

    place = tmp_path_factory.mktemp("soaked")
    return soak(place, nodes, config_of(place, problems=16), tuple(Kind), seed=1)
