"""The doctor says what is missing, one line each, and fails only for what the demo needs."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from ray.cluster_utils import Cluster

from jobs.doctor import check_ray, main
from jobs.doctor_findings import Finding, State
from jobs.doctor_store import check_store

NEEDS = ("Python", "Ray", "vLLM", "Disk", "Output disk", "Clock")


def _lines(output: str) -> dict[str, list[str]]:
    """Words of each finding by its name."""
    return {line[9:24].strip(): line.split() for line in output.splitlines()[:-1]}


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs.doctor", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_machine_that_can_run_the_demo_is_found_well(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--root", str(tmp_path / "store")]) == 0

    output = capsys.readouterr().out
    assert {
        name: words[0] for name, words in _lines(output).items() if name in NEEDS
    } == dict.fromkeys(NEEDS, "ok")
    assert output.endswith("nothing missing for the demo\n")
    assert not (tmp_path / "store").exists()  # looked at, not made


def test_a_key_is_reported_and_never_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    main([])

    output = capsys.readouterr().out
    assert _lines(output)["OPENAI_API_KEY"] == ["ok", "OPENAI_API_KEY", "set"]
    assert _lines(output)["HF_TOKEN"][0] == "absent"
    assert "a-secret" not in output


def test_a_missing_engine_is_named_with_its_socket_and_does_not_fail_the_demo(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    assert main([]) == 0

    engine = _lines(capsys.readouterr().out)["Docker engine"]
    assert engine[0] == "absent"
    assert any("/nowhere/docker.sock" in word for word in engine)


def test_a_vllm_that_does_not_import_is_missing_and_fails(tmp_path: Path) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("raise ImportError('built for another torch')")

    outcome = _run(PYTHONPATH=str(tmp_path))

    assert outcome.returncode == 1, outcome.stderr
    assert "built for another torch" in outcome.stdout
    assert _lines(outcome.stdout)["vLLM"][0] == "missing"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://nowhere", "127.0.0.1:x"])
def test_a_cluster_that_is_not_there_is_missing(address: str) -> None:
    (finding,) = check_ray(address)
    assert finding.state is State.MISSING
    assert f"no cluster at {address}: " in finding.detail


def test_a_cluster_that_accepts_a_connection_and_says_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setattr("jobs.doctor.ANSWER_S", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        (finding,) = check_ray(f"127.0.0.1:{mute.getsockname()[1]}")
    assert finding.state is State.MISSING
    assert "no answer within 3 s" in finding.detail
    assert finding.mend.startswith("RAY_AUTH_MODE=token where the cluster runs with it")


def test_who_comes_with_a_token_is_not_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    (finding,) = check_ray("127.0.0.1:1")
    assert finding.mend.startswith("`ray start --head`")


def test_a_disk_that_is_nearly_full_is_missing_with_what_is_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "shutil.disk_usage", lambda _: types.SimpleNamespace(total=10e9, used=9.5e9, free=0.5e9)
    )
    disk, clock = check_store(str(tmp_path / "store"))
    assert disk.state is State.MISSING
    assert disk.detail.startswith("0.5 GB free for ")
    assert disk.mend == "free some, or give --root elsewhere"
    assert clock.state is State.OK


def test_a_root_below_a_file_or_behind_an_unknown_scheme_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (f"{tmp_path}/file/store", "nothing://bucket/store"):
        first, *_ = check_store(root)
        assert (first.name, first.state) == ("Store", State.MISSING)
        assert "--root elsewhere" in first.mend


class Stamped(MemoryFileSystem):
    """A store whose clock is an hour ahead."""

    protocol = "stamped"

    def find(self, *args: Any, **kwargs: Any) -> Any:
        found = super().find(*args, **kwargs)
        return {name: info | {"mtime": time.time() + 3600} for name, info in found.items()}


class ReadOnly(MemoryFileSystem):
    """A store that this machine may only look at."""

    protocol = "readonly"

    def _open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        if mode != "rb":
            raise PermissionError(f"{path}: access denied")
        return super()._open(path, mode, *args, **kwargs)


@pytest.fixture
def stores() -> None:
    for client in (Stamped, ReadOnly):
        fsspec.register_implementation(str(client.protocol), client, clobber=True)


def test_a_store_behind_a_uri_is_written_to_and_left_as_it_was(stores: None) -> None:
    store, clock, temporary = check_store("memory://doctored/store")
    assert (store.name, store.state) == ("Store", State.OK)
    assert (clock.name, clock.state) == ("Clock", State.OK)
    assert "not compared" in clock.detail
    assert (temporary.name, temporary.state) == ("Temporary disk", State.OK)
    assert tempfile.gettempdir() in temporary.detail
    assert MemoryFileSystem().find("/doctored") == []


def test_a_store_that_may_only_be_read_is_missing(stores: None) -> None:
    (store,) = check_store("readonly://bucket/store")
    assert (store.name, store.state) == ("Store", State.MISSING)
    assert "access denied" in store.detail
    assert "write" in store.mend


def test_a_clock_that_is_not_that_of_the_store_is_missing(stores: None) -> None:
    _, clock, _ = check_store("stamped://clocked/store")
    assert clock.state is State.MISSING
    assert "+3600" in clock.detail


def test_where_a_gpu_is_vllm_is_mended_with_its_build_for_gpus(tmp_path: Path) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("raise ImportError('not built')")
    (tmp_path / "nvidia0").touch()
    code = (
        "import jobs.doctor as doctor\n"
        f"doctor.GPU_DEVICES = '{tmp_path}/nvidia[0-9]*'\n"
        "print(doctor.check_vllm())"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told.endswith("-> make clean setup EXTRA=gpu\n")


@pytest.mark.slow
def test_a_clusters_nodes_and_resources_are_counted_and_slots_missed() -> None:
    head = {"num_cpus": 1, "num_gpus": 0}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    address = str(cluster.address)
    try:
        found, slots = check_ray(address)
    finally:
        cluster.shutdown()

    assert found.state is State.OK, found
    assert f"at {address}: nodes 1, CPU 1, GPU 0, docker 0" in found.detail
    assert (slots.name, slots.state) == ("Sandbox slots", State.ABSENT)
    assert "ray start" in slots.mend


def test_a_finding_is_one_line_with_its_mend() -> None:
    finding = Finding("Disk", State.MISSING, "0.1 GB free", "free some")
    assert str(finding) == "missing  Disk            0.1 GB free -> free some"
