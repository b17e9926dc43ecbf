"""Batches that were or will be submitted, on disk before the server hears of them.

A submission is two files in the journal's `batches/` folder, named by a token of our own: the lines
that are uploaded (`<token>.jsonl`, gone once its answers are in the journal) and what is known of
the batch (`<token>.json`). The token is in the metadata of the batch at the server: one whose
id was not recorded, because we were killed just then, is found there instead of submitted again.
"""

import dataclasses
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.files import StoreError, write_atomically
from pipeline.policies.paid_answers import Call, Slot

MAX_REQUESTS = 50_000
MAX_BYTES = 200_000_000
"""OpenAI's limits for one batch, and for its file."""


@dataclass(frozen=True, slots=True)
class Submission:
    """One batch: what was asked of which server, and how far it is."""

    token: str
    server: str | None  # base URL
    api: str
    requests: int
    worst_usd: float
    created: float  # seconds since the epoch
    input_file_id: str | None = None
    batch_id: str | None = None
    collected: bool = False
    refused: dict[str, str] = field(default_factory=dict[str, str])
    """Why the server never answers a request, by its `custom_id`."""


class Submissions:
    """The submissions of a folder that go to one server."""

    def __init__(self, directory: Path, server: str | None, api: str) -> None:
        self._directory = directory
        self._server = server
        self._api = api
        self._slots: dict[str, frozenset[Slot]] = {}

    def open(self) -> list[Submission]:
        """Those whose answers are not in the journal yet, oldest first. Raises StoreError."""
        return sorted(
            (each for each in self._all() if not each.collected), key=lambda each: each.created
        )

    def refused(self) -> dict[Slot, str]:
        """The requests that the server never answers, and why. Raises StoreError."""
        return {
            slot_in(name): reason for each in self._all() for name, reason in each.refused.items()
        }

    def forget_refused(self, slots: Iterable[Slot]) -> None:
        """Give them another chance. Raises StoreError."""
        names = {_name(slot) for slot in slots}
        for each in self._all():
            if not names.isdisjoint(each.refused):
                kept = {name: told for name, told in each.refused.items() if name not in names}
                self.update(each, refused=kept)

    def close(self, submission: Submission, refused: Mapping[Slot, str]) -> None:
        """Its answers are in the journal. Raises StoreError."""
        current = self._read(self.note(submission))
        told = {_name(slot): reason for slot, reason in refused.items()}
        self.update(current, collected=True, refused=told)

    def add(self, calls: Iterable[Call], worst_usd: float, path: str) -> Submission:
        """Write down a batch of calls that is about to be submitted to the endpoint `path`."""
        token = uuid.uuid4().hex
        slots: list[Slot] = []
        self._directory.mkdir(parents=True, exist_ok=True)
        partial = self._lines(token).with_suffix(".partial")
        try:
            with partial.open("wb") as file:
                for call in calls:
                    file.write(line_of(call, path))
                    slots.append(call.slot)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(self._lines(token))
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise StoreError(f"{partial}: cannot be written ({error})") from error
        self._slots[token] = frozenset(slots)
        submission = Submission(
            token, self._server, self._api, len(slots), worst_usd, created=time.time()
        )
        return self.update(submission)

    def update(self, submission: Submission, **changes: Any) -> Submission:
        """The submission with changes, durable."""
        changed = dataclasses.replace(submission, **changes)
        path = self.note(submission)
        write_atomically(str(path), json.dumps(dataclasses.asdict(changed), indent=1).encode())
        if changed.collected:
            self._lines(submission.token).unlink(missing_ok=True)
            self._slots.pop(submission.token, None)
        return changed

    def note(self, submission: Submission) -> Path:
        return self._directory / f"{submission.token}.json"

    def lines(self, submission: Submission) -> Path:
        return self._lines(submission.token)

    def slots(self, submission: Submission) -> frozenset[Slot]:
        """What it asks for. Raises StoreError where its lines are gone."""
        if submission.token not in self._slots:
            path = self.lines(submission)
            try:
                with path.open("rb") as file:
                    self._slots[submission.token] = frozenset(
                        slot_in(json.loads(line)["custom_id"]) for line in file
                    )
            except (OSError, ValueError, KeyError) as error:
                raise StoreError(
                    f"{path}: the requests of batch {submission.batch_id} cannot be read ({error})"
                ) from error
        return self._slots[submission.token]

    def _lines(self, token: str) -> Path:
        return self._directory / f"{token}.jsonl"

    def _all(self) -> Iterator[Submission]:
        for path in self._directory.glob("*.json"):
            submission = self._read(path)
            if (submission.server, submission.api) == (self._server, self._api):
                yield submission

    def _read(self, path: Path) -> Submission:
        try:
            return Submission(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise StoreError(f"{path}: not a batch of this version ({error})") from error


def line_of(call: Call, path: str) -> bytes:
    """One line of a batch's input file."""
    head = json.dumps({"custom_id": _name(call.slot), "method": "POST", "url": path}).encode()
    return head.removesuffix(b"}") + b', "body": ' + call.body + b"}\n"


def calls_that_fit(calls: Iterable[Call], path: str, most: int) -> Iterator[Call]:
    """The first calls that one batch of at most `most` requests can hold."""
    size = 0
    for number, call in enumerate(calls):
        size += len(line_of(call, path))
        if number == min(most, MAX_REQUESTS) or size > MAX_BYTES:
            return
        yield call


def _name(slot: Slot) -> str:
    return f"{slot[0]}-{slot[1]}"


def slot_in(custom_id: str) -> Slot:
    """The slot that a `custom_id` of ours names. Raises ValueError."""
    told, _, index = custom_id.rpartition("-")
    return told, int(index)
