"""The store: parts that are whole or absent, and a damaged one is known for what it is."""

import dataclasses
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline import survey
from pipeline.files import STALE_PARTIAL_S, FileState, StoreError, listing, read_bytes
from pipeline.part_file import DamagedPart, OtherVersion, PartSummary
from pipeline.records import LabelEstimate, ProgramVerdict, StepLabel
from pipeline.schemas import LABEL_ESTIMATE, PROGRAM_VERDICT, STEP_LABEL
from pipeline.store import StageStore, fingerprint
from pipeline.survey import Survey, missing_parts
from sandbox.protocol import Comparator, Isolation, Status, Verdict

ROWS = [StepLabel(f"step-{i:03d}", passed=i % 5, trials=4) for i in range(50)]


@pytest.fixture
def stage(tmp_path: Path) -> StageStore[StepLabel]:
    return StageStore(str(tmp_path / "store"), "labels", "f00d", STEP_LABEL)


def test_rows_come_back_sorted_by_key_whatever_their_order(stage: StageStore[StepLabel]) -> None:
    stage.write(0, reversed(ROWS))
    assert stage.read(0) == ROWS


def test_the_same_rows_give_the_same_bytes(stage: StageStore[StepLabel]) -> None:
    stage.write(0, ROWS)
    stage.write(1, reversed(ROWS))
    assert Path(stage.path(0)).read_bytes() == Path(stage.path(1)).read_bytes()


def test_a_part_opens_with_plain_pyarrow_and_pandas(stage: StageStore[StepLabel]) -> None:
    stage.write(0, ROWS)
    with pa.memory_map(stage.path(0)) as source:
        table = pa.ipc.open_file(source).read_all()
    assert table.to_pandas()["passed"].sum() == sum(row.passed for row in ROWS)


def test_an_empty_part_is_a_part(stage: StageStore[StepLabel]) -> None:
    stage.write(0, [])
    assert stage.read(0) == []
    assert missing_parts(stage, [0]) == ([], [])


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_truncated_part_is_damaged_and_is_made_again(
    stage: StageStore[StepLabel], kept: int
) -> None:
    stage.write(0, ROWS)
    path = Path(stage.path(0))
    path.write_bytes(path.read_bytes()[:kept])
    todo, damaged = missing_parts(stage, [0])
    assert todo == [0]
    assert str(path) in damaged[0]
    with pytest.raises(DamagedPart, match="part-00000"):
        stage.read(0)


def test_no_flipped_byte_passes_for_a_part_nor_escapes_as_another_error(
    stage: StageStore[StepLabel],
) -> None:
    stage.write(0, ROWS)
    path = Path(stage.path(0))
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            state = stage.inspect(0)
        except OtherVersion:  # the flip hit the name of the record
            continue
        if isinstance(state, PartSummary):  # it hit padding: the rows are whole
            assert stage.read(0) == ROWS


def test_rows_that_do_not_match_the_checksum_are_damaged(stage: StageStore[StepLabel]) -> None:
    stage.write(0, ROWS)
    forged = STEP_LABEL.to_table([dataclasses.replace(row, passed=4) for row in ROWS])
    with pa.OSFile(stage.path(0)) as source:
        footer = pa.ipc.open_file(source).metadata
    with (
        pa.OSFile(stage.path(0), "wb") as sink,
        pa.ipc.new_file(sink, forged.schema, metadata=footer) as writer,
    ):
        writer.write_table(forged)
    assert isinstance(stage.inspect(0), DamagedPart)


def test_another_schema_version_is_refused_by_name(stage: StageStore[StepLabel]) -> None:
    newer = dataclasses.replace(stage, schema=dataclasses.replace(STEP_LABEL, version=99))
    newer.write(0, ROWS)
    with pytest.raises(OtherVersion, match=r"version 99.*reads StepLabel version 1"):
        stage.read(0)


def test_another_record_is_refused(stage: StageStore[StepLabel]) -> None:
    other = StageStore(stage.root, stage.name, stage.fingerprint, LABEL_ESTIMATE)
    other.write(0, [LabelEstimate("s", 0.5, 0.7, 3)])
    with pytest.raises(OtherVersion, match="LabelEstimate"):
        stage.read(0)


def test_only_missing_and_damaged_parts_are_to_be_made(stage: StageStore[StepLabel]) -> None:
    for index in (0, 1, 3):
        stage.write(index, ROWS)
    Path(stage.path(1)).write_bytes(b"junk")
    assert missing_parts(stage, range(5))[0] == [1, 2, 4]
    assert stage.done() == [0, 1, 3]


def test_a_part_is_stale_when_its_input_came_out_different(stage: StageStore[StepLabel]) -> None:
    output = StageStore(stage.root, "estimates", "beef", LABEL_ESTIMATE, inputs=(stage,))
    stage.write(0, ROWS)
    output.write(0, [LabelEstimate("s", 0.5, 0.7, 3)])
    stage.write(0, ROWS)
    assert missing_parts(output, [0]) == ([], [])
    stage.write(0, ROWS[:-1])
    todo, reasons = missing_parts(output, [0])
    assert todo == [0]
    assert "a part of labels, has changed since" in reasons[0]


def test_measured_columns_do_not_make_what_depends_on_them_stale(tmp_path: Path) -> None:
    def verdict(cpu_s: float) -> ProgramVerdict:
        verdict = Verdict(
            Status.AC, 1, 1, 1, None, "", cpu_s, cpu_s, 9.0, Isolation.DOCKER, Comparator.LCB
        )
        return ProgramVerdict("program", "problem", verdict)

    verdicts = StageStore(str(tmp_path), "verdicts", "f00d", PROGRAM_VERDICT)
    output = StageStore(str(tmp_path), "labels", "beef", STEP_LABEL, inputs=(verdicts,))
    verdicts.write(0, [verdict(0.1)])
    output.write(0, ROWS)
    verdicts.write(0, [verdict(0.2)])
    assert missing_parts(output, [0]) == ([], [])


def test_a_finished_part_says_how_many_rows_it_has(stage: StageStore[StepLabel]) -> None:
    written = stage.write(0, ROWS)
    assert stage.inspect(0) == written
    assert isinstance(written, PartSummary)
    assert written.rows == 50
    assert stage.count_rows(0) == 50


def test_a_full_disk_is_one_clear_error_and_leaves_no_half_part(tmp_path: Path) -> None:
    """A file size limit stops the write in its middle, as a full disk does."""
    script = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
from pipeline.records import StepLabel
from pipeline.schemas import STEP_LABEL
from pipeline import survey
from pipeline.files import STALE_PARTIAL_S, StoreError
from pipeline.store import StageStore
stage = StageStore({str(tmp_path)!r}, "labels", "f00d", STEP_LABEL)
try:
    stage.write(0, [StepLabel(str(i), 1, 4) for i in range(1000)])
except StoreError as error:
    print(error)
"""
    assert hasattr(resource, "RLIMIT_FSIZE")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert "part-00000.arrow: cannot be written" in done.stdout
    assert os.listdir(tmp_path / "labels" / "f00d") == []


def test_an_unwritable_root_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where a folder should be")
    stage = StageStore(str(tmp_path / "store"), "labels", "f00d", STEP_LABEL)
    with pytest.raises(StoreError, match="cannot be written"):
        stage.write(0, ROWS)


def test_a_store_may_be_any_fsspec_uri() -> None:
    stage = StageStore("memory://store", "labels", "f00d", STEP_LABEL)
    stage.write(0, ROWS)
    assert stage.read(0) == ROWS
    assert stage.done() == [0]


def test_a_part_that_was_replaced_is_met_where_the_client_tells_no_times() -> None:
    stage = StageStore("memory://replaced", "labels", "f00d", STEP_LABEL)
    stage.write(0, [StepLabel("s1", passed=1, trials=4)])
    size = listing(stage.directory)["part-00000.arrow"].size
    missing_parts(stage, [0])  # leaves a survey
    stage.write(0, [StepLabel("s2", passed=3, trials=4)])
    assert listing(stage.directory)["part-00000.arrow"] == FileState(size, modified_ns=0)
    assert Survey(stage).digests([0]) == {0: stage.digest(0)}


class Remembering(MemoryFileSystem):
    """A client that keeps its listings, as those of object stores do."""

    protocol = "remembering"

    def find(self, path: str, *args: Any, **kwargs: Any) -> Any:
        if path in self.dircache:
            return self.dircache[path]
        self.dircache[path] = found = super().find(path, *args, **kwargs)
        return found


class WithOptionsOfItsOwn(MemoryFileSystem):
    protocol = "strict"

    def __init__(self) -> None:
        super().__init__()


@pytest.mark.parametrize("client", [Remembering, WithOptionsOfItsOwn])
def test_a_part_that_another_process_wrote_is_in_the_next_listing(
    client: type[MemoryFileSystem],
) -> None:
    fsspec.register_implementation(str(client.protocol), client, clobber=True)
    stage = StageStore(
        f"{client.protocol}://{client.protocol}-bucket", "labels", "f00d", STEP_LABEL
    )
    stage.write(0, ROWS)
    assert stage.done() == [0]
    written = read_bytes(stage.path(0))
    other = client(skip_instance_cache=True)  # pyright: ignore[reportCallIssue]
    other.pipe_file(stage.path(1).partition("://")[2], written)
    assert stage.done() == [0, 1]


def test_a_fingerprint_depends_on_every_value_and_not_on_their_order() -> None:
    assert fingerprint(a=1, b=[2]) == fingerprint(b=[2], a=1)
    assert fingerprint(a=1, b=[2]) != fingerprint(a=1, b=[3])


def test_what_killed_writers_left_is_removed_when_nobody_can_be_writing_it(
    stage: StageStore[StepLabel],
) -> None:
    stage.write(0, ROWS)
    directory = Path(stage.directory)
    for name, age_s in ((".old.partial", STALE_PARTIAL_S + 60), (".young.partial", 60)):
        (directory / name).write_bytes(b"half a part")
        long_ago = time.time() - age_s
        os.utime(directory / name, (long_ago, long_ago))
    assert stage.done() == [0]
    assert {path.name for path in directory.iterdir()} == {"part-00000.arrow", ".young.partial"}


def test_a_part_that_was_checked_is_not_read_again_until_it_is_touched(
    stage: StageStore[StepLabel], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    check = survey.check_part
    monkeypatch.setattr(
        survey, "check_part", lambda path, schema: read.append(path) or check(path, schema)
    )
    for index in (0, 1):
        stage.write(index, ROWS)
    assert missing_parts(stage, [0, 1]) == ([], [])
    assert missing_parts(stage, [0, 1]) == ([], [])
    assert read == [stage.path(0), stage.path(1)]
    whole = Path(stage.path(1)).read_bytes()
    Path(stage.path(1)).write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    assert missing_parts(stage, [0, 1])[0] == [1]
    assert read[2:] == [stage.path(1)]


def test_a_damaged_survey_is_no_obstacle(stage: StageStore[StepLabel]) -> None:
    stage.write(0, ROWS)
    missing_parts(stage, [0])
    Path(stage.directory, "survey.json").write_text('{"format": 1, "parts": {"0": 7}}')
    assert missing_parts(stage, [0]) == ([], [])
