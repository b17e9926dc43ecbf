"""The doctor's look at where a run keeps things: may it write there, is there room, do the clocks
agree."""

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from jobs.doctor_findings import Finding, State
from pipeline.files import StoreError, delete, is_local, listing, read_bytes, write_atomically

DISK_GB = 2.0  # free space that a run of the demo may take, GB
CLOCK_S = 2.0  # skew to the store's file system that a lock's heartbeat bears, seconds
REMOTE_CLOCK_S = 10.0  # that to a store behind a line, whose times are whole seconds


def check_store(root: str) -> Iterator[Finding]:
    """Whether a run may write under a root, free space where that is local, and the clock against
    the store's: a lock's heartbeat is as good as the agreement of the two."""
    yield from _local(root) if is_local(root) else _remote(root)


def check_output(folder: str) -> Finding:
    """Free space where a run keeps its report and log."""
    return _room("Output disk", folder, "give --output elsewhere")


def check_temporary() -> Finding:
    """Free space where models and journals of a store behind a URI are worked on."""
    return _room("Temporary disk", tempfile.gettempdir(), "set TMPDIR to a folder elsewhere")


def _room(name: str, folder: str, mend: str) -> Finding:
    free = shutil.disk_usage(_nearest(folder)).free / 1e9
    if free >= DISK_GB:
        return Finding(name, State.OK, f"{free:.1f} GB free for {folder}")
    told = f"{free:.1f} GB free for {folder}, a run of the demo may take {DISK_GB:.0f}"
    return Finding(name, State.MISSING, told, f"free some, or {mend}")


def _nearest(folder: str) -> Path:
    """The folder, or the part of its path that is there."""
    path = Path(folder).absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _local(root: str) -> Iterator[Finding]:
    directory = _nearest(root)
    if not directory.is_dir():
        yield Finding("Store", State.MISSING, f"{directory} is no folder", "give --root elsewhere")
        return
    yield _room("Disk", root, "give --root elsewhere")
    try:
        with tempfile.NamedTemporaryFile(dir=directory) as file:
            skew = Path(file.name).stat().st_mtime - time.time()
    except OSError as error:
        yield Finding("Store", State.MISSING, f"{error}", "give --root where you may write")
        return
    yield _clock(skew, CLOCK_S, f"the file system of {root}")


def _remote(root: str) -> Iterator[Finding]:
    folder = f"{root.rstrip('/')}/doctor-{secrets.token_hex(8)}"
    path = f"{folder}/written"
    try:
        write_atomically(path, b"by jobs.doctor, which removes it again")
        written = time.time()
        states = listing(folder)
        whole = read_bytes(path)
        delete(path)
    except (OSError, StoreError) as error:
        yield Finding(
            "Store",
            State.MISSING,
            f"{root}: {str(error).splitlines()[0][:200]}",
            "credentials and endpoint in the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, "
            "...) that may list, read, write and delete, or --root elsewhere",
        )
        return
    if whole is None or os.path.basename(path) not in states:
        told = f"{root}: what is written there is not found again"
        yield Finding("Store", State.MISSING, told, "give --root elsewhere")
        return
    yield Finding("Store", State.OK, f"{root} can be listed, read, written and deleted from")
    modified_ns = states[os.path.basename(path)].modified_ns
    if not modified_ns:
        yield Finding("Clock", State.OK, f"{_now()}, not compared: {root} tells no times")
    else:
        yield _clock(modified_ns / 1e9 - written, REMOTE_CLOCK_S, root)
    yield check_temporary()


def _clock(skew: float, bearable: float, place: str) -> Finding:
    if abs(skew) <= bearable:
        return Finding("Clock", State.OK, f"{_now()}, agrees with {place}")
    return Finding(
        "Clock",
        State.MISSING,
        f"{_now()}, {skew:+.1f} s from {place}",
        "synchronise the clocks (chrony, systemd-timesyncd)",
    )


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
