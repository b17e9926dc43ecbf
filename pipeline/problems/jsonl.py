"""Our own form of problems, one JSON object per line:

    {"problem_id": "sum-2", "title": "Sum", "statement": "Add two numbers.", "difficulty": "easy",
     "released_on": "2024-05-01", "entry_point": "add", "starter_code": "def add(a, b):",
     "tests": [{"args": [1, 2], "expected": 3, "public": true}]}

`entry_point` is null (or left out) for programs that read stdin, else a function name or
`Solution().method`. Tests are `{"stdin": "...", "expected": "..."}` without an entry point, and
with one they have `args`, `kwargs` or both, and any JSON value as `expected`. `title`,
`starter_code` and `time_limit_s` (CPU seconds of one test) may be left out. Any other field is an
error.

Programs with an entry point may use, as on LeetCode, what is imported for them: the names of
`prelude.LIVECODEBENCH`. Where the starter code annotates a parameter or the result as `TreeNode` or
`ListNode`, its values are written as LeetCode writes them (`[3, null, 5]`), the program gets nodes,
and their classes are defined for it.
"""

import json
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.problems import prelude
from pipeline.problems.node_values import Signature, signature
from pipeline.problems.rows import (
    Defaults,
    FieldError,
    ProblemRow,
    Text,
    check_entry_point,
    read_date,
)
from pipeline.records import Problem
from sandbox.protocol import MAX_CPU_S, TestCase

SOURCE = "jsonl"


class TestRow(BaseModel):
    __test__ = False  # not a pytest class

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    expected: Any
    stdin: str | None = None
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    public: bool = False


class Row(ProblemRow):
    model_config = ConfigDict(extra="forbid")

    problem_id: Text
    statement: Text
    difficulty: Text
    released_on: str
    tests: list[TestRow]
    title: str = ""
    starter_code: str = ""
    entry_point: str | None = None
    time_limit_s: Annotated[float, Field(gt=0, le=MAX_CPU_S, allow_inf_nan=False)] | None = None

    def problem(self, defaults: Defaults) -> Problem:
        called = None
        if self.entry_point is not None:
            check_entry_point("entry_point", self.entry_point)
            called = signature(self.starter_code, self.entry_point)
        return Problem(
            problem_id=self.problem_id,
            source=SOURCE,
            platform=SOURCE,
            title=self.title or self.problem_id,
            statement=self.statement,
            starter_code=self.starter_code,
            entry_point=self.entry_point,
            difficulty=self.difficulty,
            released_on=read_date("released_on", self.released_on),
            tests=tuple(
                _call(f"tests[{index}]", test, called) if called else _stdin(index, test)
                for index, test in enumerate(self.tests)
            ),
            comparator=defaults.comparator,
            time_limit_s=self.time_limit_s or defaults.time_limit_s,
            prelude=_prelude(called),
        )


def _prelude(called: Signature | None) -> str:
    if called is None:
        return ""
    return prelude.LIVECODEBENCH + (prelude.NODES if called.has_nodes else "")


def _stdin(index: int, test: TestRow) -> TestCase:
    if test.stdin is None or test.args is not None or test.kwargs is not None:
        raise FieldError(
            f"tests[{index}]", "without an entry_point a test has `stdin`, no arguments"
        )
    if not isinstance(test.expected, str):
        raise FieldError(f"tests[{index}].expected", "the expected output is text")
    return TestCase(expected=test.expected, stdin=test.stdin, public=test.public)


def _call(field: str, test: TestRow, called: Signature) -> TestCase:
    if test.stdin is not None or (test.args is None and test.kwargs is None):
        raise FieldError(
            field, "with an entry_point a test has `args`, `kwargs` or both, no `stdin`"
        )
    return TestCase(
        expected=_text(f"{field}.expected", test.expected, called.returned),
        args=_text(f"{field}.args", test.args, called.arguments) if test.args is not None else None,
        kwargs=_text(f"{field}.kwargs", test.kwargs, called.keywords)
        if test.kwargs is not None
        else None,
        public=test.public,
    )


def _text(field: str, value: Any, with_nodes: Callable[[Any], Any]) -> str:
    """JSON, or a Python literal where there are nodes in it."""
    try:
        as_json = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except ValueError:
        raise FieldError(field, "NaN and Infinity are no JSON") from None
    try:
        meant = with_nodes(value)
    except ValueError as error:
        raise FieldError(field, str(error)) from None
    return as_json if meant == value else repr(meant)
