"""What tells one base model from another, wherever its folder is."""

import hashlib
import os
from pathlib import Path

from pipeline.files import is_local, read_bytes, tree

_ENDS = 1 << 20
"""Bytes of a file that are looked at, at either end: a fine-tuned copy differs in all weights, and
reading gigabytes would hold up every start."""


def base_identity(base: str) -> str:
    """Of a folder (local, or behind a URI), its config and the names and sizes of its files, with
    the ends of those on a local disk; of a public model its name."""
    digest = hashlib.blake2b(digest_size=16)
    if is_local(base) and not os.path.isdir(base):
        return base
    for name, state in sorted(tree(base).items()):
        digest.update(f"{name} {state.size}\n".encode())
        if name == "config.json":
            digest.update(read_bytes(f"{base}/{name}") or b"")
        elif is_local(base):
            digest.update(_ends(Path(base, name)))
    return digest.hexdigest()


def _ends(path: Path) -> bytes:
    with path.open("rb") as file:
        first = file.read(_ENDS)
        file.seek(max(len(first), path.stat().st_size - _ENDS))
        return first + file.read(_ENDS)
