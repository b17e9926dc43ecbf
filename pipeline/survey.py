"""What the parts of a stage hold, by the cheapest look that suffices: resuming reads no row twice.

A part is read whole, and held against its checksum, once. What its footer said, with the file's
size and time, is then kept in `survey.json` beside the parts; as long as the file is the same, that
stands for it. So a run over a million finished rows costs one listing and one small file per stage,
and a file that was touched is read again, as is every one where the store's client tells no times.
(Damage that leaves size and time as they were, as a failing disk might do, is met when the part is
read: every read checks the rows.)
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipeline.files import FileState, StoreError, is_local, listing, read_bytes, write_atomically
from pipeline.part_file import DamagedPart, Footer, PartSummary, check_part
from pipeline.store import StageStore, part_files

_FORMAT = 1
_AT_ONCE = 16  # requests to an object store, each of which is tens of milliseconds


@dataclass(frozen=True, slots=True)
class _Known:
    state: FileState
    footer: Footer


class Survey:
    """The parts of one stage. Cheap to make; looks at the files only when asked."""

    def __init__(self, stage: StageStore[Any]) -> None:
        self.stage = stage
        self._path = f"{stage.directory}/survey.json"
        self._known = _load(self._path)
        self._damaged: dict[int, FileState] = {}
        self._changed = False

    def missing(
        self, indices: Sequence[int], *, retry_quarantined: bool = False
    ) -> tuple[list[int], list[str]]:
        """The parts that are still to be made, and what was wrong with those found damaged. With
        `retry_quarantined`, also those that had to give up a problem.

        Reads whole what was never read, or has changed. Raises OtherVersion.
        """
        files = part_files(listing(self.stage.directory))
        found = self._look({i: files[i] for i in indices if i in files}, self._check)
        inputs = [Survey(stage) for stage in self.stage.inputs]
        digests = [each.digests(indices) for each in inputs]
        todo: list[int] = []
        damaged: list[str] = []
        for index in indices:
            state = files.get(index)
            if state is None:
                todo.append(index)
                continue
            try:
                footer = found[index]
                if isinstance(footer, DamagedPart):
                    raise footer
                now = {
                    each.stage.name: of_parts[index]
                    for each, of_parts in zip(inputs, digests, strict=True)
                    if index in of_parts
                }
                self.stage.check_inputs(index, footer, now)
            except DamagedPart as damage:
                self._damaged[index] = state
                todo.append(index)
                damaged.append(str(damage))
                continue
            if retry_quarantined and footer.quarantined:
                todo.append(index)
        return todo, damaged

    def summaries(self, indices: Iterable[int]) -> dict[int, PartSummary]:
        """Of the parts that are there, what their footers say. No row is read: whether those are
        whole is for `missing` to say, and a part that it found damaged counts once it is redone."""
        return {index: footer.summary(index) for index, footer in self._footers(indices).items()}

    def modified(self) -> dict[int, float]:
        """When each part that is there was written, seconds since the epoch."""
        files = part_files(listing(self.stage.directory))
        return {index: state.modified_ns / 1e9 for index, state in files.items()}

    def digests(self, indices: Iterable[int]) -> dict[int, str]:
        """What identifies the rows of the parts that are there."""
        return {index: footer.digest for index, footer in self._footers(indices).items()}

    def save(self) -> None:
        """Keep what was found for the next run: that of `missing`, and of parts made since."""
        if not self._changed:
            return
        entries = {
            index: [known.state.size, known.state.modified_ns, known.footer.to_json()]
            for index, known in sorted(self._known.items())
        }
        with suppress(StoreError):  # the next run reads the parts instead
            data = json.dumps({"format": _FORMAT, "parts": entries}).encode()
            write_atomically(self._path, data, durable=False)
            self._changed = False

    def _footers(self, indices: Iterable[int]) -> dict[int, Footer]:
        files = part_files(listing(self.stage.directory))
        there = {
            index: files[index]
            for index in files.keys() & set(indices)
            if not files[index].is_still(self._damaged.get(index))
        }
        found = self._look(there, self.stage.footer)  # a damaged one is redone, then it counts
        return {i: footer for i, footer in found.items() if isinstance(footer, Footer)}

    def _check(self, index: int) -> Footer:
        return check_part(self.stage.path(index), self.stage.schema)

    def _look(
        self, states: dict[int, FileState], read: Callable[[int], Footer]
    ) -> dict[int, Footer | DamagedPart]:
        """The footers of parts: those that are known, and the others by `read`."""
        found: dict[int, Footer | DamagedPart] = {
            index: known.footer
            for index, state in states.items()
            if (known := self._known.get(index)) is not None and state.is_still(known.state)
        }
        unknown = [index for index in states if index not in found]
        for index, footer in zip(unknown, self._read_all(unknown, read), strict=True):
            found[index] = footer
            self._known.pop(index, None)
            if isinstance(footer, Footer):
                self._known[index] = _Known(states[index], footer)
                self._changed = True
        return found

    def _read_all(
        self, indices: list[int], read: Callable[[int], Footer]
    ) -> Iterator[Footer | DamagedPart]:
        def one(index: int) -> Footer | DamagedPart:
            try:
                return read(index)
            except DamagedPart as damage:
                return damage

        if is_local(self.stage.root) or len(indices) < 2:
            yield from map(one, indices)
            return
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            yield from pool.map(one, indices)


def missing_parts(
    stage: StageStore[Any], indices: Sequence[int], *, retry_quarantined: bool = False
) -> tuple[list[int], list[str]]:
    """`Survey.missing`, its findings kept for the next run."""
    survey = Survey(stage)
    found = survey.missing(indices, retry_quarantined=retry_quarantined)
    survey.save()
    return found


def _load(path: str) -> dict[int, _Known]:
    data = read_bytes(path)
    if data is None:
        return {}
    try:
        note = json.loads(data)
        if note["format"] != _FORMAT:
            return {}
        return {
            int(index): _Known(FileState(size, modified_ns), Footer.from_json(footer))
            for index, (size, modified_ns, footer) in note["parts"].items()
        }
    except (ValueError, TypeError, KeyError):
        return {}  # not a survey of this version: the parts are read instead
