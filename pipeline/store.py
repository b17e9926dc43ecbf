"""Content-addressed stage outputs: the truth of a run, in files that survive anything.

A stage keeps its rows in `<root>/<stage>/<fingerprint>/part-NNNNN.arrow`. The fingerprint hashes
all that shapes the rows: the stage's own options, its inputs' fingerprints, its schema version and
its logic version. Runs that share a prefix therefore share its work, and a changed option
recomputes exactly what depends on it.

A part is one unit of work. It is an Arrow IPC file (zstd), sorted by key, whose footer carries the
record's name and schema version, the row count, a checksum of the file, the digests of the input
parts that it was made from, and the problems that it had to leave out. It appears whole or not at
all, and counts as done only if its footer, its rows and its inputs agree: deleting or damaging a
file makes just that part run again, and what depends on it only if it came out different.
"""

import dataclasses
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

import pyarrow as pa

from pipeline.files import StoreError, exists, listing, open_file, read_bytes, write_atomically
from pipeline.records import content_hash
from pipeline.schemas import RecordSchema

R = TypeVar("R")

STORE_FORMAT = 2

# What reading a damaged Arrow file has been seen to raise: bit flips reach lengths and texts.
_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, MemoryError)


class DamagedPart(StoreError):
    """A part is missing, truncated, or its rows do not match its checksum: it must be redone."""


class OtherVersion(StoreError):
    """A part was written with another schema version, which this version cannot read."""


def fingerprint(**shapes_the_rows: object) -> str:
    """The content hash of everything that shapes a stage's rows (JSON-serialisable values)."""
    return content_hash(json.dumps(shapes_the_rows, sort_keys=True, default=str))


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

    def write(
        self, index: int, rows: Iterable[R], quarantined: tuple[Quarantined, ...] = ()
    ) -> PartSummary:
        """Write one part, durably and atomically; `quarantined` names what it had to give up.

        Raises StoreError, naming the file, when it cannot be written (a full disk, say); nothing
        half-written is then left behind.
        """
        table = self.schema.to_table(rows)
        footer = describe_part(table, self.schema, self.input_digests(index), quarantined)
        write_atomically(self.path(index), serialise(table, footer))
        return footer.summary(index)

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
            footer = check_part(path, self.schema)
            self.check_inputs(index, footer, self.input_digests(index))
        except DamagedPart as damage:
            return damage
        return footer.summary(index)

    def check_inputs(self, index: int, footer: "Footer", digests: dict[str, str]) -> None:
        """Raises DamagedPart if the inputs of a part are not those that it was made from."""
        for name, digest in digests.items():
            if footer.inputs.get(name) != digest:
                raise DamagedPart(
                    f"{self.path(index)}: its input, a part of {name}, has changed since"
                )

    def count_rows(self, index: int) -> int:
        """The row count in a part's footer; nothing else is read. Raises DamagedPart."""
        return self.footer(index).rows

    def quarantined(self, index: int) -> tuple[Quarantined, ...]:
        """The problems that a part had to give up. Raises DamagedPart."""
        return self.footer(index).quarantined

    def digest(self, index: int) -> str:
        """Identifies a part's rows but for their measured columns. Raises DamagedPart."""
        return self.footer(index).digest

    def input_digests(self, index: int) -> dict[str, str]:
        """What is in the input parts now; an input that is not there is left out."""
        return {
            stage.name: stage.digest(index) for stage in self.inputs if exists(stage.path(index))
        }

    def footer(self, index: int) -> "Footer":
        """What a part says of itself; no row is read. Raises DamagedPart."""
        path = self.path(index)
        try:
            with open_file(path) as file:
                return _footer_of(pa.ipc.open_file(file))
        except FileNotFoundError as error:
            raise DamagedPart(f"{path}: no such part") from error
        except _DAMAGE as error:
            raise DamagedPart(f"{path}: has no readable footer") from error

    def done(self) -> list[int]:
        """The indices of the parts that are there, by name alone."""
        return sorted(part_files(listing(self.directory)))

    def note(self) -> dict[str, Any] | None:
        """What `describe` left; None where nothing was. Raises OtherVersion."""
        path = f"{self.directory}/stage.json"
        data = read_bytes(path)
        if data is None:
            return None
        note = json.loads(data)
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


T = TypeVar("T")


def part_files(names: "dict[str, T]") -> "dict[int, T]":
    """Of the files of a stage's directory, those that are parts, by their index."""
    return {
        int(name[len("part-") : -len(".arrow")]): what
        for name, what in names.items()
        if name.startswith("part-") and name.endswith(".arrow")
    }


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


def write_rows(path: str, rows: Iterable[R], schema: RecordSchema[R]) -> None:
    """One file of rows outside any stage, which `read_table` reads. Raises StoreError."""
    write_table(path, schema.to_table(rows), schema)


def write_table(path: str, table: pa.Table, schema: RecordSchema[Any]) -> None:
    """`write_rows` for rows that are a table already, sorted by key. Raises StoreError."""
    write_atomically(path, serialise(table, describe_part(table, schema, {}, ())))


def digest(table: pa.Table, schema: RecordSchema[Any]) -> str:
    """Identifies the rows but for their measured columns, as one uncompressed Arrow stream: the
    same inputs and responses give the same digest on any machine. It tells changed rows from
    unchanged ones, at the speed of the disk; it is not made to withstand an adversary."""
    kept = table.drop_columns(sorted(schema.measured)).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, kept.schema) as writer:
        writer.write_table(kept)
    stream = sink.getvalue()
    return f"{zlib.crc32(stream):08x}{zlib.adler32(stream):08x}"


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
