"""One part of a stage: an Arrow IPC file that says what it holds and whether it is whole.

The rows are compressed (zstd) and sorted by key. The footer carries the record's name and schema
version, the row count, a checksum of the file, a digest of the rows, the digests of the input parts
that they were made from, the problems that had to be left out, and sums that `jobs.status` shows.
The checksum guards every byte of the file against damage; the digest tells changed rows from
unchanged ones, whatever file they are in.
"""

import dataclasses
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

import pyarrow as pa
from blake3 import blake3

from pipeline.files import StoreError, open_file, read_bytes, write_atomically
from pipeline.records import content_hash
from pipeline.schemas import RecordSchema

R = TypeVar("R")

# What reading a damaged Arrow file has been seen to raise: bit flips reach lengths and texts.
_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, MemoryError)


class DamagedPart(StoreError):
    """A part is missing, truncated, or its rows do not match its checksum: it must be redone."""


class OtherVersion(StoreError):
    """A part was written with another schema version, which this version cannot read."""


class QuarantineReason(StrEnum):
    """Why a problem was given up in a stage."""

    CRASH = "crash"  # its worker process died every time
    ERROR = "error"  # its rows raise an exception every time
    INFRA = "infra"  # the sandbox failed on some of its programs; its rows are there, marked


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A problem that a part could not be made for, in the words of what went wrong."""

    problem_id: str
    reason: QuarantineReason
    told: str


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums and counts over a part's rows, as its schema asks for them."""

    sums: dict[str, float] = field(default_factory=dict[str, float])
    counts: dict[str, int] = field(default_factory=dict[str, int])

    def plus(self, other: "Tally") -> "Tally":
        return Tally(
            {name: self.sums.get(name, 0) + value for name, value in other.sums.items()}
            | {name: value for name, value in self.sums.items() if name not in other.sums},
            dict(Counter(self.counts) + Counter(other.counts)),
        )


@dataclass(frozen=True, slots=True)
class PartSummary:
    """What a finished part's footer says of it."""

    index: int
    rows: int
    quarantined: tuple[Quarantined, ...] = ()
    tally: "Tally" = field(default_factory=lambda: Tally())


def read_table(path: str, schema: RecordSchema[Any]) -> pa.Table:
    """One part as a table, checked against its footer.

    Raises DamagedPart if it is missing, truncated or does not match its checksum, OtherVersion if
    it holds another record or schema version.
    """
    return pa.ipc.open_file(pa.BufferReader(_read(path, schema)[1])).read_all()


def check_part(path: str, schema: RecordSchema[Any]) -> "Footer":
    """Read a part whole, but decode no row; its footer, if that is true. Raises as `read_table`."""
    return _read(path, schema)[0]


def _read(path: str, schema: RecordSchema[Any]) -> "tuple[Footer, pa.Buffer]":
    """The footer and the bytes of a part that is whole."""
    try:
        data = read_bytes(path)
        if data is None:
            raise DamagedPart(f"{path}: no such part")
        footer = _footer_of(pa.ipc.open_file(pa.BufferReader(data)))
        intact = footer.checksum == _seal_of(data)
    except _DAMAGE as error:
        raise DamagedPart(f"{path}: not a whole Arrow file ({error})") from error
    if not intact:
        raise DamagedPart(f"{path}: its rows do not match the checksum in its footer")
    if (footer.record, footer.schema_version) != (schema.name, schema.version):
        raise OtherVersion(
            f"{path}: holds {footer.record} rows of schema version {footer.schema_version}, but "
            f"this version reads {schema.name} version {schema.version}: use another store "
            "(--root) or delete the file"
        )
    return footer, pa.py_buffer(data)


def read_footer(path: str) -> "Footer":
    """What a part says of itself; no row is read. Raises DamagedPart."""
    try:
        with open_file(path) as file:
            return _footer_of(pa.ipc.open_file(file))
    except FileNotFoundError as error:
        raise DamagedPart(f"{path}: no such part") from error
    except _DAMAGE as error:
        raise DamagedPart(f"{path}: has no readable footer") from error


def write_part(
    path: str,
    table: pa.Table,
    schema: RecordSchema[Any],
    inputs: dict[str, str],
    quarantined: tuple[Quarantined, ...] = (),
    *,
    durable: bool = True,
) -> "Footer":
    """Write rows that are a table already, sorted by key; `inputs` are the digests of the parts
    that they were made from. Raises StoreError, and leaves nothing half-written behind then."""
    footer = describe_part(table, schema, inputs, quarantined)
    write_atomically(path, serialise(table, footer), durable=durable)
    return footer


def write_rows(path: str, rows: Iterable[R], schema: RecordSchema[R]) -> None:
    """One file of rows outside any stage, which `read_table` reads. Raises StoreError."""
    write_part(path, schema.to_table(rows), schema, {})


def digest(table: pa.Table, schema: RecordSchema[Any]) -> str:
    """Identifies the rows but for their measured columns: the BLAKE3 hash (32 hex digits) of one
    uncompressed Arrow stream, so that the same inputs and responses give the same digest on any
    machine. The stream is hashed as it is written: it never lies in memory whole."""
    kept = table.drop_columns(sorted(schema.measured)).combine_chunks()
    hashed = _Hashed()
    with pa.ipc.new_stream(pa.PythonFile(hashed, "w"), kept.schema) as writer:
        writer.write_table(kept)
    return hashed.hash.hexdigest(length=16)


class _Hashed(io.RawIOBase):
    """A file that remembers nothing but the hash of what was written to it."""

    def __init__(self) -> None:
        self.hash = blake3()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self.hash.update(data)
        return len(data)


_UNSEALED = "0" * 8
_SEAL = re.compile(rb'"checksum": "([0-9a-f]{8})"')


def _seal_of(data: bytes | bytearray) -> str:
    """The CRC-32 of a part's bytes, its own place in the footer read as zeros. It guards against
    damage, every byte of the file, at a fraction of the cost of decoding the rows.

    Raises ValueError where there is no such place.
    """
    start = _seal_at(data)
    view = memoryview(data)
    crc = zlib.crc32(_UNSEALED.encode(), zlib.crc32(view[:start]))
    return f"{zlib.crc32(view[start + len(_UNSEALED) :], crc):08x}"


def _seal_at(data: bytes | bytearray) -> int:
    """Where the seal is: in the footer, so in what comes last."""
    at = data.rfind(b'"checksum": "')
    match = _SEAL.match(data, at) if at >= 0 else None
    if match is None:
        raise ValueError("its footer has no checksum")
    return match.start(1)


@dataclass(frozen=True, slots=True)
class Footer:
    """The metadata of a part. `inputs` maps an input stage to the digest of its part."""

    record: str
    schema_version: int
    rows: int
    checksum: str
    digest: str
    inputs: dict[str, str]
    quarantined: tuple[Quarantined, ...] = ()
    tally: Tally = field(default_factory=Tally)

    def summary(self, index: int) -> PartSummary:
        return PartSummary(index, self.rows, self.quarantined, self.tally)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> "Footer":
        """Raises TypeError, KeyError or ValueError where it is none."""
        named = tuple(
            Quarantined(each["problem_id"], QuarantineReason(each["reason"]), each["told"])
            for each in plain.get("quarantined", ())
        )
        tally = Tally(**plain.get("tally", {}))
        fields: dict[str, Any] = plain | {"quarantined": named, "tally": tally}
        return cls(**fields)


def _footer_of(reader: pa.ipc.RecordBatchFileReader) -> Footer:
    try:
        return Footer.from_json(json.loads((reader.metadata or {})[b"part"]))
    except TypeError as error:
        raise ValueError("its footer is not one of ours") from error


def describe_part(
    table: pa.Table,
    schema: RecordSchema[Any],
    input_digests: dict[str, str],
    quarantined: tuple[Quarantined, ...],
) -> Footer:
    """The footer of a part with these rows, its checksum still to come."""
    identity = digest(table, schema)
    left_out = sorted(q.problem_id for q in quarantined if q.reason is not QuarantineReason.INFRA)
    return Footer(
        record=schema.name,
        schema_version=schema.version,
        rows=table.num_rows,
        checksum=_UNSEALED,
        # A later stage leaves these problems out too, even where they would have had no rows.
        digest=content_hash(identity, *left_out) if left_out else identity,
        inputs=input_digests,
        quarantined=quarantined,
        tally=_tally(table, schema),
    )


def _tally(table: pa.Table, schema: RecordSchema[Any]) -> Tally:
    sums: dict[str, float] = {name: sum(table.column(name).to_pylist()) for name in schema.summed}
    if schema.counted is None:
        return Tally(sums)
    counts = Counter(table.column(schema.counted).to_pylist())
    return Tally(sums, {key or "none": counts[key] for key in sorted(counts, key=str)})


def serialise(table: pa.Table, footer: Footer) -> bytearray:
    """A part's bytes, sealed with their checksum."""
    metadata = {"part": json.dumps(footer.to_json(), sort_keys=True)}
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(sink, table.schema, options=options, metadata=metadata) as writer:
        writer.write_table(table.combine_chunks())
    data = bytearray(sink.getvalue())
    start = _seal_at(data)
    data[start : start + len(_UNSEALED)] = _seal_of(data).encode()
    return data
