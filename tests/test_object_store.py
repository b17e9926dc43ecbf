"""The store behind an S3-compatible server, over a real connection on the loopback interface."""

import os
from collections.abc import Iterator

import boto3  # pyright: ignore[reportMissingTypeStubs]
import pytest
from moto.server import ThreadedMotoServer

from pipeline.files import delete, exists, listing, read_bytes, write_atomically
from pipeline.lock import StageLocked, stage_lock
from pipeline.part_file import DamagedPart
from pipeline.records import StepLabel
from pipeline.schemas import STEP_LABEL
from pipeline.store import StageStore
from pipeline.survey import missing_parts

ROWS = [StepLabel(f"step-{i:03d}", passed=i % 5, trials=4) for i in range(50)]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
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
