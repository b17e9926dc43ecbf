"""HumanEval (arXiv 2107.03374): functions to be written from their docstrings.

The statement is the prompt, a function without its body. What stands above that function (imports,
helpers that its tests or its body may call) is the problem's prelude.
"""

import ast
import datetime

from pipeline.functions import parse
from pipeline.problems.asserts import NoCheck, assert_tests
from pipeline.problems.rows import Defaults, FieldError, ProblemRow, Text, check_entry_point
from pipeline.records import Problem

SOURCE = "humaneval"
_RELEASED_ON = datetime.date(2021, 7, 7)  # all problems at once, with the paper


class Row(ProblemRow):
    task_id: Text
    prompt: Text
    canonical_solution: str
    test: str
    entry_point: str

    def problem(self, defaults: Defaults) -> Problem:
        check_entry_point("entry_point", self.entry_point)
        try:
            tests = assert_tests(self.test, self.entry_point)
        except NoCheck as error:
            raise FieldError("test", str(error)) from None
        return Problem(
            problem_id=self.task_id,
            source=SOURCE,
            platform="humaneval",
            title=self.entry_point,
            statement=self.prompt,
            starter_code="",
            entry_point=self.entry_point,
            difficulty="unrated",
            released_on=_RELEASED_ON,
            tests=tests,
            comparator=defaults.comparator,
            time_limit_s=defaults.time_limit_s,
            prelude=self._prelude(),
        )

    def canonical_program(self) -> str:
        return self.prompt + self.canonical_solution

    def _prelude(self) -> str:
        tree = parse(self.prompt)
        for node in tree.body if tree else []:
            if isinstance(node, ast.FunctionDef) and node.name == self.entry_point:
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                return "".join(f"{line}\n" for line in self.prompt.split("\n")[: first - 1])
        raise FieldError("prompt", f"does not begin a function {self.entry_point!r}")
