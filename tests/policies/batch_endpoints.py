"""The Files and Batch endpoints of an OpenAI server, in memory: what they accept, run and lose.

A batch ends at the `looks`-th look at it. How it ends, and what becomes of each of its lines, is up
to the test.
"""

import collections
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Reply = tuple[int | None, dict[str, str], bytes | None]
"""Status (None: the connection is closed without a word), headers, body."""

Line = dict[str, Any]

_NOT_FOUND: Reply = (404, {}, b'{"error": {"message": "no such object"}}')


@dataclass
class _Batch:
    id: str
    lines: list[Line]
    metadata: dict[str, str]
    endpoint: str
    status: str = "in_progress"
    looks: int = 0
    files: dict[str, str] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "completion_window": "24h",
            "created_at": 4_000_000_000,
            "input_file_id": "f",
            "status": self.status,
            "metadata": self.metadata,
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "request_counts": {"total": len(self.lines), "completed": 0, "failed": 0},
            **self.files,
        }


class BatchEndpoints:
    """State and faults of one server."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: list[_Batch] = []
        self.looks = 1
        self.ends: collections.deque[str] = collections.deque()
        """How the next batches end; else they are completed."""
        self.refusals: collections.deque[str] = collections.deque()
        """Codes with which the next batches fail their validation."""
        self.drop_replies = 0
        """So many of the next batches are created, and nobody is told."""
        self.garble_files = 0
        """So many of the next downloads lack their end."""
        self.lose: str | None = None
        """What the server has no more: "batch", or the "results" of one."""
        self.result: Callable[[Line], Line | None] = succeeded
        """What becomes of a line; None: it is in neither file."""
        self._lock = threading.Lock()

    def submitted(self) -> list[str]:
        """The ids of all lines of all batches that were accepted."""
        return [
            line["custom_id"]
            for batch in self.batches
            if batch.status != "failed"
            for line in batch.lines
        ]

    def post(self, path: str, data: bytes) -> Reply:
        with self._lock:
            if path.endswith("/files"):
                return _json(self._upload(data))
            return self._create(json.loads(data))

    def get(self, path: str) -> Reply:
        with self._lock:
            if found := re.search(r"/files/(\w+)/content", path):
                if self.lose == "results":
                    return _NOT_FOUND
                data = self.files[found[1]]
                if self.garble_files:
                    self.garble_files -= 1
                    data = data[: len(data) // 2]
                return 200, {}, data
            if found := re.search(r"/batches/(\w+)", path):
                if self.lose == "batch":
                    return _NOT_FOUND
                batch = next(batch for batch in self.batches if batch.id == found[1])
                return _json(self._look(batch))
            told = [batch.told() for batch in reversed(self.batches)]
            return _json({"object": "list", "data": told, "has_more": False})

    def _upload(self, data: bytes) -> dict[str, Any]:
        lines = re.findall(rb'^\{"custom_id".*\}\r?$', data, flags=re.MULTILINE)
        assert b'name="purpose"\r\n\r\nbatch' in data
        name = f"file{len(self.files)}"
        self.files[name] = b"\n".join(line.strip() for line in lines)
        return {"id": name, "object": "file", "bytes": len(data), "purpose": "batch"}

    def _create(self, body: dict[str, Any]) -> Reply:
        lines = [json.loads(line) for line in self.files[body["input_file_id"]].split(b"\n")]
        batch = _Batch(f"batch{len(self.batches)}", lines, body["metadata"], body["endpoint"])
        self.batches.append(batch)
        if self.refusals:
            batch.status = "failed"
            batch.errors = [{"code": self.refusals.popleft(), "message": "not this one"}]
        if self.drop_replies:
            self.drop_replies -= 1
            return None, {}, None
        return _json(batch.told())

    def _look(self, batch: _Batch) -> dict[str, Any]:
        batch.looks += 1
        if batch.looks >= self.looks and batch.status == "in_progress":
            batch.status = self.ends.popleft() if self.ends else "completed"
            results = [result for line in batch.lines if (result := self.result(line)) is not None]
            for name, wanted in (("output_file_id", True), ("error_file_id", False)):
                chosen = [r for r in results if (r["error"] is None) is wanted]
                if chosen:
                    batch.files[name] = f"{batch.id}{name.replace('_', '')}"
                    text = "\n".join(json.dumps(result) for result in chosen)
                    self.files[batch.files[name]] = text.encode() + b"\n"
        return batch.told()


def succeeded(line: Line) -> Line:
    from tests.policies.fault_server import answer_to

    return answered(line, 200, answer_to(line["body"]))


def answered(line: Line, status: int, body: dict[str, Any]) -> Line:
    response = {"status_code": status, "request_id": "r", "body": body}
    return {"id": "b", "custom_id": line["custom_id"], "response": response, "error": None}


def expired(line: Line) -> Line:
    error = {"code": "batch_expired", "message": "This request could not be executed in time."}
    return {"id": "b", "custom_id": line["custom_id"], "response": None, "error": error}


def _json(told: dict[str, Any]) -> Reply:
    return 200, {}, json.dumps(told).encode()
