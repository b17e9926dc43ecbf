"""An HTTP server on loopback that speaks both OpenAI APIs and fails on demand.

It answers a prompt with a text that names it. Faults wait in a queue; each call takes the next, and
calls without one succeed.
"""

import collections
import json
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.policies.batch_endpoints import BatchEndpoints

Answer = Callable[[dict[str, Any]], dict[str, Any]]
"""The body of a success, for that of a request."""

MODEL = "o4-mini"
PROMPT_TOKENS = 40
COMPLETION_TOKENS = 100
REASONING_TOKENS = 60


@dataclass(frozen=True)
class Fault:
    """What one call meets. `status` None: the connection is closed without a word."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    missing_bytes: int = 0  # promised in Content-Length, and never sent
    reset: bool = False  # what is missing never comes, for the connection is reset
    raw: bytes | None = None  # sent instead of all that
    delay_s: float = 0.0


def error(
    status: int,
    message: str = "no",
    code: str | None = None,
    param: str | None = None,
    **headers: str,
) -> Fault:
    told = {"error": {"message": message, "code": code, "type": "x", "param": param}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Fault(status, named, json.dumps(told).encode())


def success(payload: dict[str, Any]) -> Fault:
    return Fault(200, {}, json.dumps(payload).encode())


def response(text: str, **changes: Any) -> dict[str, Any]:
    """A body of the Responses API."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 0,
        "model": MODEL,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "output": [
            {"id": "rs_1", "type": "reasoning", "summary": []},
            {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": text, "annotations": []}],
            },
        ],
        "usage": {
            "input_tokens": PROMPT_TOKENS,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": COMPLETION_TOKENS,
            "output_tokens_details": {"reasoning_tokens": REASONING_TOKENS},
            "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
        },
    } | changes


def chat_completion(
    content: str | None, finish_reason: str | None = "stop", refusal: str | None = None
) -> dict[str, Any]:
    """A body of the Chat Completions API."""
    message = {"role": "assistant", "content": content, "refusal": refusal}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [{"index": 0, "finish_reason": finish_reason, "message": message}],
        "usage": {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": COMPLETION_TOKENS,
            "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
            "completion_tokens_details": {"reasoning_tokens": REASONING_TOKENS},
        },
    }


def answer_to(body: dict[str, Any]) -> dict[str, Any]:
    """What a request of either API gets where nothing goes wrong."""
    if "input" in body:
        return response(f"answer to {body['input']}")
    return chat_completion(f"answer to {body['messages'][-1]['content']}")


class FaultServer:
    """Use as a context manager; `base_url` is for the client. With `tls`, it speaks https.

    `answer_headers` go with every success: rate limits, for one.
    """

    def __init__(
        self,
        models: tuple[str, ...] = (MODEL, "gpt-x"),
        latency_s: float = 0.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.models = models
        self.latency_s = latency_s
        self.faults: collections.deque[Fault] = collections.deque()
        self.preflight_faults: collections.deque[Fault] = collections.deque()
        self.answer: Answer = answer_to
        """Of a call; `batches.result` is that of a line of a batch."""
        self.batches = BatchEndpoints()
        self.hang_on: tuple[str, str] | None = None
        """Method and part of a path: the next such request is never replied to."""
        self.hang_before = False
        """It is not acted on either."""
        self.hung = threading.Event()
        self.calls: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.answered = 0
        self.answer_headers: dict[str, str] = {}
        self.peak_in_flight = 0
        self._in_flight = 0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._scheme = "https" if tls else "http"
        if tls:  # a handshake belongs to its connection's thread
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )

    @property
    def connections(self) -> int:
        """So many were opened, handshakes that failed included."""
        return self._server.connections

    @property
    def base_url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def preflight(self) -> Fault:
        if self.preflight_faults:
            return self.preflight_faults.popleft()
        models = [{"id": name, "object": "model"} for name in self.models]
        return success({"object": "list", "data": models})

    def call(self, path: str, body: dict[str, Any]) -> Fault:
        with self._lock:
            self.calls.append(body)
            self.times.append(time.monotonic())
            self._in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self._in_flight)
            fault = self.faults.popleft() if self.faults else None
        time.sleep(self.latency_s)
        with self._lock:
            self._in_flight -= 1
            self.answered += fault is None
        if fault is not None:
            return fault
        told = self.answer(body)
        return Fault(200, self.answer_headers, json.dumps(told).encode())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    connections = 0

    def get_request(self) -> Any:
        self.connections += 1
        return super().get_request()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the game."""


def _handler(server: FaultServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if "/models" in self.path:
                self._meet(server.preflight)
            else:
                self._meet(lambda: Fault(*server.batches.get(self.path)))

        def do_POST(self) -> None:
            data = self._body()
            if self.path.endswith(("/files", "/batches")):
                self._meet(lambda: Fault(*server.batches.post(self.path, data)))
            else:
                self._meet(lambda: server.call(self.path, json.loads(data)))

        def _body(self) -> bytes:
            if "Content-Length" in self.headers:
                return self.rfile.read(int(self.headers["Content-Length"]))
            data = b""
            while size := int(self.rfile.readline(), 16):  # chunked: a file that is uploaded
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data

        def _meet(self, next_fault: Callable[[], Fault]) -> None:
            wanted = server.hang_on
            hangs = wanted is not None and wanted[0] == self.command and wanted[1] in self.path
            fault = Fault() if hangs and server.hang_before else next_fault()
            if hangs:
                server.hung.set()
                while server.hang_on is not None:
                    time.sleep(0.01)
                fault = Fault()
            time.sleep(fault.delay_s)
            if fault.status is None:
                self.wfile.write(fault.raw or b"")
                self.close_connection = True
                return
            body = fault.body or b""
            self.send_response(fault.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body) + fault.missing_bytes))
            for name, value in fault.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            if fault.reset:
                linger = struct.pack("ii", 1, 0)  # for no time: a close is a reset
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                os.close(self.connection.detach())
            if fault.missing_bytes:
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    return Handler
