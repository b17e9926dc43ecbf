"""LeetCodeDataset (arXiv 2504.14655): call-based problems by release date.

Its solutions assume the imports and node classes of `prompt`: the problem's prelude.
"""

from pipeline.problems.asserts import NoCheck, assert_tests
from pipeline.problems.rows import (
    Defaults,
    FieldError,
    ProblemRow,
    Text,
    check_entry_point,
    read_date,
)
from pipeline.records import Problem

SOURCE = "leetcode"


class Row(ProblemRow):
    task_id: Text
    difficulty: Text
    problem_description: Text
    starter_code: str
    estimated_date: str
    prompt: str
    completion: str
    entry_point: str
    test: str

    def problem(self, defaults: Defaults) -> Problem:
        check_entry_point("entry_point", self.entry_point)
        try:
            tests = assert_tests(self.test, self.entry_point)
        except NoCheck as error:
            raise FieldError("test", str(error)) from None
        return Problem(
            problem_id=self.task_id,
            source=SOURCE,
            platform="leetcode",
            title=self.task_id,
            statement=self.problem_description,
            starter_code=self.starter_code,
            entry_point=self.entry_point,
            difficulty=self.difficulty.lower(),
            released_on=read_date("estimated_date", self.estimated_date),
            tests=tests,
            comparator=defaults.comparator,
            time_limit_s=defaults.time_limit_s,
            prelude=self.prompt,
        )

    def canonical_program(self) -> str:
        return self.completion
