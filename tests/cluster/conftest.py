"""One cluster of several nodes (raylets of one machine), and two runs on it."""

from collections.abc import Iterator

import pytest

from tests.soak import NODES, POLICY_WORKERS, Kind, Nodes, Soaked, config_of, soak


@pytest.fixture(scope="package")
def nodes() -> Iterator[Nodes]:
    """A Ray cluster of several nodes for all of these tests: its start is what costs. Jobs that
    join it start their own workers; see `on_nodes`."""
    with Nodes(NODES) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def on_nodes(nodes: Nodes) -> Iterator[None]:
    """Jobs of this process join the cluster instead of starting one of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", nodes.address)
        yield


@pytest.fixture(scope="package")
def undisturbed(
    docker_engine: None, nodes: Nodes, tmp_path_factory: pytest.TempPathFactory
) -> Soaked:
    """A run that nobody disturbed. Its first parts take as long as a pool takes to grow."""
    place = tmp_path_factory.mktemp("undisturbed")
    (place / "company").write_text(str(POLICY_WORKERS))
    return soak(place, nodes, config_of(place, problems=16))


@pytest.fixture(scope="package")
def soaked(docker_engine: None, nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Soaked:
    """The same run, in which one of each kind of process was killed at a random moment."""
    place = tmp_path_factory.mktemp("soaked")
    return soak(place, nodes, config_of(place, problems=16), tuple(Kind), seed=1)
