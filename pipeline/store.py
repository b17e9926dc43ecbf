"""Content-addressed stage outputs: the truth of a run, in files that survive anything.

A stage keeps its rows in `<root>/<stage>/<fingerprint>/part-NNNNN.arrow`. The fingerprint hashes
all that shapes the rows: the stage's own options, its inputs' fingerprints, its schema version and
its logic version. Runs that share a prefix therefore share its work, and a changed option
recomputes exactly what depends on it.

A part is one unit of work. It is an Arrow IPC file (zstd), sorted by key, whose footer carries the
record's name and schema version, the row count, a checksum of the rows and the digests of the input
parts that it was made from. It appears whole or not at all, and counts as done only if its footer,
its rows and its inputs agree: deleting or damaging a file makes just that part run again, and what
depends on it only if it came out different.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import fsspec
import pyarrow as pa

from pipeline.files import StoreError, exists, write_atomically
from pipeline.records import content_hash
from pipeline.schemas import RecordSchema

R = TypeVar("R")

STORE_FORMAT = 1

# What reading a damaged Arrow file has been seen to raise: bit flips reach lengths and texts.
_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, MemoryError)


class DamagedPart(StoreError):
    """A part is missing, truncated, or its rows do not match its checksum: it must be redone."""


class OtherVersion(StoreError):
    """A part was written with another schema version, which this version cannot read."""


def fingerprint(**shapes_the_rows: object) -> str:
    """The content hash of everything that shapes a stage's rows (JSON-serialisable values)."""
    return content_hash(json.dumps(shapes_the_rows, sort_keys=True, default=str))


@dataclass(frozen=True, slots=True)
class PartSummary:
    """What a finished part's footer says of it."""

    index: int
    rows: int


@dataclass(frozen=True)
class StageStore(Generic[R]):
    """The parts of one stage. Cheap to make and to pickle: it holds no open files."""

    root: str  # a local path or an fsspec URI
    name: str
    fingerprint: str
    schema: RecordSchema[R]
    inputs: "tuple[StageStore[Any], ...]" = ()
    """The stages whose part of the same index a part is made from."""

    @property
    def directory(self) -> str:
        return f"{self.root.rstrip('/')}/{self.name}/{self.fingerprint}"

    def path(self, index: int) -> str:
        return f"{self.directory}/part-{index:05d}.arrow"

    def paths(self, indices: Iterable[int]) -> list[str]:
        return [self.path(index) for index in indices]

    def write(self, index: int, rows: Iterable[R]) -> PartSummary:
        """Write one part, durably and atomically.

        Raises StoreError, naming the file, when it cannot be written (a full disk, say); nothing
        half-written is then left behind.
        """
        table = self.schema.to_table(rows)
        data = _serialise(table, self.schema, self._input_digests(index))
        write_atomically(self.path(index), data)
        return PartSummary(index, table.num_rows)

    def read(self, index: int) -> list[R]:
        """The rows of a part, sorted by key. Raises DamagedPart or OtherVersion."""
        return self.schema.from_table(read_table(self.path(index), self.schema))

    def read_all(self, indices: Iterable[int]) -> list[R]:
        return [row for index in indices for row in self.read(index)]

    def inspect(self, index: int) -> PartSummary | DamagedPart | None:
        """A finished part's summary, what is wrong with it, or None where there is none yet."""
        path = self.path(index)
        if not exists(path):
            return None
        try:
            rows = read_table(path, self.schema).num_rows
            made_from = self._footer(index).inputs
            for name, digest in self._input_digests(index).items():
                if made_from.get(name) != digest:
                    return DamagedPart(f"{path}: its input, a part of {name}, has changed since")
        except DamagedPart as damage:
            return damage
        return PartSummary(index, rows)

    def count_rows(self, index: int) -> int:
        """The row count in a part's footer; nothing else is read. Raises DamagedPart."""
        return self._footer(index).rows

    def digest(self, index: int) -> str:
        """Identifies a part's rows but for their measured columns. Raises DamagedPart."""
        return self._footer(index).digest

    def _input_digests(self, index: int) -> dict[str, str]:
        """What is in the input parts now; an input that is not there is left out."""
        return {
            stage.name: stage.digest(index) for stage in self.inputs if exists(stage.path(index))
        }

    def _footer(self, index: int) -> "_Footer":
        path = self.path(index)
        if not exists(path):
            raise DamagedPart(f"{path}: no such part")
        try:
            with fsspec.open(path, "rb") as file:
                return _footer_of(pa.ipc.open_file(file))
        except _DAMAGE as error:
            raise DamagedPart(f"{path}: has no readable footer") from error

    def done(self) -> list[int]:
        """The indices of the parts that are there, by name alone."""
        filesystem, directory = fsspec.core.url_to_fs(self.directory)
        if not filesystem.isdir(directory):
            return []
        names = (os.path.basename(path) for path in filesystem.ls(directory, detail=False))
        return sorted(
            int(name[len("part-") : -len(".arrow")])
            for name in names
            if name.startswith("part-") and name.endswith(".arrow")
        )

    def note(self) -> dict[str, Any] | None:
        """What `describe` left; None where nothing was. Raises OtherVersion."""
        path = f"{self.directory}/stage.json"
        if not exists(path):
            return None
        with fsspec.open(path, "rb") as file:
            note = json.load(file)  # pyright: ignore[reportArgumentType]
        if note["format"] != STORE_FORMAT:
            raise OtherVersion(
                f"{path}: the store has format {note['format']}, but this version reads format "
                f"{STORE_FORMAT}: use another store (--root)"
            )
        return note

    def describe(self, total_parts: int, shaped_by: dict[str, Any]) -> None:
        """Leave a note beside the parts: what this directory holds, for `note` and for people."""
        note = {
            "format": STORE_FORMAT,
            "stage": self.name,
            "record": self.schema.name,
            "schema_version": self.schema.version,
            "total_parts": total_parts,
            "shaped_by": shaped_by,
        }
        write_atomically(
            f"{self.directory}/stage.json", json.dumps(note, indent=2, default=str).encode()
        )


def missing_parts(stage: StageStore[Any], indices: Sequence[int]) -> tuple[list[int], list[str]]:
    """The parts that are still to be made, and what was wrong with those found damaged."""
    todo: list[int] = []
    damaged: list[str] = []
    for index in indices:
        state = stage.inspect(index)
        if isinstance(state, PartSummary):
            continue
        todo.append(index)
        if state is not None:
            damaged.append(str(state))
    return todo, damaged


def read_table(path: str, schema: RecordSchema[Any]) -> pa.Table:
    """One part as a table, checked against its footer.

    Raises DamagedPart if it is missing, truncated or does not match its checksum, OtherVersion if
    it holds another record or schema version.
    """
    try:
        with fsspec.open(path, "rb") as file:
            data = file.read()  # pyright: ignore[reportAttributeAccessIssue]
        reader = pa.ipc.open_file(pa.BufferReader(data))
        footer = _footer_of(reader)
        table = reader.read_all()
    except FileNotFoundError as error:
        raise DamagedPart(f"{path}: no such part") from error
    except _DAMAGE as error:
        raise DamagedPart(f"{path}: not a whole Arrow file ({error})") from error
    if (footer.record, footer.schema_version) != (schema.name, schema.version):
        raise OtherVersion(
            f"{path}: holds {footer.record} rows of schema version {footer.schema_version}, but "
            f"this version reads {schema.name} version {schema.version}: use another store "
            "(--root) or delete the file"
        )
    try:
        intact = footer.rows == table.num_rows and footer.checksum == checksum(table)
    except _DAMAGE:
        intact = False
    if not intact:
        raise DamagedPart(f"{path}: its rows do not match the checksum in its footer")
    return table


def write_rows(path: str, rows: Iterable[R], schema: RecordSchema[R]) -> None:
    """One file of rows outside any stage, which `read_table` reads. Raises StoreError."""
    write_atomically(path, _serialise(schema.to_table(rows), schema, {}))


def checksum(table: pa.Table) -> str:
    """A hash of the whole table as one uncompressed Arrow stream: guards against damage."""
    sink = _HashSink()
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.hexdigest()


def digest(table: pa.Table, schema: RecordSchema[Any]) -> str:
    """Identifies the rows but for their measured columns: the same inputs and responses give the
    same digest on any machine."""
    return checksum(table.drop_columns(sorted(schema.measured)))


class _HashSink:
    """A file that keeps only the hash of what is written to it."""

    closed = False

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=8)
        self.hexdigest = self._hash.hexdigest

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return len(data)

    def flush(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Footer:
    """The metadata of a part. `inputs` maps an input stage to the digest of its part."""

    record: str
    schema_version: int
    rows: int
    checksum: str
    digest: str
    inputs: dict[str, str]


def _footer_of(reader: pa.ipc.RecordBatchFileReader) -> _Footer:
    metadata = json.loads((reader.metadata or {})[b"part"])
    return _Footer(**metadata)


def _serialise(
    table: pa.Table, schema: RecordSchema[Any], input_digests: dict[str, str]
) -> pa.Buffer:
    footer = _Footer(
        record=schema.name,
        schema_version=schema.version,
        rows=table.num_rows,
        checksum=checksum(table),
        digest=digest(table, schema),
        inputs=input_digests,
    )
    metadata = {"part": json.dumps(dataclasses.asdict(footer), sort_keys=True)}
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(sink, table.schema, options=options, metadata=metadata) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue()
