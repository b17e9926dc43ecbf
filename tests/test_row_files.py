"""Rows are read from any file that can be; every other file is an OSError that names its path."""

import bz2
import gzip
import lzma
import socket
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.eval_all import EvalAllError, read_eval_all
from pipeline.problems.sources import problem_files
from pipeline.row_files import chunks, lines, read_bytes

TEXT = b'{"question_id": "a", "output_list": []}\n\n{"question_id": "b", "output_list": []}\n'
NOISE = bytes(range(256)) * 40


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd,
}  # fmt: skip


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_every_compression_is_read_by_rows_and_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(COMPRESSED[suffix](TEXT))
    first, _, second = TEXT.splitlines(keepends=True)
    assert list(lines([str(path)])) == [(str(path), 1, first), (str(path), 3, second)]
    assert [row.question_id for row in read_eval_all(f"file://{path}")] == ["a", "b"]
    assert b"".join(chunks(str(path))) == path.read_bytes()


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes("\ufeff{}\n".encode())
    assert list(lines([str(path)])) == [(str(path), 1, b"{}\n")]
    assert read_bytes(str(path)) == b"{}\n"


@pytest.mark.parametrize("read", [lambda path: list(lines([path])), read_bytes])
@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (suffix, damage)
        for suffix in COMPRESSED
        for damage in ("cut off", "in the middle", "another form")
        # zstd keeps no checksum unless its writer asks for one.
        if (suffix, damage) != (".zst", "in the middle")
    ],
)
def test_damaged_files_are_named(
    tmp_path: Path, suffix: str, damage: str, read: Callable[[str], object]
) -> None:
    whole = COMPRESSED[suffix](NOISE)
    half = len(whole) // 2
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(
        {
            "cut off": whole[:half],
            "in the middle": whole[:half] + b"\xff" * 20 + whole[half + 20 :],
            "another form": TEXT,
        }[damage]
    )
    with pytest.raises(OSError, match=rf"rows\.jsonl{suffix}: (the compressed|cannot be read)"):
        read(str(path))


@pytest.mark.parametrize("path", ["s3://bucket/rows.jsonl", "foo://rows.jsonl"])
def test_a_uri_without_a_client_is_named(path: str) -> None:
    """s3fs is none of our dependencies."""
    for read in (
        lambda: list(lines([path])),
        lambda: list(chunks(path)),
        lambda: problem_files([path]),
    ):
        with pytest.raises(OSError, match=f"{path}: cannot be opened: "):
            read()


def test_a_server_that_does_not_answer_is_told_with_the_path() -> None:
    with socket.socket() as taken:  # bound, and never listening: every connection is refused
        taken.bind(("127.0.0.1", 0))
        path = f"http://127.0.0.1:{taken.getsockname()[1]}/rows.jsonl"
        for read in (lambda: list(lines([path])), lambda: problem_files([path])):
            with pytest.raises(OSError, match=f"^{path}: cannot be read: (Cannot c|C)onnect"):
                read()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"\n{}\n", "row 2, question_id"),
        (TEXT + b"[}\n", "row 4, row: no JSON"),
        (b'{"a"', "row 1: neither JSON lines nor a JSON list"),
        (b'{"question_id": "", "output_list": []}', "row 1, question_id"),
        (TEXT + TEXT, "2 rows .*\n.* row 4, question_id: 'a' came before\n.* row 6, question_id"),
        (
            b'[3, {"question_id": "a", "output_list": ["x"], "metadata": [1], "graded_list": []}]',
            r"2 rows .*\n.* row 1, row: .*\n.* row 2, metadata\[0\]: .*\nmend them",
        ),
        (b"[]", "c.jsonl: holds no recorded candidates"),
        (b"1" * 5000, "row 1: neither JSON lines nor a JSON list"),
        (gzip.compress(TEXT, mtime=0), "neither UTF-8 text nor compressed as its name says"),
    ],
)
def test_what_is_wrong_with_candidates_is_told_with_its_place(
    tmp_path: Path, text: bytes, told: str
) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(text)
    with pytest.raises(EvalAllError, match=told):
        read_eval_all(path)
