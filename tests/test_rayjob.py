"""jobs/rayjob.yaml is a RayJob as KubeRay defines it, runs the README's command, and has a place
for every actor that the command starts."""

import copy
import re
import shlex
import socket
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,  # pyright: ignore[reportPrivateUsage]
)

from pipeline.config import PipelineConfig, VLLMPolicy
from pipeline.settings import load_config
from tests.placement import homeless

ROOT = Path(__file__).parent.parent
MANIFEST: dict[str, Any] = yaml.safe_load((ROOT / "jobs/rayjob.yaml").read_text())
SPEC = MANIFEST["spec"]
CLUSTER = SPEC["rayClusterSpec"]
HEAD = CLUSTER["headGroupSpec"]
WORKERS = {group["groupName"]: group for group in CLUSTER["workerGroupSpecs"]}

# The JSON names of the Go types of KubeRay's API ray.io/v1, in rayjob_types.go and
# raycluster_types.go of its ray-operator; `authOptions` is in the reference of KubeRay 1.6.
OF_A_JOB = """activeDeadlineSeconds backoffLimit rayClusterSpec submitterPodTemplate metadata
    clusterSelector submitterConfig managedBy deletionPolicy entrypoint runtimeEnvYAML jobId
    submissionMode entrypointResources entrypointNumCpus entrypointNumGpus ttlSecondsAfterFinished
    shutdownAfterJobFinishes suspend"""
OF_A_CLUSTER = """headGroupSpec workerGroupSpecs rayVersion enableInTreeAutoscaling
    autoscalerOptions headServiceAnnotations suspend authOptions"""
OF_THE_HEAD = "serviceType headService enableIngress rayStartParams template"
OF_WORKERS = """groupName replicas minReplicas maxReplicas numOfHosts rayStartParams template
    scaleStrategy"""


def offered() -> dict[str, dict[str, Any]]:
    """What a pod of each group offers, and how many there may be, as Ray's autoscaler reads it."""
    cluster = {"metadata": {"name": "a", "namespace": "b"}, "spec": copy.deepcopy(CLUSTER)}
    return _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]


@pytest.fixture(scope="module")
def config() -> PipelineConfig:
    """The config that the job would run, its options included."""
    words = shlex.split(SPEC["entrypoint"])
    assert words[:4] == ["python", "-m", "jobs.run", "--config"]
    return load_config(ROOT / words[4], words[5:])


def containers(group: dict[str, Any]) -> list[dict[str, Any]]:
    return group["template"]["spec"]["containers"]


def test_every_field_is_one_of_kuberays() -> None:
    assert (MANIFEST["apiVersion"], MANIFEST["kind"]) == ("ray.io/v1", "RayJob")
    assert SPEC.keys() <= set(OF_A_JOB.split())
    assert CLUSTER.keys() <= set(OF_A_CLUSTER.split())
    assert HEAD.keys() <= set(OF_THE_HEAD.split())
    for group in WORKERS.values():
        assert group.keys() <= set(OF_WORKERS.split())
        assert {"groupName", "minReplicas", "maxReplicas", "template"} <= group.keys()
    params = [HEAD["rayStartParams"], *(group["rayStartParams"] for group in WORKERS.values())]
    assert all(isinstance(value, str) for of in params for value in of.values())


def test_a_retry_gets_a_new_cluster_and_the_last_one_is_given_back() -> None:
    assert SPEC["submissionMode"] == "K8sJobMode"
    assert SPEC["backoffLimit"] > 0
    assert SPEC["shutdownAfterJobFinishes"] is True
    assert SPEC["ttlSecondsAfterFinished"] > 0  # only together with the line above


def test_it_starts_the_ray_that_the_project_pins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pinned,) = [name for name in project["dependencies"] if name.startswith("ray[")]
    assert CLUSTER["rayVersion"] == pinned.partition("==")[2]


def test_it_runs_the_command_that_the_readme_submits() -> None:
    readme = (ROOT / "README.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"ray job submit .* -- +(python -m jobs\.run .*)", readme)
    assert shlex.split(SPEC["entrypoint"]) in [shlex.split(command) for command in commands]


def test_results_are_on_the_volume_that_all_pods_share(config: PipelineConfig) -> None:
    for folder in (config.root, config.output, *getattr(config.problems, "paths", ())):
        assert folder.startswith("/shared/")
    for group in (HEAD, *WORKERS.values()):
        mounts = {
            mount["mountPath"]: mount["name"] for mount in containers(group)[0]["volumeMounts"]
        }
        volumes = {volume["name"]: volume for volume in group["template"]["spec"]["volumes"]}
        assert "persistentVolumeClaim" in volumes[mounts["/shared"]]
        assert set(mounts.values()) <= volumes.keys()


def test_there_is_a_pod_for_every_actor_of_the_run(config: PipelineConfig) -> None:
    groups = offered()
    assert homeless(config, [group["resources"] for group in groups.values()]) == []
    completer = config.rollouts.policy
    assert isinstance(completer, VLLMPolicy)

    def most(resource: str) -> float:
        return sum(of["max_workers"] * of["resources"].get(resource, 0) for of in groups.values())

    assert most("docker") >= config.sandbox.slots
    assert most("GPU") >= max(
        config.training.workers, config.rollouts.pool.max_size * completer.gpus
    )


def test_the_head_holds_no_work() -> None:
    assert offered()["headgroup"]["resources"]["CPU"] == 0


def test_only_judges_are_placed_beside_the_privileged_engine_and_no_key() -> None:
    sandbox = WORKERS["sandbox"]
    resources = offered()["sandbox"]["resources"]
    assert (resources["CPU"], resources.get("GPU", 0)) == (0, 0)
    judges, engine = containers(sandbox)
    assert engine["securityContext"] == {"privileged": True}
    assert "securityContext" not in judges
    environment = {entry["name"]: entry.get("value") for entry in judges["env"]}
    assert "OPENAI_API_KEY" not in environment
    assert f"--host={environment['DOCKER_HOST']}" in engine["args"]
    assert "python -m sandbox.image" in judges["args"][0]
    assert sandbox["template"]["spec"]["automountServiceAccountToken"] is False
    others = [HEAD, *(group for name, group in WORKERS.items() if name != "sandbox")]
    assert all("securityContext" not in each for group in others for each in containers(group))


@pytest.mark.parametrize("image_is_made", [True, False])
def test_a_sandbox_pod_joins_only_with_an_image(tmp_path: Path, image_is_made: bool) -> None:
    """KubeRay runs `<args> && ulimit -n 65536; ray start ...` in bash (BuildPod in its pod.go)."""
    judges, _ = containers(WORKERS["sandbox"])
    (args,) = judges["args"]
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(tmp_path / "docker.sock"))
        stubs = f"python() {{ {str(image_is_made).lower()}; }}; ray() {{ echo joined; }}; "
        line = args.replace("/run/engine", str(tmp_path)) + " && ulimit -n 1024; ray start"
        done = subprocess.run(
            ["bash", "-c", stubs + line], capture_output=True, text=True, timeout=60, check=False
        )
    assert (done.stdout == "joined\n") is image_is_made, done.stderr


def test_there_are_parts_enough_for_every_slot(config: PipelineConfig) -> None:
    """A part is judged in one slot, and Ray Data grows a pool of actors that take `n` parts at once
    to 1/(1.75 n) of the parts there are."""
    problems = 601  # of LiveCodeBench, before 2024-08
    parts = problems / config.sampling.problems_per_part
    assert parts >= 1.75 * config.sandbox.slots
    pool = config.rollouts.pool
    assert parts >= 1.75 * pool.max_size * pool.parts_in_flight


def test_the_key_comes_from_a_secret_and_reaches_those_who_call_the_api() -> None:
    for group in (HEAD, WORKERS["cpu"]):
        (key,) = [e for e in containers(group)[0]["env"] if e["name"] == "OPENAI_API_KEY"]
        assert key["valueFrom"]["secretKeyRef"] == {"name": "openai", "key": "api-key"}
        assert "value" not in key
