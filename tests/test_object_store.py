"""The store behind an S3-compatible server, over a real connection on the loopback interface."""

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import boto3  # pyright: ignore[reportMissingTypeStubs]
import pytest
from moto.server import ThreadedMotoServer
from peft import PeftModel
from transformers import AutoModelForTokenClassification

from jobs import run, score, train
from jobs.run_status import run_status
from pipeline import object_journal
from pipeline import run_folder as run_folder_module
from pipeline.config import LoRA, ModelConfig, PipelineConfig
from pipeline.files import StoreError, delete, exists, listing, read_bytes, tree, write_atomically
from pipeline.folders import local_folder, publish_folder
from pipeline.lock import StageLocked, stage_lock
from pipeline.metrics import metered
from pipeline.object_journal import ObjectJournal, open_journal
from pipeline.part_file import DamagedPart
from pipeline.policies.ledger import Account, Ledger
from pipeline.prm.export import export
from pipeline.prm.model import build_scorer
from pipeline.prm.parallel import CPU
from pipeline.progress import Progress
from pipeline.records import Role, StepLabel
from pipeline.rounds import StageFailed
from pipeline.run_folder import fetch_log, kept, run_folder
from pipeline.schemas import STEP_LABEL
from pipeline.settings import dump_config
from pipeline.store import StageStore
from pipeline.survey import missing_parts
from tests import scripted_run
from tests.training_files import write_config, write_examples

_RUN = """
import sys
from pathlib import Path
from tests import scripted_run
scripted_run.go(scripted_run.config(Path(sys.argv[1]), sys.argv[2], problems_per_part=1))
"""
ROWS = [StepLabel(f"step-{i:03d}", passed=i % 5, trials=4) for i in range(50)]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # one line per request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).create_bucket(
            Bucket="bucket"
        )
        yield "s3://bucket"
    server.stop()


@pytest.fixture
def stage(bucket: str, request: pytest.FixtureRequest) -> StageStore[StepLabel]:
    return StageStore(f"{bucket}/{request.node.name}", "labels", "f00d", STEP_LABEL)


def test_parts_are_written_read_listed_and_removed(stage: StageStore[StepLabel]) -> None:
    assert stage.done() == []
    stage.write(0, reversed(ROWS))
    assert stage.read(0) == ROWS
    assert stage.done() == [0]
    assert missing_parts(stage, [0, 1]) == ([1], [])
    delete(stage.path(0))
    assert not exists(stage.path(0))
    assert missing_parts(stage, [0, 1]) == ([0, 1], [])


def test_a_damaged_part_is_known_for_what_it_is(stage: StageStore[StepLabel]) -> None:
    stage.write(0, ROWS)
    data = read_bytes(stage.path(0))
    assert data is not None
    write_atomically(stage.path(0), data[:-10])
    assert isinstance(stage.inspect(0), DamagedPart)
    assert missing_parts(stage, [0])[0] == [0]


def test_a_second_driver_is_refused_and_the_lock_released(stage: StageStore[StepLabel]) -> None:
    with (
        stage_lock(stage.directory),
        pytest.raises(StageLocked, match=f"pid {os.getpid()}"),
        stage_lock(stage.directory),
    ):
        pass
    assert "lock.json" not in listing(stage.directory)


@pytest.fixture
def journal(bucket: str, request: pytest.FixtureRequest) -> str:
    return f"{bucket}/{request.node.name}/journal"


def test_a_paid_answer_in_an_object_store_is_met_by_every_process(journal: str) -> None:
    mine, other = ObjectJournal(journal), ObjectJournal(journal)
    mine.put_all([("hash", 0, b"first"), ("hash", 1, b"second")])
    assert ("hash", 1) not in other
    other.refresh()
    assert other.get("hash", 1) == b"second"
    # A process that is killed closes nothing.
    assert sorted(ObjectJournal(journal).payloads()) == [b"first", b"second"]


def test_many_small_objects_of_the_journal_become_one(
    journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_journal, "MERGED", 4)
    mine, early = ObjectJournal(journal), ObjectJournal(journal)
    for index in range(9):
        mine.put("hash", index, b"%d" % index)
        if index == 1:
            early.refresh()  # of what is then merged away
    assert len(listing(journal)) == 3  # two merged, one that is left
    early.refresh()
    expected = [b"%d" % index for index in range(9)]
    assert [early.get("hash", index) for index in range(9)] == expected
    mine.close()
    later = open_journal(journal)
    assert [later.get("hash", index) for index in range(9)] == expected


def test_an_answer_that_the_object_store_did_not_take_does_not_count(
    journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = ObjectJournal(journal)
    monkeypatch.setattr(mine, "directory", "s3://no-such-bucket/journal")
    with pytest.raises(StoreError, match="cannot be written"):
        mine.put("hash", 0, b"answer")
    assert ("hash", 0) not in mine
    assert len(ObjectJournal(journal)) == 0


def test_the_dollars_spent_are_summed_over_accounts_in_an_object_store(journal: str) -> None:
    ledger = Ledger(f"{journal}/spending")
    Ledger(f"{journal}/spending").write("one", Account(1.0, 0.5, time.time()))
    assert ledger.others("me").spent_usd == 1.0
    # Within the second that the store's clock knows, and with as many bytes.
    Ledger(f"{journal}/spending").write("one", Account(2.0, 0.5, time.time()))
    assert ledger.others("me").spent_usd == 2.0
    assert ledger.others("one").spent_usd == 0.0


def test_a_model_is_fetched_once_and_again_when_it_is_replaced(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    model, uri = tmp_path / "model", f"{bucket}/models/one"
    (model / "inside").mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "inside" / "weights").write_bytes(b"1" * 100)
    publish_folder(model, uri)
    here = Path(local_folder(uri))
    assert (here / "inside" / "weights").read_bytes() == b"1" * 100
    assert local_folder(uri) == str(here)
    (model / "inside" / "weights").rename(model / "weights")
    publish_folder(model, uri)
    again = Path(local_folder(uri))
    assert {path.name for path in again.iterdir()} == {"config.json", "weights"}
    write_atomically(f"{uri}/README.md", b"# A card, from which nothing is loaded")
    assert local_folder(uri) == str(again)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        local_folder(f"{bucket}/models/two")


def test_adapters_name_the_base_that_the_config_names_and_not_its_copy(
    bucket: str, base: str, tmp_path: Path
) -> None:
    uri = f"{bucket}/bases/tiny"
    publish_folder(Path(base), uri)
    config = ModelConfig(base=uri, max_tokens=256, lora=LoRA(rank=4), dtype="float32")
    scorer, _ = build_scorer(config, 0, CPU)
    export(config, {n: p for n, p in scorer.named_parameters() if p.requires_grad}, tmp_path)
    told = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == uri
    for path in tmp_path.rglob("*.json"):
        assert "prm-models-" not in path.read_text()
    fetched = AutoModelForTokenClassification.from_pretrained(local_folder(uri), num_labels=1)
    PeftModel.from_pretrained(fetched, tmp_path / "adapter")


def test_a_training_into_an_object_store_locks_it_and_makes_no_folder_of_its_name(
    bucket: str, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config = write_config(tmp_path, base)
    examples = write_examples(tmp_path / "e", Role.TRAIN, Role.META)
    monkeypatch.chdir(tmp_path)
    out = f"{bucket}/locked"
    with stage_lock(f"{out}/prm_corrected"):
        assert train.main(["--config", config, "--examples", examples, "--out", f"{out}/"]) == 1
    assert f"{out}/prm_corrected/lock.json: another driver" in capfd.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "e"}


def on_machine(number: int, place: Path, root: str) -> PipelineConfig:
    """A run of the same name and store, driven from a machine of its own."""
    changed = {"output": str(place / f"machine-{number}")}
    return scripted_run.config(place, root).model_copy(update=changed)


def draw(config: PipelineConfig, step: int) -> None:
    with metered(config, scripted_run.Told()) as observer:
        observer.progress(Progress("arm", step, 9, "optimizer steps", figures={"loss": 0.5}))


def test_log_and_curves_outlive_their_machine_and_another_goes_on_with_them(
    bucket: str, tmp_path: Path
) -> None:
    root = f"{bucket}/outlives"
    first, second = (on_machine(number, tmp_path, root) for number in (1, 2))
    run_folder(first).mkdir(parents=True)
    (run_folder(first) / "log.txt").write_text("first\n")

    def fail() -> None:
        with kept(first):
            draw(first, 1)
            raise StageFailed("it ends with a failure")

    with pytest.raises(StageFailed):
        fail()
    fetch_log(second)
    with (run_folder(second) / "log.txt").open("a") as log:
        log.write("second\n")
    with kept(second):
        draw(second, 2)
    assert read_bytes(f"{root}/runs/scripted/log.txt") == b"first\nsecond\n"
    in_store = tree(f"{root}/runs/scripted/metrics/arm")
    assert len(in_store) == 2, "one of each driver"
    assert tree(str(run_folder(second) / "metrics" / "arm")).keys() == in_store.keys()
    with kept(first):  # whose log is the shorter one
        pass
    assert read_bytes(f"{root}/runs/scripted/log.txt") == b"first\nsecond\n"


def test_log_and_curves_are_kept_while_a_run_goes_on(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder_module, "PERIOD_S", 0.05)
    config = on_machine(1, tmp_path, f"{bucket}/goes-on")
    with kept(config):
        write_atomically(str(run_folder(config) / "log.txt"), b"so far\n")
        deadline = time.monotonic() + 20
        while not exists(f"{config.root}/runs/scripted/log.txt"):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_store_that_takes_no_copies_fails_no_run(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object) -> None:
        raise StoreError("the bucket is full")

    config = on_machine(1, tmp_path, f"{bucket}/full")
    with kept(config):
        draw(config, 1)
        monkeypatch.setattr(run_folder_module, "copy", refused)
    assert "not copied to the store: the bucket is full" in caplog.text


def test_a_job_that_fails_leaves_its_log_in_the_store(
    bucket: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = on_machine(1, tmp_path, f"{bucket}/fails")
    (tmp_path / "config.yaml").write_text(dump_config(config))
    (tmp_path / "problems.jsonl").write_text("{}\n")
    assert run.main(["--config", str(tmp_path / "config.yaml")]) == 1
    assert "problems.jsonl" in capfd.readouterr().out
    assert exists(f"{bucket}/fails/runs/scripted/log.txt")


@pytest.mark.slow
def test_a_model_is_trained_into_an_object_store_and_scores_from_there(
    bucket: str, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    publish_folder(Path(base), f"{bucket}/base")
    model = {"base": f"{bucket}/base", "max_tokens": 256, "lora": {"rank": 4}, "dtype": "float32"}
    arms = [{"name": "orm", "targets": "final"}]
    config = write_config(tmp_path, base, model=model, arms=arms, epochs=1)
    examples = write_examples(tmp_path / "e", Role.TRAIN)
    out = f"{bucket}/trained"
    assert train.main(["--config", config, "--examples", examples, "--out", out]) == 0
    assert {"checkpoint.pt", "done.json", "labels.arrow"} <= listing(f"{out}/orm").keys()
    for folder in ("model", "adapter"):
        card = read_bytes(f"{out}/orm/{folder}/README.md") or b""
        assert f"base_model: {bucket}/base\n" in card.decode()
    scored = ["--model", f"{out}/orm/model", "--examples", examples, "--out", f"{bucket}/scored"]
    assert score.main(scored) == 0
    (parts,) = (name for name in tree(f"{bucket}/scored") if name.endswith(".arrow"))
    assert parts.startswith("scores/")


@pytest.mark.slow
def test_a_run_whose_root_is_an_object_store_is_killed_resumed_and_told_of(
    bucket: str, tmp_path: Path
) -> None:
    root = f"{bucket}/run"
    scripted_run.write_problems(tmp_path, ["fine"] * 6)
    plan = scripted_run.plan_of(tmp_path, root, problems_per_part=1)
    command = [sys.executable, "-c", _RUN, str(tmp_path), root]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    (tmp_path / "pace").write_text("2")  # seconds of each answer: the kill comes in between
    with (tmp_path / "out.txt").open("ab") as out:
        job = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        deadline = time.monotonic() + 200
        while len(plan.solutions.done()) < 2:
            assert job.poll() is None, (tmp_path / "out.txt").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        job.kill()
        job.wait()
        assert len(plan.solutions.done()) < 6
        assert plan.examples.done() == []
        (tmp_path / "pace").unlink()
        before = {part: plan.solutions.digest(part) for part in plan.solutions.done()}
        subprocess.run(command, env=environment, stdout=out, stderr=out, check=True, timeout=300)
    assert {part: plan.solutions.digest(part) for part in before} == before
    told = {stage.stage: stage for stage in run_status(root, "scripted").stages}
    assert {name: (stage.done, stage.total) for name, stage in told.items()} == dict.fromkeys(
        told, (6, 6)
    )
    assert told["verdicts"].outcomes == {"AC": 12, "WA": 12}
    curves = {name.split("/")[1] for name in tree(f"{root}/runs/scripted") if "metrics/" in name}
    assert {"solutions", "verdicts", "examples"} <= curves
    assert not (tmp_path / "store").exists()
