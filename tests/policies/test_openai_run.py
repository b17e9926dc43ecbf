"""The pipeline's sampling through the OpenAI policy: real Ray, a real server on loopback."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.policies import fault_server
from tests.policies.fault_server import FaultServer

KEY = "sk-marked-7f3a9d51c2e84b60-never-written"


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def config(place: Path, server: FaultServer) -> Path:
    problems = [
        {
            "problem_id": f"double-{number}",
            "title": f"Double {word}",
            "statement": f"Read {word} numbers, one per line, and print twice their sum. {word}!",
            "difficulty": "easy",
            "released_on": "2024-01-01",
            "entry_point": None,
            "starter_code": "",
            "tests": [{"stdin": "1\n", "expected": "2\n"}],
        }
        for number, word in enumerate(("one", "two", "a hundred"))
    ]
    (place / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    options = {
        "name": "paid",
        "root": str(place / "store"),
        "output": str(place / "runs"),
        "problems": {"kind": "jsonl", "paths": [str(place / "problems.jsonl")]},
        "policy": {
            "kind": "openai",
            "base_url": server.base_url,
            "max_output_tokens": 1000,
            "batch": True,
            "batch_poll_s": 0.1,
            "budget_usd": 1.0,
        },
        "sampling": {"samples": 2, "problems_per_part": 1},
        "sandbox": {"isolation": "unsafe-process", "slots": 1},
    }
    (place / "config.yaml").write_text(yaml.safe_dump(options))
    return place / "config.yaml"


def run(place: Path, server: FaultServer, *more: str) -> subprocess.CompletedProcess[str]:
    command = [
        *(sys.executable, "-m", "jobs.run", "--config", str(config(place, server))),
        *("--stages", "problems,sample", *more),
    ]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment |= {"OPENAI_API_KEY": KEY, "RAY_TMPDIR": str(place / "ray"), "OPENAI_LOG": "debug"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=environment
    )


def written(place: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for path in place.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


@pytest.mark.slow
def test_all_parts_share_one_batch_and_the_key_is_in_no_file(
    tmp_path_factory: pytest.TempPathFactory, server: FaultServer
) -> None:
    place = tmp_path_factory.mktemp("p")  # Ray's sockets want a short path
    done = run(place, server)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert [len(batch.lines) for batch in server.batches.batches] == [6]
    assert server.calls == []
    files = written(place)
    kinds = {path.suffix for path in files}
    assert {".arrow", ".journal", ".json", ".yaml", ".txt"} <= kinds, kinds
    assert any("ray" in path.parts for path in files), "Ray's own logs were looked at too"
    assert [path for path, data in files.items() if KEY.encode() in data] == []
    assert KEY not in done.stdout + done.stderr


def test_a_refused_key_is_one_clear_error_before_anything_starts(
    tmp_path: Path, server: FaultServer
) -> None:
    server.preflight_faults.append(fault_server.error(401, f"Incorrect API key: {KEY}"))
    done = run(tmp_path, server)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "the key in OPENAI_API_KEY was refused" in said
    assert "Traceback" not in said
    assert KEY not in said
    assert server.batches.batches == []
    assert not (tmp_path / "ray").exists(), "Ray was started for nothing"
    assert [path for path, data in written(tmp_path).items() if KEY.encode() in data] == []
