"""Content-addressed stage outputs: the truth of a run, in files that survive anything.

A stage keeps its rows in `<root>/<stage>/<fingerprint>/part-NNNNN.arrow`. The fingerprint hashes
all that shapes the rows: the stage's own options, its inputs' fingerprints, its schema version and
its logic version. Runs that share a prefix therefore share its work, and a changed option
recomputes exactly what depends on it.

A part is one unit of work; `pipeline.part_file` says what is in its file. It appears whole or not
at all, and counts as done only if its footer, its rows and its inputs agree: deleting or damaging a
file makes just that part run again, and what depends on it only if it came out different.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pipeline.files import exists, listing, read_bytes, write_atomically
from pipeline.part_file import (
    DamagedPart,
    Footer,
    OtherVersion,
    PartSummary,
    Quarantined,
    check_part,
    read_footer,
    read_table,
    write_part,
)
from pipeline.records import content_hash
from pipeline.schemas import RecordSchema

R = TypeVar("R")

STORE_FORMAT = 2


def fingerprint(**shapes_the_rows: object) -> str:
    """The content hash of everything that shapes a stage's rows (JSON-serialisable values)."""
    return content_hash(json.dumps(shapes_the_rows, sort_keys=True, default=str))


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
        inputs = self.input_digests(index)
        return write_part(self.path(index), table, self.schema, inputs, quarantined).summary(index)

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

    def check_inputs(self, index: int, footer: Footer, digests: dict[str, str]) -> None:
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

    def footer(self, index: int) -> Footer:
        """What a part says of itself; no row is read. Raises DamagedPart."""
        return read_footer(self.path(index))

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
