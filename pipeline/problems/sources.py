"""Where rows of problems are read from: files, folders of files, datasets of the Hugging Face hub.

A dataset's repository is downloaded as it is and its JSON-lines files are read like any others: no
loading script of a repository is ever run.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from pipeline.row_files import filesystem, told_of

_HUB = re.compile(r"hf://datasets/([^/@\s]+/[^/@\s]+)(?:@([^/\s]+))?(?:/(\S+))?")
_FORM = "hf://datasets/OWNER/NAME[@REVISION][/FILE]"
_COMPRESSED = ("", ".gz", ".bz2", ".xz", ".zst")
_SUFFIXES = tuple(f".jsonl{suffix}" for suffix in _COMPRESSED)


def problem_files(paths: Sequence[str]) -> list[str]:
    """The files that `paths` name: a file is itself, a folder or a dataset is all JSON-lines files
    in it (`test2` before `test10`).

    Raises OSError for a dataset that is neither on the hub nor in its cache, and for a folder
    without such files; that a single file is there is found out when it is read.
    """
    return [file for path in paths for file in _files(path)]


def _files(path: str) -> list[str]:
    if path.startswith("hf:"):
        folder, file = _download(path)
        return [str(folder / file)] if file else _in_folder(path, str(folder))
    there, name = filesystem(path)
    with told_of(path):
        is_folder = there.isdir(name)
    return _in_folder(path, path) if is_folder else [path]


def _in_folder(named: str, folder: str) -> list[str]:
    there, name = filesystem(folder)
    with told_of(named):
        found = [file for file in there.find(name) if file.endswith(_SUFFIXES)]
    if not found:
        raise OSError(f"{named}: holds no file that ends in .jsonl (.gz, .bz2, .xz, .zst)")
    is_local = isinstance(there, LocalFileSystem)
    return [
        file if is_local else there.unstrip_protocol(file) for file in sorted(found, key=_by_number)
    ]


def _by_number(file: str) -> list[tuple[bool, int, str]]:
    """`test.jsonl`, `test2.jsonl`, `test10.jsonl`, in this order."""
    parts = re.split(r"(\d+)", re.sub(r"\.jsonl\b.*", "", file))
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def _download(path: str) -> tuple[Path, str | None]:
    """The folder of a dataset's files in the hub's local cache, and the file that `path` names."""
    match = _HUB.fullmatch(path)
    if match is None:
        raise OSError(f"{path}: a dataset of the Hugging Face hub is named {_FORM}")
    from huggingface_hub import snapshot_download  # slow to import, and seldom wanted

    dataset, revision, file = match.groups()
    wanted = [file] if file else [f"*{suffix}" for suffix in _SUFFIXES]
    try:
        folder = Path(
            snapshot_download(
                dataset, repo_type="dataset", revision=revision, allow_patterns=wanted
            )
        )
    except (OSError, ValueError) as error:
        raise OSError(
            f"{path}: not in the hub's cache and cannot be downloaded: {_first_line(error)}"
        ) from error
    return folder, file


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
