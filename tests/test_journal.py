import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.journal import Journal, JournalError


def test_what_was_put_is_there_for_the_next_to_open(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.put("abc", 0, b"first")
    journal.put("abc", 1, b"second\nline")
    assert journal.get("abc", 1) == b"second\nline"
    journal.close()
    again = Journal(tmp_path)
    assert (again.get("abc", 0), again.get("abc", 1)) == (b"first", b"second\nline")
    assert (again.get("abc", 2), again.get("xyz", 0)) == (None, None)
    assert sorted(again.payloads()) == [b"first", b"second\nline"]


def test_every_writer_has_a_file_of_its_own_and_readers_see_them_all(tmp_path: Path) -> None:
    first, second = Journal(tmp_path), Journal(tmp_path)
    first.put("a", 0, b"1")
    second.put("b", 0, b"2")
    assert len(list(tmp_path.glob("*.journal"))) == 2
    third = Journal(tmp_path)
    assert (third.get("a", 0), third.get("b", 0)) == (b"1", b"2")


def test_records_of_other_processes_are_seen_after_a_refresh(tmp_path: Path) -> None:
    first, second = Journal(tmp_path), Journal(tmp_path)
    first.put("a", 0, b"1")
    assert ("a", 0) not in second
    second.refresh()
    assert second.get("a", 0) == b"1"
    second.put("b", 0, b"2")
    first.put("a", 1, b"3")
    for journal in (first, second):
        journal.refresh()
        assert sorted(journal.payloads()) == [b"1", b"2", b"3"]


def test_a_record_that_is_half_written_is_seen_when_it_is_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.put("a", 0, b"1")
    journal.put("a", 1, b"2" * 100)
    journal.close()
    (path,) = tmp_path.glob("*.journal")
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    reader = Journal(tmp_path)
    assert (reader.get("a", 0), reader.get("a", 1)) == (b"1", None)
    path.write_bytes(whole)
    reader.refresh()
    assert reader.get("a", 1) == b"2" * 100


def test_many_records_are_put_at_once(tmp_path: Path) -> None:
    Journal(tmp_path).put_all(("hash", index, str(index).encode()) for index in range(500))
    again = Journal(tmp_path)
    assert [again.get("hash", index) for index in range(500)] == [
        str(index).encode() for index in range(500)
    ]


def test_opening_without_putting_leaves_no_file(tmp_path: Path) -> None:
    Journal(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_torn_tail_is_ignored_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, cut: int
) -> None:
    journal = Journal(tmp_path)
    journal.put("whole", 0, b"kept")
    journal.put("torn", 0, b"x" * 40)
    journal.close()
    (path,) = tmp_path.glob("*.journal")
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(tmp_path)
    assert again.get("whole", 0) == b"kept"
    assert again.get("torn", 0) is None
    assert "no whole record" in caplog.text


@pytest.mark.parametrize("zeros", [1, 8, 100])
def test_a_tail_of_zeros_is_ignored_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, zeros: int
) -> None:
    """A machine that lost its power can leave the length of a file without the contents."""
    journal = Journal(tmp_path)
    journal.put("whole", 0, b"kept")
    journal.close()
    (path,) = tmp_path.glob("*.journal")
    path.write_bytes(path.read_bytes() + bytes(zeros))
    again = Journal(tmp_path)
    assert len(again) == 1
    assert again.get("whole", 0) == b"kept"
    assert f"the last {zeros} bytes are no whole record" in caplog.text


@settings(max_examples=40, deadline=None)
@given(position=st.integers(min_value=19), flip=st.integers(min_value=1, max_value=255))
def test_a_damaged_record_is_never_returned_and_hides_no_other(
    tmp_path_factory: pytest.TempPathFactory, position: int, flip: int
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    journal = Journal(directory)
    for index in range(3):
        journal.put("hash", index, f"payload {index}".encode())
    journal.close()
    (path,) = directory.glob("*.journal")
    data = bytearray(path.read_bytes())
    data[19 + position % (len(data) - 19)] ^= flip
    path.write_bytes(data)
    again = Journal(directory)
    for index in range(3):
        assert again.get("hash", index) in (None, f"payload {index}".encode())
    assert len(again) == 2


def test_damage_in_the_middle_is_said_and_stepped_over_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Journal(tmp_path)
    writer.put_all(("hash", index, b"x" * 300) for index in range(100, 200))
    (path,) = tmp_path.glob("*.journal")
    data = bytearray(path.read_bytes())
    frame = (len(data) - 19) // 100
    data[19 + 10 * frame + 100] ^= 1  # the tenth's payload
    data[19 + 20 * frame] ^= 1  # the twentieth's length: now 16 MiB
    data[19 + 30 * frame : 19 + 33 * frame] = bytes(3 * frame)
    path.write_bytes(data)
    reader = Journal(tmp_path)
    assert 100 - len(reader) == 1 + 1 + 3
    assert reader.get("hash", 199) == b"x" * 300
    assert caplog.text.count("damaged: ") == 3
    writer.put("later", 0, b"y")
    reader.refresh()
    assert reader.get("later", 0) == b"y"
    assert caplog.text.count("damaged: ") == 3


def test_a_file_that_is_no_journal_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "other.journal").write_bytes(b"something else altogether")
    with pytest.raises(JournalError, match=r"other\.journal is no response journal"):
        Journal(tmp_path)


def test_threads_that_put_at_once_lose_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)

    def put(thread: int) -> None:
        for index in range(25):
            journal.put(f"t{thread}", index, f"{thread}/{index}".encode())

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = Journal(tmp_path)
    assert len(again) == 200
    for number in range(8):
        for index in range(25):
            assert again.get(f"t{number}", index) == f"{number}/{index}".encode()


_WRITER = """
import sys
from pipeline.journal import Journal
journal = Journal(sys.argv[1])
for index in range(10**9):
    journal.put("hash", index, b"x" * 5000)
    print(index, flush=True)
"""


def test_what_a_killed_writer_was_told_is_durable_is_there(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WRITER, str(tmp_path)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    for _ in range(50):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    told = 50 + sum(line.endswith("\n") for line in writer.stdout)
    journal = Journal(tmp_path)
    assert all(journal.get("hash", index) == b"x" * 5000 for index in range(told))
    assert len(journal) in (told, told + 1)


def test_after_a_full_disk_the_next_record_goes_to_a_new_file(tmp_path: Path) -> None:
    """A file size limit stands in for a full disk: the write ends in the middle of a frame."""
    journal = Journal(tmp_path)
    journal.put("before", 0, b"kept")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            journal.put("full", 0, b"x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert journal.get("full", 0) is None
    journal.put("after", 0, b"kept too")
    again = Journal(tmp_path)
    assert (again.get("before", 0), again.get("after", 0)) == (b"kept", b"kept too")
    assert again.get("full", 0) is None


def test_journals_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    Journal(tmp_path).put("a", 0, b"answer")
    (path,) = tmp_path.glob("*.journal")
    assert os.stat(path).st_mode & 0o077 == 0
