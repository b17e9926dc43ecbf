"""The Docker transport: one warm container per slot, locked down as far as the engine goes.

The container has no network, no capability but those that the runner needs to hand out uids, a
read-only root, and 64 MiB of noexec tmpfs. The judge talks to it over the attach socket; nothing is
logged. A container whose owner dies sees the end of its input and exits by itself; one that hangs
on is found by its label and removed by the next `remove_orphans` on that machine.
"""

import os
import socket
import struct
import time
from contextlib import suppress
from functools import cache
from typing import Any

import docker
import docker.errors
import docker.types
import requests

from sandbox import boot, owner
from sandbox.protocol import Isolation
from sandbox.transport import SandboxUnavailable, TransportError

OWNER_LABEL = "chain-of-functions.sandbox.owner"

_CHUNK = 1 << 16  # more would be mapped, and unmapped, for each read
_DIAGNOSTICS = 4096  # bytes of the runner's stderr that an error may quote
_MULTIPLEX = struct.Struct(">BxxxI")  # Docker's header of a chunk: stream, length
_STDERR = 2

_SYSCTLS = {
    "kernel.shmmni": "0",
    "kernel.msgmni": "0",
    "kernel.sem": "0 0 0 0",
    "fs.mqueue.queues_max": "0",
}


def connect() -> docker.DockerClient:
    """The engine that DOCKER_HOST names, or the local one. Raises SandboxUnavailable."""
    tried = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    try:
        client = docker.from_env()
        client.ping()
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise SandboxUnavailable(
            f"no Docker engine answers at {tried} ({error}). Start one (`systemctl start docker`, "
            "or `dockerd` where there is no init system), or set DOCKER_HOST"
        ) from error
    return client


def remove_orphans(client: docker.DockerClient) -> int:
    """Remove the containers whose owner on this machine is dead; returns how many."""
    removed = 0
    # Others end while they are listed: each is asked for by itself.
    listed = client.containers.list(all=True, ignore_removed=True, filters={"label": OWNER_LABEL})
    for container in listed:
        if owner.is_dead(container.labels[OWNER_LABEL]):
            with suppress(docker.errors.NotFound, docker.errors.APIError):  # someone was faster
                container.remove(force=True)
                removed += 1
    return removed


class ContainerTransport:
    """A runner in a container of its own."""

    isolation = Isolation.DOCKER
    cargo = boot.cargo("/box", own_uids=True)

    def __init__(self, client: docker.DockerClient, image: str, memory_mb: int) -> None:
        """Start the container. Raises SandboxUnavailable where the image is missing or the engine
        refuses."""
        self._buffer = bytearray()  # what the runner wrote and nobody has asked for yet
        self._undecoded = bytearray()  # of Docker's stream
        self._diagnostics = bytearray()
        try:
            self._container = client.containers.create(
                image,
                ["python3", *boot.FLAGS],
                user="0:0",
                environment=boot.ENVIRONMENT,
                labels={OWNER_LABEL: owner.this_process()},
                stdin_open=True,
                auto_remove=True,
                network_mode="none",
                read_only=True,
                cap_drop=["ALL"],
                cap_add=["SETUID", "SETGID", "CHOWN"],
                security_opt=["no-new-privileges"],
                pids_limit=64,
                mem_limit=f"{memory_mb}m",
                memswap_limit=f"{memory_mb}m",
                nano_cpus=10**9,
                ipc_mode="none",
                init=True,
                log_config=docker.types.LogConfig(type="none"),
                ulimits=[docker.types.Ulimit(name="core", soft=0, hard=0)],
                tmpfs={"/box": "size=64m,nr_inodes=4096,mode=0711,noexec,nosuid,nodev"},
                sysctls=_SYSCTLS,
                **_engine_options(client),
            )
        except docker.errors.ImageNotFound as error:
            raise SandboxUnavailable(
                f"the engine has no image {image!r}: build it with `python -m sandbox.image`"
            ) from error
        except (docker.errors.DockerException, requests.RequestException) as error:
            raise SandboxUnavailable(f"the Docker engine made no container: {error}") from error
        try:
            attached = client.api.attach_socket(
                self.container_id, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
            )
            self._attached = attached
            self._socket: socket.socket = getattr(attached, "_sock", attached)
            self._container.start()
        except (docker.errors.DockerException, requests.RequestException) as error:
            self.close()
            raise SandboxUnavailable(f"the Docker engine started no container: {error}") from error

    @property
    def container_id(self) -> str:
        return str(self._container.id)

    def send(self, data: bytes, deadline: float) -> None:
        try:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            self._socket.sendall(data)
        except OSError as error:
            raise TransportError(f"the container does not listen: {error}") from error

    def receive(self, count: int, deadline: float) -> bytes:
        while len(self._buffer) < count:
            self._receive_some(deadline)
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def stop(self) -> None:
        with suppress(OSError):  # it has ended
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError, AttributeError):  # it may not have come to be attached
            self._attached.close()
        with suppress(docker.errors.DockerException, requests.RequestException):
            self._container.remove(force=True)  # or it is being removed, as it should

    def _receive_some(self, deadline: float) -> None:
        try:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            data = self._socket.recv(_CHUNK)
        except TimeoutError as error:
            raise TransportError("the container is silent") from error
        except OSError as error:
            raise TransportError(f"the container is gone: {error}") from error
        if not data:
            said = self._diagnostics.decode("utf-8", "replace").strip()
            raise TransportError(f"the container has ended{': ' + said if said else ''}")
        self._demultiplex(data)

    def _demultiplex(self, data: bytes) -> None:
        """Docker's attach stream: chunks of standard output and standard error, each with a header
        of eight bytes."""
        self._undecoded += data
        position = 0
        while position + _MULTIPLEX.size <= len(self._undecoded):
            stream, size = _MULTIPLEX.unpack_from(self._undecoded, position)
            start = position + _MULTIPLEX.size
            if start + size > len(self._undecoded):
                break
            chunk = self._undecoded[start : start + size]
            if stream == _STDERR:
                self._diagnostics = (self._diagnostics + chunk)[-_DIAGNOSTICS:]
            else:
                self._buffer += chunk
            position = start + size
        del self._undecoded[:position]


@cache
def _engine_options(client: docker.DockerClient) -> dict[str, Any]:
    """What depends on the engine, asked once for each client. gVisor where it is installed; and a
    cgroup namespace of its own where cgroup v2 might give it the host's, or the meter would read
    the host's figures."""
    info = client.info()
    options: dict[str, Any] = {}
    if "runsc" in info.get("Runtimes", {}):
        options["runtime"] = "runsc"
    if info.get("CgroupVersion") == "2":
        options["cgroupns"] = "private"
    return options
