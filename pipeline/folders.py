"""Folders of models, which libraries read and write on a local disk, kept wherever the store is.

A folder behind a URI is downloaded before use, once per machine and content, and uploaded when it
is complete; a local one is used as it is.
"""

import hashlib
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from pipeline.files import copy, delete, is_local, tree


def local_folder(path: str) -> str:
    """A local folder with the files below `path`; anything that is no URI, the name of
    a public model too, is given back as it is.

    Downloads are kept in the machine's temporary folder, by name, size and time of every file: one
    that was replaced is fetched again, two processes share one copy. The card (README.md), of which
    nothing is loaded, may change alone. Raises OSError where there is nothing.
    """
    if is_local(path):
        return path
    files = tree(path)
    if not files:
        raise FileNotFoundError(f"{path}: there is no such folder in the store")
    content = sorted((name, state) for name, state in files.items() if name != "README.md")
    known = hashlib.blake2b(repr((path, content)).encode(), digest_size=16)
    cache = Path(tempfile.gettempdir()) / f"prm-models-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    if cache.stat().st_uid != os.getuid():
        raise PermissionError(f"{cache}: belongs to somebody else, who could change what is loaded")
    target = cache / known.hexdigest()
    if target.exists():
        return str(target)
    partial = Path(tempfile.mkdtemp(dir=cache, suffix=".partial"))
    try:
        for name in files:
            copy(f"{path}/{name}", str(partial / name))
        with suppress(OSError):  # another process was faster
            partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return str(target)


def publish_folder(local: Path, path: str, *, last: str = "config.json") -> None:
    """Make `path`, a URI or a local folder, hold the files below `local`, and no others.

    The file `last` appears after all others: where it is, all are. Raises StoreError.
    """
    names = [str(each.relative_to(local)) for each in local.rglob("*") if each.is_file()]
    delete(f"{path}/{last}")
    for name in tree(path).keys() - set(names):
        delete(f"{path}/{name}")
    for name in sorted(names, key=lambda name: (name == last, name)):
        copy(str(local / name), f"{path}/{name}")
