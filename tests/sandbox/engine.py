"""A second Docker engine, for tests that kill one: its own socket, data and containerd, no network,
and nothing shared with the machine's."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import docker
import docker.errors
import requests

from sandbox import IMAGE
from sandbox.container import connect

_PATIENCE_S = 60.0


class Engine:
    """Running from the moment it is entered until it is left, but for what `kill` does."""

    def __init__(self, place: Path) -> None:
        self.socket = place / "docker.sock"
        self._place = place
        # Overlay file systems do not stack; and /tmp may be one, or without devices.
        self._data = Path(tempfile.mkdtemp(prefix="engine-", dir="/var/tmp"))
        self._containerd_pid = place / "exec" / "containerd" / "containerd.pid"
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def why_not() -> str | None:
        """Why none can be started here, if so."""
        if os.geteuid() != 0:
            return "only root can start an engine"
        return None if shutil.which("dockerd") else "there is no dockerd on this machine"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def __enter__(self) -> Self:
        try:
            self.start()
            self._copy_image()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def start(self) -> None:
        """Start it and wait until it answers."""
        # An engine that was killed leaves its pid files, and even a zombie counts as running.
        (self._place / "docker.pid").unlink(missing_ok=True)
        self._containerd_pid.unlink(missing_ok=True)
        with open(self._place / "log.txt", "ab") as log:
            self._process = subprocess.Popen(
                [
                    *("dockerd", "--host", self.url, "--data-root", str(self._data)),
                    *("--exec-root", str(self._place / "exec")),
                    *("--pidfile", str(self._place / "docker.pid")),
                    *("--bridge", "none", "--iptables=false", "--ip-forward=false"),
                    *("--ip-masq=false", "--ip6tables=false"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _PATIENCE_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                last = (self._place / "log.txt").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"the second engine does not start:\n{last}")
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL to the daemon; its containerd dies with it, its containers do not."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        with suppress(docker.errors.DockerException, requests.RequestException):
            client = docker.DockerClient(base_url=self.url, timeout=5)
            try:
                return client.ping()
            finally:
                client.close()
        return False

    def _copy_image(self) -> None:
        machine, second = connect(), docker.DockerClient(base_url=self.url, timeout=120)
        try:
            archive = self._data / "image.tar"
            with open(archive, "wb") as file:
                file.writelines(machine.images.get(IMAGE).save(named=True))
            with open(archive, "rb") as file:
                second.images.load(file)
            archive.unlink()
        finally:
            machine.close()
            second.close()

    def _end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()  # it ends its containers and its containerd
            self._process.wait(_PATIENCE_S)
        self._kill_shims()
        for mount in self._mounts():  # a killed engine leaves those of its containers
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(self._data, ignore_errors=True)

    def _kill_shims(self) -> None:
        """Those of containers that a killed engine left, and that its successor did not take up."""
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                command = (process / "cmdline").read_bytes()
                if b"containerd-shim" in command and os.fsencode(self._place) in command:
                    os.kill(int(process.name), signal.SIGKILL)

    def _mounts(self) -> list[str]:
        lines = Path("/proc/self/mounts").read_text().splitlines()
        places = (str(self._place), str(self._data))
        return [words[1] for line in lines if (words := line.split())[1].startswith(places)]
