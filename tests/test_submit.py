"""Jobs are submitted to a head node that is really there: `ray start` and `ray job submit` as the
README has them, the token that guards a cluster included."""

import json
import os
import random
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from pipeline.part_file import read_table
from pipeline.schemas import LABEL_ESTIMATE
from tests import scripted_run
from tests.prm.world import make_base, make_examples

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CHECKOUT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
RIGHT, WRONG = (f"```python\nprint({n} * int(input()))\n```" for n in (2, 3))


@dataclass(frozen=True)
class Head:
    """A head node with none of this project on its path: jobs bring their own."""

    environment: dict[str, str]
    folder: Path

    def submit(self, *words: str) -> subprocess.CompletedProcess[str]:
        """As a person does it: the command waits for the job's end and shows its logs."""
        command = [str(BIN / "ray"), "job", "submit", "--working-dir", ".", *words]
        return subprocess.run(
            command,
            cwd=CHECKOUT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=400,
            check=False,
        )

    def jobs(self) -> JobSubmissionClient:
        token = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        return JobSubmissionClient(self.environment["RAY_ADDRESS"], headers=token)

    def packages(self) -> list[Path]:
        """What was uploaded, as jobs find it in their working directory."""
        pattern = "session_2*/runtime_resources/working_dir_files/_ray_pkg_*/"
        return sorted(self.folder.glob(pattern))


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets want a short path
    dashboard, agent, client = free_ports(3)
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    node = subprocess.Popen(
        [
            *(str(BIN / "ray"), "start", "--head", "--block", f"--temp-dir={folder}"),
            *("--num-cpus=2", "--num-gpus=0", '--resources={"docker": 2}'),
            *("--port=0", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"),
            *(f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"),
            *(f"--ray-client-server-port={client}", "--disable-usage-stats"),
            *("--min-worker-port=0", "--max-worker-port=0"),
        ],
        cwd="/",
        env=environment,
        stdout=(folder / "out.txt").open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 200
        while "block forever" not in (told := (folder / "out.txt").read_text()):
            assert node.poll() is None, told
            assert time.monotonic() < deadline, told
            time.sleep(0.2)
        yield Head(environment | {"RAY_ADDRESS": f"http://127.0.0.1:{dashboard}"}, folder)
    finally:
        node.terminate()
        with suppress(subprocess.TimeoutExpired):
            node.wait(timeout=60)
        with suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below those that the system gives to any connection."""
    found: list[int] = []
    for port in random.sample(range(20_000, 32_000), 1000):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recorded answers to four problems, sampled and executed: real stages, without a model."""
    place = tmp_path_factory.mktemp("submitted")
    scripted_run.write_problems(place, ["Read a number and print its double."] * 4)
    rows = [json.loads(line) for line in (place / "problems.jsonl").open()]
    answers = [{"question_id": row["problem_id"], "output_list": [RIGHT, WRONG]} for row in rows]
    (place / "answers.json").write_text(json.dumps(answers))
    chosen = {
        "name": "submitted",
        "root": f"{place}/store",
        "output": f"{place}/out",
        "problems": {"kind": "jsonl", "paths": [f"{place}/problems.jsonl"]},
        "policy": {"kind": "replay", "path": f"{place}/answers.json"},
        "sampling": {"samples": 2, "problems_per_part": 2, "pool": {"cpus": 0.1}},
        "sandbox": {"isolation": "unsafe-process"},
    }
    (place / "config.yaml").write_text(yaml.safe_dump(chosen))
    return place / "config.yaml"


def run(config: Path, *options: str) -> list[str]:
    stages = ("--stages", "problems,sample")
    return ["python", "-m", "jobs.run", "--config", str(config), *stages, *options]


@pytest.fixture(scope="module")
def first(head: Head, config: Path) -> subprocess.CompletedProcess[str]:
    return head.submit("--submission-id", "first", "--", *run(config))


@pytest.fixture(scope="module")
def later(
    head: Head, config: Path, first: subprocess.CompletedProcess[str]
) -> tuple[JobDetails, str]:
    """The same again: how it ended, and its logs."""
    assert first.returncode == 0, first.stdout
    return ended(head.jobs(), shlex.join(run(config)))


def ended(jobs: JobSubmissionClient, command: str) -> tuple[JobDetails, str]:
    job = jobs.submit_job(entrypoint=command, runtime_env={"working_dir": str(CHECKOUT)})
    deadline = time.monotonic() + 300
    while not jobs.get_job_status(job).is_terminal():
        assert time.monotonic() < deadline, jobs.get_job_logs(job)
        time.sleep(0.2)
    return jobs.get_job_info(job), jobs.get_job_logs(job)


def parts(config: Path) -> list[Path]:
    return list(config.parent.glob("store/*/*/part-*.arrow"))


def test_a_submitted_run_succeeds_and_tells_its_stages(
    first: subprocess.CompletedProcess[str], config: Path
) -> None:
    assert first.returncode == 0, first.stdout
    assert "Job 'first' succeeded" in first.stdout
    assert "verdicts     2/2 parts, 8 rows" in first.stdout
    assert f"stages: {config.parent}/store" in first.stdout
    assert len(parts(config)) == 6


def test_what_is_uploaded_is_the_code_and_little_else(
    head: Head, first: subprocess.CompletedProcess[str]
) -> None:
    assert first.returncode == 0, first.stdout
    package = head.packages()[0]
    files = [path for path in package.rglob("*") if path.is_file()]
    assert (package / "jobs/configs/livecodebench.yaml").is_file()
    assert {path.name for path in package.iterdir()} & {".git", ".venv", "runs", "tests"} == set()
    assert sum(path.stat().st_size for path in files) < 3_000_000


def test_a_second_submission_finds_the_work_of_the_first(
    later: tuple[JobDetails, str], config: Path
) -> None:
    details, logs = later
    assert (details.status, details.driver_exit_code) == (JobStatus.SUCCEEDED, 0), logs
    for stage in ("problems", "solutions", "verdicts"):
        (told,) = [line for line in logs.splitlines() if line.split()[:1] == [stage]]
        assert told.endswith("already there")
    start = details.start_time or 0
    assert all(path.stat().st_mtime_ns / 1e6 < start for path in parts(config))


def test_a_failed_jobs_status_logs_and_exit_code_tell_its_one_error(
    head: Head, config: Path
) -> None:
    failed = head.submit("--submission-id", "wrong", "--", *run(config, "--sampling.sampels", "3"))
    assert failed.returncode == 1, failed.stdout
    assert "Job 'wrong' failed" in failed.stdout
    jobs = head.jobs()
    details, logs = jobs.get_job_info("wrong"), jobs.get_job_logs("wrong")
    assert (details.status, details.driver_exit_code) == (JobStatus.FAILED, 2)
    assert "sampling.sampels: unknown key. Did you mean 'samples'?" in logs
    assert "Traceback" not in logs


def test_results_in_a_folder_that_ends_with_the_job_are_refused(head: Head, config: Path) -> None:
    details, logs = ended(head.jobs(), shlex.join(run(config, "--root", "runs/store")))
    assert (details.status, details.driver_exit_code) == (JobStatus.FAILED, 2)
    assert "--root: 'runs/store' is a relative path" in logs
    assert not any((package / "runs").exists() for package in head.packages())


def test_training_on_another_cluster_starts_from_labelled_shards_alone(
    head: Head, tmp_path: Path
) -> None:
    """The store that labelled them, its problems and its policy are gone."""
    place = tmp_path / "labelled"
    scripted_run.write_problems(place, ["fine"] * 8)
    labelled = scripted_run.plan_of(place).examples
    rows = [make_examples(12, seed=seed) for seed in (1, 2)]
    for part, examples in enumerate(rows):
        labelled.write(part, examples)
    labelled.describe(len(rows), {})
    copy = shutil.copytree(labelled.directory, tmp_path / "examples")
    shutil.rmtree(place)

    model = {"base": make_base(tmp_path / "base"), "max_tokens": 256, "lora": None}
    training = {
        "model": model | {"dtype": "float32"},
        "arms": [{"name": "prm_soft", "targets": "soft"}],
        "epochs": 1,
        "batch_size": 8,
        "micro_batch_size": 8,
        "use_gpu": False,
        "threads_per_worker": 1,
    }
    unused = {"problems": {"kind": "scale_model"}, "policy": {"kind": "vllm", "model": "unused"}}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(unused | {"training": training}))
    command = ["python", "-m", "jobs.train", "--config", str(config), "--examples", str(copy)]
    details, logs = ended(head.jobs(), shlex.join([*command, "--out", f"{tmp_path}/prms"]))
    assert (details.status, details.driver_exit_code) == (JobStatus.SUCCEEDED, 0), logs
    table = read_table(f"{tmp_path}/prms/prm_soft/labels.arrow", LABEL_ESTIMATE)
    trained = {label.step_id for label in LABEL_ESTIMATE.from_table(table)}
    assert trained == {step for part in rows for row in part for step in row.step_ids[:-1]}
    assert (tmp_path / "prms/prm_soft/model/config.json").is_file()
