"""A policy that answers from a script, and hand-made problems: for tests of what is around it."""

import asyncio
import datetime
from collections.abc import AsyncIterator, Callable, Sequence

from pipeline.object_journal import open_journal
from pipeline.policies.paid_answers import PaidAnswers, Slot
from pipeline.policies.protocol import PolicyRequest, PolicyResponse
from pipeline.records import FinishReason, PolicyVersion, Problem, content_hash
from sandbox.protocol import Comparator, TestCase
from tests.witness import What, Witness

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


class PaidScript:
    """A script whose answers take their time and are paid for: each is in the journal before it
    counts, and one that is there is not asked for again."""

    continues_prefill = True
    calls_at_once = 4

    def __init__(
        self,
        answer: Callable[[PolicyRequest, int], str],
        journal_directory: str,
        seconds: float,
        witness: Witness,
    ) -> None:
        self._answer, self._seconds, self._witness = answer, seconds, witness
        self._paid = PaidAnswers(open_journal(journal_directory))
        self._turn = asyncio.Semaphore(self.calls_at_once)

    async def complete(self, requests: Sequence[PolicyRequest]) -> AsyncIterator[PolicyResponse]:
        calls = [self._call(request, i) for request in requests for i in request.sample_indices]
        for response in asyncio.as_completed(calls):
            yield await response

    async def _call(self, request: PolicyRequest, index: int) -> PolicyResponse:
        slot: Slot = (content_hash(request.key, request.prompt.user, request.prompt.prefill), index)
        async with self._turn:
            await self._paid.refresh()
            paid = self._paid.get(slot, request.key)
            if paid is None:
                self._witness.tell(What.ASKED, f"{slot[0]} {index}")
                await asyncio.sleep(self._seconds)
                text = self._answer(request, index)
                paid = PolicyResponse(request.key, index, text, FinishReason.STOP, 7, len(text))
                await self._paid.put([(slot, paid)])
                self._witness.tell(What.KEPT, f"{slot[0]} {index}")
            return paid

    def close(self) -> None:
        self._paid.close()


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
