"""LiveCodeBench's private tests are pickles, and a pickle is a program: none of it ever runs."""

import base64
import json
import pickle
import pickletools
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import FileProblems
from pipeline.problems import BadRows, load_problems
from pipeline.problems.livecodebench import unpack
from pipeline.problems.rows import FieldError

MARKER = "it-ran"
TEXT = b"X\x04\x00\x00\x00text"
TOUCH = b"cpathlib\nPath\n(S'" + MARKER.encode() + b"'\ntR"  # pathlib.Path("it-ran")

# Each begins as a string and ends as one, so that only the opcodes between can give it away.
HOSTILE = {
    "REDUCE": b"cos\nsystem\n(S'touch " + MARKER.encode() + b"'\ntR.",
    "GLOBAL": TEXT + b"0cbuiltins\nexec\n.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x06touch \x85R.",
    "INST": b"(S'touch " + MARKER.encode() + b"'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'touch " + MARKER.encode() + b"'\no.",
    "NEWOBJ": TOUCH + b")\x81.",
    "NEWOBJ_EX": b"\x80\x04" + TOUCH + b")}\x92.",
    "BUILD": TOUCH + b"}S'x'\nS'y'\nsb.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT2": b"\x80\x02\x83\x01\x00.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "PERSID": b"P" + MARKER.encode() + b"\n.",
    "BINPERSID": TEXT + b"Q.",
    "MEMO": TEXT + b"q\x000" + b"h\x00" * 9 + b".",
    "DUP": TEXT + b"2" * 9 + b"t.",
    "BYTES": b"\x80\x03C\x04text.",
    "BYTEARRAY": b"\x80\x05\x96\x04\x00\x00\x00\x00\x00\x00\x00text.",
    "NEXT_BUFFER": b"\x80\x05\x97.",
    "LIST": b"](" + TEXT + b"e.",
    "DICT": b"}" + TEXT + b"Ns.",
    "SET": b"\x80\x04\x8f.",
    "POP": TEXT + b"0" + TEXT + b".",
    "PYTHON 2 STRING": b"S'text'\n.",
    "LONG": b"\x80\x02\x8a\x7f" + b"\xff" * 127 + b".",
    "TWO STRINGS": TEXT + TEXT + b".",
    "NO STRING": b"\x80\x04.",
    "NO END": TEXT,
    "LENGTH BEYOND THE END": b"\x80\x04\x8d" + b"\xff" * 8 + b"text.",
    "UNKNOWN OPCODE": b"\xff.",
    "FRAMES WITHOUT END": TEXT + b"\x95" + b"\x00" * 8 + (b"\x95" + b"\x00" * 8) * 20 + b".",
    "EMPTY": b"",
}


def packed(pickled: bytes) -> str:
    return base64.b64encode(zlib.compress(pickled)).decode()


def row(private: str) -> str:
    return json.dumps(
        {
            "question_title": "Double",
            "question_content": "Print the double.",
            "platform": "atcoder",
            "question_id": "abc1_a",
            "contest_date": "2024-08-21T00:00:00",
            "starter_code": "",
            "difficulty": "easy",
            "public_test_cases": '[{"input": "1", "output": "2", "testtype": "stdin"}]',
            "private_test_cases": private,
            "metadata": "{}",
        }
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_a_pickle_that_does_more_than_hold_a_string_is_refused_and_nothing_of_it_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def loads(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was loaded")

    for loader in ("load", "loads", "Unpickler", "_Unpickler", "_load", "_loads"):
        monkeypatch.setattr(pickle, loader, loads)
    path = tmp_path / "problems.jsonl"
    path.write_text(row(packed(HOSTILE[name])) + "\n")
    with pytest.raises(BadRows) as refused:
        load_problems(FileProblems(kind="livecodebench", paths=(str(path),)))
    (bad,) = refused.value.rows
    assert (bad.file, bad.row, bad.field) == (str(path), 1, "private_test_cases")
    assert not (tmp_path / MARKER).exists()


def test_every_opcode_that_could_call_import_or_build_is_among_those_refused() -> None:
    """No opcode is allowed but those that hold the string, frame it or name it in the memo."""
    allowed: set[str] = set()
    for opcode in pickletools.opcodes:
        argument = _ARGUMENTS.get(opcode.arg.name if opcode.arg else "")
        if argument is None:
            continue
        try:
            unpack(packed(TEXT + opcode.code.encode("latin-1") + argument + b"."))
        except FieldError as error:
            if "2 strings" not in error.reason:
                continue
        allowed.add(opcode.name)
    assert allowed == {
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"),
    }


# A well-formed argument for every kind of argument that an opcode may have.
_ARGUMENTS = {
    "": b"",
    "uint1": b"\x01",
    "uint2": b"\x01\x00",
    "uint4": b"\x01\x00\x00\x00",
    "int4": b"\x01\x00\x00\x00",
    "uint8": b"\x00" * 8,
    "float8": b"\x00" * 8,
    "stringnl": b"'x'\n",
    "stringnl_noescape": b"x\n",
    "stringnl_noescape_pair": b"x\ny\n",
    "unicodestringnl": b"x\n",
    "unicodestring1": b"\x01x",
    "unicodestring4": b"\x01\x00\x00\x00x",
    "unicodestring8": b"\x01" + b"\x00" * 7 + b"x",
    "string1": b"\x01x",
    "string4": b"\x01\x00\x00\x00x",
    "bytes1": b"\x01x",
    "bytes4": b"\x01\x00\x00\x00x",
    "bytes8": b"\x01" + b"\x00" * 7 + b"x",
    "bytearray8": b"\x01" + b"\x00" * 7 + b"x",
    "decimalnl_short": b"1\n",
    "decimalnl_long": b"1L\n",
    "floatnl": b"1.0\n",
    "long1": b"\x01\x01",
    "long4": b"\x01\x00\x00\x00\x01",
}


def test_an_argument_is_known_for_every_opcode() -> None:
    assert {code.arg.name for code in pickletools.opcodes if code.arg} <= _ARGUMENTS.keys()


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_string_or_refused(pickled: bytes) -> None:
    with suppress(FieldError):
        assert isinstance(unpack(packed(pickled)), str)


@given(st.text(st.characters(codec=None, exclude_categories=())), st.integers(0, 5))
@settings(deadline=None)
def test_any_string_is_read_back_from_any_protocol(text: str, protocol: int) -> None:
    assert unpack(packed(pickle.dumps(text, protocol=protocol))) == text


def test_a_bomb_is_refused_at_the_limit_and_not_inflated_further(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit = 1 << 20
    monkeypatch.setattr("pipeline.problems.livecodebench._MAX_BYTES", limit)
    inflated: list[int] = []
    real = zlib.decompressobj

    class Watched:
        def __init__(self) -> None:
            self._real = real()

        def decompress(self, data: bytes, at_most: int) -> bytes:
            out = self._real.decompress(data, at_most)
            inflated.append(len(out))
            return out

        @property
        def eof(self) -> bool:
            return self._real.eof

    monkeypatch.setattr("pipeline.problems.livecodebench.zlib.decompressobj", Watched)
    with pytest.raises(FieldError, match=f"larger than {limit} bytes"):
        unpack(packed(b"x" * (64 << 20)))
    assert inflated == [limit]


@pytest.mark.parametrize(
    ("tests", "field"),
    [
        ('"\\ud800"', "private_test_cases"),
        ('[{"input": "\\ud800", "output": "", "testtype": "stdin"}]', "private_test_cases"),
        ("[" * 100_000, "private_test_cases"),
        ("{}", "private_test_cases"),
        ('[{"input": 1, "output": "", "testtype": "stdin"}]', "private_test_cases[0][input]"),
    ],
)
def test_a_string_that_holds_no_tests_is_named_by_its_field(
    tests: str, field: str, tmp_path: Path
) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text(row(packed(pickle.dumps(tests))) + "\n")
    with pytest.raises(BadRows) as refused:
        load_problems(FileProblems(kind="livecodebench", paths=(str(path),)))
    assert [bad.field for bad in refused.value.rows] == [field]


def test_arguments_nested_beyond_the_parser_are_a_bad_row(tmp_path: Path) -> None:
    deep = [{"input": "[" * 100_000, "output": "1", "testtype": "functional"}]
    call = json.loads(row("[]")) | {
        "public_test_cases": json.dumps(deep),
        "metadata": '{"func_name": "double"}',
    }
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps(call) + "\n")
    with pytest.raises(BadRows, match="nested too deeply"):
        load_problems(FileProblems(kind="livecodebench", paths=(str(path),)))
