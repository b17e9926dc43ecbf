"""cluster.yaml is accepted by the Ray launcher and prepares each kind of node for its work."""

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from pipeline.settings import load_config
from tests.placement import homeless

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "cluster.yaml").read_text()
CONFIG: dict[str, Any] = yaml.safe_load(TEXT)
NODE_TYPES = CONFIG["available_node_types"]


def _local_variant() -> dict[str, Any]:
    """The configuration with the commented on-premises sections in place of the cloud's."""
    commented = TEXT.split("# --- local variant ---\n")[1]
    return CONFIG | yaml.safe_load(re.sub(r"(?m)^# ?", "", commented))


@pytest.mark.parametrize("config", [CONFIG, _local_variant()], ids=["aws", "local"])
def test_rays_own_schema_accepts_it(config: dict[str, Any]) -> None:
    validate_config(prepare_config(copy.deepcopy(config)))


def test_rays_schema_refuses_a_misspelt_key() -> None:
    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepare_config({**copy.deepcopy(CONFIG), "max_worker": 3}))


def test_the_head_is_bought_outright_and_every_worker_is_spot() -> None:
    markets = {
        name: node["node_config"].get("InstanceMarketOptions", {}).get("MarketType")
        for name, node in NODE_TYPES.items()
    }
    assert markets == {"head": None, "gpu": "spot", "sandbox": "spot"}


def test_sandbox_nodes_offer_docker_slots_and_prepare_engine_and_image() -> None:
    node = NODE_TYPES["sandbox"]
    commands = " && ".join(node["worker_setup_commands"])

    assert 0 < node["resources"]["docker"] < node["resources"]["CPU"]
    assert "docker.io" in commands
    assert "make sandbox DOCKER=require" in commands  # else a node without an engine offers slots


def test_only_gpu_nodes_offer_gpus_and_install_the_gpu_lock() -> None:
    assert [name for name, node in NODE_TYPES.items() if "GPU" in node["resources"]] == ["gpu"]
    assert any("EXTRA=gpu" in line for line in NODE_TYPES["gpu"]["worker_setup_commands"])


def test_the_node_types_together_fit_under_the_clusters_limit() -> None:
    workers = sum(node.get("max_workers", 0) for node in NODE_TYPES.values())
    assert workers == CONFIG["max_workers"]


def test_there_is_a_node_for_every_actor_of_the_papers_run_and_none_beside_the_driver() -> None:
    config = load_config(ROOT / "jobs/configs/livecodebench.yaml")
    offers = [node["resources"] for node in NODE_TYPES.values()]
    assert homeless(config, offers) == []
    assert NODE_TYPES["head"]["resources"] == {"CPU": 0}
    slots = NODE_TYPES["sandbox"]["max_workers"] * NODE_TYPES["sandbox"]["resources"]["docker"]
    assert slots >= config.sandbox.slots
    gpus = NODE_TYPES["gpu"]["max_workers"] * NODE_TYPES["gpu"]["resources"]["GPU"]
    assert gpus >= max(config.training.workers, config.rollouts.pool.max_size)


def test_nodes_of_both_locks_start_the_same_ray() -> None:
    """Ray refuses nodes of another version than the head's."""
    pins = {
        lock: re.findall(r"(?m)^ray==(\S+)", (ROOT / f"requirements/{lock}.lock").read_text())
        for lock in ("cpu", "gpu")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pinned,) = [name for name in project["dependencies"] if name.startswith("ray[")]
    assert pins["cpu"] == pins["gpu"] == [pinned.partition("==")[2]]


def test_set_up_calls_only_targets_that_the_makefile_has() -> None:
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))
    called = set(re.findall(r"\bmake ([a-z]+)\b(?!-)", TEXT)) - {"python"}
    assert {"setup", "sandbox"} <= called <= targets


def test_what_a_user_must_fill_in_is_marked_and_nothing_names_a_registry() -> None:
    images = [node["node_config"]["ImageId"] for node in NODE_TYPES.values()]
    assert all(image.startswith("<") and image.endswith(">") for image in images)
    assert not re.search(r"https?://(?!localhost:)|docker\.com|ghcr|\.io/", TEXT)
