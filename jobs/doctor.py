"""What this machine or cluster lacks: one line per thing, with the mend.

    python -m jobs.doctor [--root runs/store] [--output runs] [--address auto]

Exits with 1 when something is missing that the demo needs; what only other runs need (a Docker
engine, GPUs, keys, a cluster) is named and does not count. A key is never shown.
"""

import argparse
import ctypes
import glob
import importlib.metadata
import logging
import multiprocessing
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection

import docker.errors
import ray
import ray.exceptions

from jobs.doctor_findings import Finding, State
from jobs.doctor_store import check_output, check_store
from sandbox import IMAGE, SandboxUnavailable
from sandbox.container import connect

CONNECT_S = 5.0  # for a cluster to accept a connection, seconds
_CLIENT_PORT = "10001"  # Ray's own for ray:// addresses that name none
ANSWER_S = 60.0  # for a cluster to say what it offers, seconds; a busy one takes some
PYTHONS = ((3, 11), (3, 12))
GPU_DEVICES = "/dev/nvidia[0-9]*"
KEYS = {
    "OPENAI_API_KEY": "policy `openai`",
    "HF_TOKEN": "gated models on the Hugging Face hub",
}


def _anew() -> str:
    """Installing anew, with the packages that this machine wants."""
    return "make clean setup EXTRA=gpu" if glob.glob(GPU_DEVICES) else "make clean setup"


def check_python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] in PYTHONS:
        return Finding("Python", State.OK, f"{version} at {sys.executable}")
    return Finding("Python", State.MISSING, f"{version} is not 3.11 or 3.12", _anew())


def check_ray(address: str | None) -> Iterator[Finding]:
    """Ray, and what a cluster offers where one is named."""
    if address is None:
        cpus = len(os.sched_getaffinity(0))
        yield Finding("Ray", State.OK, f"{ray.__version__}, would start here with {cpus} CPUs")
        return
    found = _ask(address)
    if isinstance(found, str):
        yield Finding(
            "Ray",
            State.MISSING,
            f"{ray.__version__}, no cluster at {address}: {found}",
            f"{_token()}`ray start --head` or `ray up cluster.yaml`, or leave --address and "
            "RAY_ADDRESS out",
        )
        return
    nodes, resources = found
    offered = ", ".join(f"{name} {resources.get(name, 0):g}" for name in ("CPU", "GPU", "docker"))
    yield Finding("Ray", State.OK, f"{ray.__version__}, at {address}: nodes {nodes}, {offered}")
    if not resources.get("docker"):
        yield Finding(
            "Sandbox slots",
            State.ABSENT,
            "no node declares any: a run would wait for one that does",
            "`ray start --address ... --resources '{\"docker\": 4}'` beside a Docker engine, or an "
            "autoscaler that starts such nodes",
        )


def _token() -> str:
    """A cluster that asks for a token does not let in who comes without one."""
    if os.environ.get("RAY_AUTH_MODE") == "token":
        return ""
    return "RAY_AUTH_MODE=token where the cluster runs with it, as those of cluster.yaml do; else "


def _ask(address: str) -> tuple[int, dict[str, float]] | str:
    """The cluster's nodes and resources, or why it does not answer.

    Asked by a process of its own: Ray tries an address that does not answer, that of a cluster that
    is ending for one, for many minutes, and cannot be interrupted.
    """
    scheme, _, named = address.rpartition("://")
    if scheme == "ray" and ":" not in named:
        named = f"{named}:{_CLIENT_PORT}"
    host, colon, port = named.rpartition(":")
    try:
        if colon:
            socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except (OSError, ValueError) as error:
        return str(error)
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe(duplex=False)
    asking = spawn.Process(target=_tell, args=(address, there), daemon=True)
    asking.start()
    there.close()
    try:
        return here.recv() if here.poll(ANSWER_S) else f"no answer within {ANSWER_S:.0f} s"
    except EOFError:
        return "Ray ended while it was asked"
    finally:
        asking.kill()
        asking.join()


def _tell(address: str, answer: Connection) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)  # Ray's C++ repeats there what it tries
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        nodes = sum(node["Alive"] for node in ray.nodes())
        answer.send((nodes, ray.cluster_resources()))
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        answer.send(str(error).splitlines()[0])


def check_sandbox() -> Iterator[Finding]:
    """The engine, and its image where one answers."""
    try:
        client = connect()
    except SandboxUnavailable as error:
        yield Finding(
            "Docker engine",
            State.ABSENT,
            f"{error}".partition(". ")[0],
            "`make sandbox` as root on Debian/Ubuntu, the group `docker` where permission is "
            "denied, or DOCKER_HOST; without one the demo runs unsandboxed",
        )
        return
    try:
        yield Finding("Docker engine", State.OK, f"{client.version()['Version']}")
        image = client.images.get(IMAGE)
        megabytes = image.attrs["Size"] / 1e6
        yield Finding("Sandbox image", State.OK, f"{IMAGE}, {megabytes:.0f} MB")
    except docker.errors.ImageNotFound:
        yield Finding("Sandbox image", State.ABSENT, f"no {IMAGE}", "python -m sandbox.image")
    finally:
        client.close()


def check_gpus() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library is missing
        return Finding("torch", State.MISSING, f"{error}", _anew())
    count = torch.cuda.device_count()
    if count == 0:
        return Finding(
            "GPUs",
            State.ABSENT,
            f"none seen by torch {torch.__version__}",
            "none needed for the demo; else NVIDIA's driver and `make setup EXTRA=gpu`",
        )
    devices = [torch.cuda.get_device_properties(index) for index in range(count)]
    named = ", ".join(f"{device.name} {device.total_memory / 1e9:.0f} GB" for device in devices)
    return Finding("GPUs", State.OK, f"{count}: {named}")


def check_vllm() -> Finding:
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        from vllm.platforms import current_platform

        device = current_platform.device_type
        if device == "cpu":
            ctypes.CDLL("libnuma.so.1")
    except (ImportError, OSError) as error:
        mend = "apt-get install libnuma1" if "libnuma" in str(error) else _anew()
        return Finding("vLLM", State.MISSING, f"{error}", mend)
    versions = importlib.metadata.packages_distributions()["vllm"]
    version = importlib.metadata.version(versions[0])
    return Finding("vLLM", State.OK, f"{version} on {device}")


def check_keys() -> Iterator[Finding]:
    for variable, purpose in KEYS.items():
        if os.environ.get(variable):
            yield Finding(variable, State.OK, "set")
        else:
            yield Finding(variable, State.ABSENT, f"only for {purpose}", f"export {variable}=...")


def examine(root: str, output: str, address: str | None) -> Iterator[Finding]:
    """Every finding, as soon as it is known."""
    yield check_python()
    yield from check_ray(address)
    yield from check_sandbox()
    yield check_gpus()
    yield check_vllm()
    yield from check_keys()
    yield from check_store(root)
    yield check_output(output)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.doctor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--root",
        default="runs/store",
        help="where a run would keep its results: its disk and clock (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        default="runs",
        help="where it would keep its report and log: their disk (default: %(default)s)",
    )
    parser.add_argument(
        "--address",
        default=os.environ.get("RAY_ADDRESS"),
        help="a Ray cluster to look at, such as `auto` (default: RAY_ADDRESS, else none)",
    )
    options = parser.parse_args(arguments)
    missing = 0
    for finding in examine(options.root, options.output, options.address):
        print(finding, flush=True)
        missing += finding.state is State.MISSING
    print(f"{missing} missing for the demo" if missing else "nothing missing for the demo")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
