"""How well the OpenAI policy keeps calls in flight: a server on loopback answers after 200 ms.

    python -m tests.benchmarks.api_concurrency [--json]

For each number of calls in flight there is work for 20 s: so many calls that a client which costs
nothing would need 20 s. The efficiency is that ideal time divided by the measured one, the client's
whole way included: request, answer, journal with fsync, response. The server is a process of its
own. To tell the client's cost from the machine's, the same load is also put on the server by bare
sockets, which do nothing else; at 64 in flight, the client's own efficiency should be 0.90 or more.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.config import OpenAIPolicy
from pipeline.journal import Journal
from pipeline.policies.openai import OpenAI
from pipeline.policies.protocol import PolicyRequest
from pipeline.prompts import Prompt

IN_FLIGHT = (1, 4, 16, 64)
LATENCY_S = 0.2
WORK_S = 20.0
STATEMENT = "Read a number and print its double. " * 40
PROGRAM = "def main():\n    print(2 * int(input()))\n" * 20

_SERVER = """
import asyncio, json, sys

LATENCY_S, PROGRAM = float(sys.argv[1]), sys.argv[2]
MODELS = json.dumps({"object": "list", "data": [{"id": "o4-mini", "object": "model"}]}).encode()
ANSWER = json.dumps({
    "id": "r", "object": "response", "created_at": 0, "model": "o4-mini", "status": "completed",
    "error": None, "incomplete_details": None,
    "output": [
        {"id": "rs", "type": "reasoning", "summary": []},
        {"id": "m", "type": "message", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": PROGRAM, "annotations": []}]}],
    "usage": {"input_tokens": 400, "input_tokens_details": {"cached_tokens": 0},
              "output_tokens": 900, "output_tokens_details": {"reasoning_tokens": 600}},
}).encode()


async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            for line in head.lower().split(b"\\r\\n"):
                if line.startswith(b"content-length:"):
                    await reader.readexactly(int(line.partition(b":")[2]))
            if head.startswith(b"POST"):
                await asyncio.sleep(LATENCY_S)
            body = ANSWER if head.startswith(b"POST") else MODELS
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\n"
                         b"Content-Length: %d\\r\\n\\r\\n" % len(body) + body)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
"""


async def by_policy(port: int, in_flight: int, calls: int) -> float:
    """Seconds for so many calls through the policy, the connections being open."""
    config = OpenAIPolicy(base_url=f"http://127.0.0.1:{port}/v1", requests_in_flight=in_flight)
    with tempfile.TemporaryDirectory() as directory:
        policy = OpenAI(config, Journal(Path(directory)))
        try:
            await _ask(policy, "warm-up", in_flight)
            started = time.perf_counter()
            await _ask(policy, "work", calls)
            return time.perf_counter() - started
        finally:
            policy.close()


async def _ask(policy: OpenAI, key: str, calls: int) -> None:
    request = PolicyRequest(key, Prompt("Write Python.", f"{key} {STATEMENT}"), tuple(range(calls)))
    answered = 0
    async for response in policy.complete([request]):
        assert response.text == PROGRAM
        answered += 1
    assert answered == calls


async def by_bare_sockets(port: int, in_flight: int, calls: int) -> float:
    """Seconds for so many calls by a client that does nothing else."""
    body = json.dumps({"model": "o4-mini", "input": STATEMENT}).encode()
    message = b"POST /v1/responses HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    remaining = calls

    async def lane() -> None:
        nonlocal remaining
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while remaining > 0:
            remaining -= 1
            writer.write(message)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.rpartition(b"Content-Length:")[2]))
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(in_flight)))
    return time.perf_counter() - started


def measure(work_s: float) -> dict[str, float]:
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(LATENCY_S), PROGRAM], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    figures: dict[str, float] = {}
    try:
        port = int(server.stdout.readline())
        for in_flight in IN_FLIGHT:
            calls = round(work_s / LATENCY_S * in_flight)
            ideal_s = calls * LATENCY_S / in_flight
            cpu_s = time.process_time()
            took_s = asyncio.run(by_policy(port, in_flight, calls))
            cpu_s = time.process_time() - cpu_s
            bare_s = asyncio.run(by_bare_sockets(port, in_flight, calls))
            figures |= {
                f"efficiency_{in_flight}": round(ideal_s / took_s, 3),
                f"bare_sockets_{in_flight}": round(ideal_s / bare_s, 3),
                f"calls_per_s_{in_flight}": round(calls / took_s, 1),
                f"client_cpu_ms_per_call_{in_flight}": round(1e3 * cpu_s / calls, 2),
            }
    finally:
        server.kill()
        server.wait()
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--work-s", type=float, default=WORK_S, help="seconds of work [20]")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OPENAI_API_KEY", "unused")
    figures = measure(options.work_s)
    if options.json:
        print(json.dumps(figures))
        return 0
    print("in flight   efficiency   bare sockets   calls/s   client CPU ms/call")
    for in_flight in IN_FLIGHT:
        names = ("efficiency", "bare_sockets", "calls_per_s", "client_cpu_ms_per_call")
        row = [figures[f"{name}_{in_flight}"] for name in names]
        print(f"{in_flight:9}   {row[0]:10.3f}   {row[1]:12.3f}   {row[2]:7.1f}   {row[3]:18.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
