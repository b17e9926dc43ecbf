"""LiveCodeBench's problem files (arXiv 2403.07974): stdin and call-based problems by contest date.

Private tests are JSON text, or base64 of zlib of a pickle of JSON text. A pickle is a program, so
it is never run: its opcodes are read, and one that does more than hold a single string is refused.
"""

import base64
import binascii
import json
import pickletools
import sys
import zlib
from typing import Literal, NoReturn

from pydantic import BaseModel, TypeAdapter, ValidationError

from pipeline.problems import prelude
from pipeline.problems.rows import (
    Defaults,
    FieldError,
    ProblemRow,
    Text,
    check_entry_point,
    read_date,
)
from pipeline.records import Problem
from sandbox.protocol import TestCase

SOURCE = "livecodebench"
_MAX_BYTES = 1 << 30  # of decompressed private tests: the largest real ones are a tenth of it
_MAX_OPCODES = 16  # of a pickle that holds one string; protocols 0 to 5 take 3 to 5
_MOST_DIGITS = sys.int_info.default_max_str_digits  # of an integer: Python reads no longer ones
_STRING_OPCODES = {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_FRAMING_OPCODES = {"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"}


class RecordedTest(BaseModel):
    input: str
    output: str
    testtype: Literal["stdin", "functional"]


class Metadata(BaseModel):
    func_name: str | None = None


_TESTS = TypeAdapter(list[RecordedTest])


class Row(ProblemRow):
    question_title: str
    question_content: Text
    platform: str
    question_id: Text
    contest_date: str
    starter_code: str
    difficulty: Text
    public_test_cases: str
    private_test_cases: str
    metadata: str

    def problem(self, defaults: Defaults) -> Problem:
        entry_point = self._entry_point()
        private = self.private_test_cases
        if not private.lstrip().startswith("["):
            private = unpack(private)
        return Problem(
            problem_id=self.question_id,
            source=SOURCE,
            platform=self.platform,
            title=self.question_title,
            statement=self.question_content,
            starter_code=self.starter_code,
            entry_point=entry_point,
            difficulty=self.difficulty,
            released_on=read_date("contest_date", self.contest_date),
            tests=(
                *_tests("public_test_cases", self.public_test_cases, entry_point, public=True),
                *_tests("private_test_cases", private, entry_point, public=False),
            ),
            comparator=defaults.comparator,
            time_limit_s=defaults.time_limit_s,
            prelude=prelude.LIVECODEBENCH,
        )

    def _entry_point(self) -> str | None:
        try:
            name = Metadata.model_validate_json(self.metadata or "{}").func_name
        except ValidationError as error:
            raise FieldError("metadata", error.errors()[0]["msg"]) from None
        if name is None:
            return None
        is_method = "class Solution" in self.starter_code
        return check_entry_point("metadata.func_name", f"Solution().{name}" if is_method else name)


def unpack(text: str) -> str:
    """The one string in base64(zlib(pickle)). Nothing of the pickle is run. Raises FieldError."""
    field = "private_test_cases"
    try:
        inflate = zlib.decompressobj()
        pickled = inflate.decompress(base64.b64decode(text, validate=True), _MAX_BYTES)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise FieldError(field, f"neither JSON nor base64 of zlib data: {error}") from None
    if not inflate.eof:
        raise FieldError(field, f"cut off, or larger than {_MAX_BYTES} bytes when decompressed")
    strings: list[str] = []
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(pickled), start=1):
            if count > _MAX_OPCODES:
                raise FieldError(field, f"refused: a pickle of more than {_MAX_OPCODES} opcodes")
            if opcode.name in _STRING_OPCODES:
                strings.append(str(argument))
            elif opcode.name not in _FRAMING_OPCODES:
                raise FieldError(
                    field, f"refused: a pickle with {opcode.name} is more than a string"
                )
    except (ValueError, OverflowError) as error:
        raise FieldError(field, f"not a pickle: {error}") from None
    if len(strings) != 1:
        raise FieldError(field, f"refused: a pickle of {len(strings)} strings instead of one")
    return strings[0]


def _tests(field: str, text: str, entry_point: str | None, *, public: bool) -> list[TestCase]:
    try:
        recorded = _TESTS.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"[{part}]" for part in first["loc"])
        raise FieldError(f"{field}{place}", first["msg"]) from None
    tests: list[TestCase] = []
    for index, test in enumerate(recorded):
        if (test.testtype == "functional") != (entry_point is not None):
            raise FieldError(
                f"{field}[{index}].testtype",
                f"{test.testtype!r}, but metadata.func_name is {entry_point!r}",
            )
        if entry_point is None:
            tests.append(TestCase(expected=test.output, stdin=test.input, public=public))
            continue
        arguments = [
            _value(f"{field}[{index}].input", line) for line in test.input.strip("\n").split("\n")
        ]
        tests.append(
            TestCase(
                expected=_value(f"{field}[{index}].output", test.output),
                args=f"[{', '.join(arguments)}]",
                public=public,
            )
        )
    return tests


def _value(field: str, text: str) -> str:
    """The text again, once it is known to be one JSON value that the judge can read."""
    try:
        _JSON.decode(text)
    except RecursionError:
        raise FieldError(field, "no JSON value: nested too deeply") from None
    except ValueError as error:
        raise FieldError(field, f"no JSON value that can be judged: {error}") from None
    return text.strip()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _integer(digits: str) -> int:
    if len(digits.removeprefix("-")) > _MOST_DIGITS:
        raise ValueError(f"an integer of {len(digits):,} digits, of {_MOST_DIGITS:,} at most")
    return int(digits)


_JSON = json.JSONDecoder(parse_constant=_refuse, parse_int=_integer)
