"""The problems of LiveCodeBench's recorded candidates (`eval_all` form): statements without tests.

Good for looking at and for estimating costs. Nothing can be judged by them, so no run takes them:
the form is not among those of a config.
"""

from pipeline.problems.rows import Defaults, ProblemRow, Text, read_date
from pipeline.records import Problem

SOURCE = "livecodebench"


class Row(ProblemRow):
    has_tests = False

    question_title: str
    question_content: Text
    platform: str
    question_id: Text
    contest_date: str
    starter_code: str
    difficulty: Text
    output_list: list[str]

    def problem(self, defaults: Defaults) -> Problem:
        return Problem(
            problem_id=self.question_id,
            source=SOURCE,
            platform=self.platform,
            title=self.question_title,
            statement=self.question_content,
            starter_code=self.starter_code,
            # The record does not name the method; any name makes the call-based prompt.
            entry_point="Solution().method" if "class Solution" in self.starter_code else None,
            difficulty=self.difficulty,
            released_on=read_date("contest_date", self.contest_date),
            tests=(),
            comparator=defaults.comparator,
            time_limit_s=defaults.time_limit_s,
        )
