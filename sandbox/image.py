"""The sandbox image: use it, or build it.

`python -m sandbox.image [TAG]` has it ready. Where a registry can be reached it is built from the
Dockerfile; else, as root on Debian/Ubuntu, with debootstrap from the machine's own package mirror.
The runner is not in the image, so an image stays good while the sandbox changes.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import docker
import docker.errors
import docker.utils
import requests

from sandbox.container import connect
from sandbox.judge import IMAGE
from sandbox.transport import SandboxUnavailable

Notice = Callable[[str], None]

_COMPONENTS = "main,universe"  # Ubuntu's; Debian warns about the second and goes on
_PACKAGES = ("python3", "python3-numpy", "python3-sortedcontainers")
# Nothing that a judged program could use.
_UNWANTED = (
    *("var/cache/apt", "var/lib/apt", "var/log", "usr/share/doc", "usr/share/man"),
    *("usr/share/locale", "usr/share/info", "usr/share/perl", "usr/share/perl5"),
)


def ensure_image(tag: str = IMAGE, on_notice: Notice | None = None) -> None:
    """Have the image `tag` on the engine. `on_notice` is told, in one line, what takes time.

    Raises SandboxUnavailable where there is no engine, or no way to build the image here.
    """
    client = connect()
    try:
        if _has_image(client, tag):
            return
        notice = on_notice or (lambda line: None)
        try:
            notice(f"building the sandbox image {tag} from its Dockerfile")
            client.images.build(path=str(Path(__file__).parent), tag=tag, rm=True)
        except (docker.errors.DockerException, requests.RequestException, TypeError) as error:
            notice(f"no registry can be reached ({str(error).splitlines()[0][:120]})")
            _build_with_debootstrap(client, tag, notice)
        notice(f"the sandbox image {tag} is ready")
    finally:
        client.close()


def _has_image(client: docker.DockerClient, tag: str) -> bool:
    try:
        client.images.get(tag)
    except docker.errors.ImageNotFound:
        return False
    return True


def _build_with_debootstrap(client: docker.DockerClient, tag: str, notice: Notice) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SandboxUnavailable(
            f"the image {tag!r} cannot be built here: that takes a registry, or root on Debian or "
            "Ubuntu. Build it elsewhere and `docker save` / `docker load` it"
        )
    if shutil.which("debootstrap") is None:
        notice("installing the package debootstrap")
        _run("apt-get", "install", "-y", "--no-install-recommends", "debootstrap")
    mirror, release = _mirror()
    notice(f"building it from {mirror} ({release}) with debootstrap; this takes a minute or two")
    # Not in /tmp, which is often mounted without devices.
    work = Path(tempfile.mkdtemp(prefix="sandbox-image-", dir="/var/tmp"))
    root = work / "root"
    try:
        _run(
            "debootstrap",
            "--variant=minbase",
            f"--components={_COMPONENTS}",
            f"--include={','.join(_PACKAGES)}",
            *(release, str(root), mirror),
        )
        archive = work / "root.tar"
        excludes = [f"--exclude=./{path}/*" for path in _UNWANTED]
        _run("tar", "-C", str(root), *excludes, "-cf", str(archive), ".")
        repository, name = docker.utils.parse_repository_tag(tag)
        client.api.import_image_from_file(str(archive), repository=repository, tag=name or "latest")
    finally:
        for mounted in ("proc", "sys"):  # a debootstrap that was interrupted leaves them
            if os.path.ismount(root / mounted):
                _run("umount", "-l", str(root / mounted))
        shutil.rmtree(work)
    if not _has_image(client, tag):
        raise SandboxUnavailable(f"the engine did not import the image {tag!r}")


def _mirror() -> tuple[str, str]:
    """The machine's own package mirror and release."""
    targets = _run(
        *("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)"),
        "Created-By: Packages",
    )
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    for line in targets.splitlines():
        uri, codename, component = line.split(" ")
        if (codename, component) == (release, "main"):
            return uri.rstrip("/"), release
    raise SandboxUnavailable(f"apt knows no mirror of {release}: run `apt-get update`")


def _run(*command: str) -> str:
    """The command's output. Raises SandboxUnavailable with its last lines."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        last = "\n".join(done.stdout.splitlines()[-5:])
        raise SandboxUnavailable(f"`{command[0]}` failed while building the image:\n{last}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sandbox.image", description=__doc__)
    parser.add_argument("tag", nargs="?", default=IMAGE, help="default: %(default)s")
    tag = parser.parse_args().tag
    try:
        ensure_image(tag, lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201
    except SandboxUnavailable as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
