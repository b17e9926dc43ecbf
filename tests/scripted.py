"""A policy that answers from a script, and hand-made problems: for tests of what is around it."""

import datetime
from collections.abc import AsyncIterator, Callable, Sequence

from pipeline.policies.protocol import PolicyRequest, PolicyResponse
from pipeline.records import FinishReason, PolicyVersion, Problem
from sandbox.protocol import Comparator, TestCase

VERSION = PolicyVersion(model="scripted", parameters="{}", prompt_version="1")


class Scripted:
    """Answers each sample with `answer(request, sample_index)`, last asked first."""

    def __init__(
        self,
        answer: Callable[[PolicyRequest, int], str],
        *,
        continues_prefill: bool = False,
        finish_reason: FinishReason = FinishReason.STOP,
    ) -> None:
        self.answer = answer
        self.continues_prefill = continues_prefill
        self.finish_reason = finish_reason
        self.requests: list[PolicyRequest] = []

    async def complete(self, requests: Sequence[PolicyRequest]) -> AsyncIterator[PolicyResponse]:
        self.requests.extend(requests)
        for request in reversed(requests):
            for index in reversed(request.sample_indices):
                text = self.answer(request, index)
                yield PolicyResponse(request.key, index, text, self.finish_reason, 7, len(text))

    def close(self) -> None:
        pass


def problem(problem_id: str = "p", **changes: object) -> Problem:
    fields: dict = {
        "problem_id": problem_id,
        "source": "tests",
        "platform": "tests",
        "title": "Double",
        "statement": "Read a number and print its double.",
        "starter_code": "",
        "entry_point": None,
        "difficulty": "easy",
        "released_on": datetime.date(2024, 1, 1),
        "tests": (TestCase(expected="2\n", stdin="1\n"),),
        "comparator": Comparator.LCB,
        "time_limit_s": 6.0,
    }
    return Problem(**(fields | changes))
