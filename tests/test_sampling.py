"""Problems to solutions."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from pipeline.config import PromptStyle
from pipeline.policies.protocol import PolicyError, PolicyRequest, PolicyResponse
from pipeline.records import FinishReason, Solution
from pipeline.sampling import sample_solutions, solution_requests
from tests.scripted import VERSION, Scripted, problem

COF, BARE = PromptStyle.CHAIN_OF_FUNCTIONS, PromptStyle.BARE


def sample(policy, problems, samples=2, style=COF, version=VERSION) -> list[Solution]:
    return asyncio.run(sample_solutions(policy, version, problems, samples, style))


def test_every_problem_is_asked_once_for_all_its_samples():
    (request,) = solution_requests([problem("a")], 3, COF)
    assert request.key == "a"
    assert request.sample_indices == (0, 1, 2)


def test_solutions_come_in_the_order_of_problems_and_samples_however_they_finish():
    policy = Scripted(lambda request, index: f"```python\nprint({index})\n```")
    solutions = sample(policy, [problem("b"), problem("a")])
    assert [(s.problem_id, s.sample_index) for s in solutions] == [
        *(("b", 0), ("b", 1)),
        *(("a", 0), ("a", 1)),
    ]
    assert [s.code for s in solutions] == ["print(0)\n", "print(1)\n"] * 2
    assert all(s.policy == VERSION and s.prompt_tokens == 7 for s in solutions)


def test_an_answer_without_a_program_is_a_solution_without_code():
    (solution,) = sample(Scripted(lambda *_: "Sorry."), [problem()], 1)
    assert (solution.text, solution.code) == ("Sorry.", "")


def test_the_bare_style_takes_the_answer_as_the_program():
    (solution,) = sample(Scripted(lambda *_: "not python ("), [problem()], 1, BARE)
    assert solution.code == "not python ("


def test_a_solution_id_repeats_for_the_same_answer_and_tells_all_others_apart():
    policy = Scripted(lambda *_: "print(1)\n")
    problems = [problem("a"), problem("b")]
    ids = [s.solution_id for s in sample(policy, problems)]
    assert len(set(ids)) == 4
    assert [s.solution_id for s in sample(policy, problems)] == ids
    assert not set(ids) & {
        s.solution_id for s in sample(Scripted(lambda *_: "print(2)\n"), problems)
    }


def test_half_a_surrogate_pair_is_replaced_and_a_whole_one_joined():
    (solution,) = sample(Scripted(lambda *_: "s = '\ud83d\ude00 \ud800'"), [problem()], 1, BARE)
    assert solution.text == "s = '\U0001f600 \ufffd'"


class Unfaithful:
    """Answers with the given (key, sample index) pairs, asked for or not."""

    continues_prefill = False

    def __init__(self, *pairs: tuple[str, int]) -> None:
        self.pairs = pairs

    async def complete(self, requests: Sequence[PolicyRequest]) -> AsyncIterator[PolicyResponse]:
        for key, index in self.pairs:
            yield PolicyResponse(key, index, "x = 1", FinishReason.STOP, 1, 1)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("pairs", "complaint"),
    [
        ([("p", 0)], "left out 1 of 2"),
        ([("p", 0), ("p", 0), ("p", 1)], "twice"),
        ([("p", 0), ("p", 1), ("q", 0)], "unasked"),
    ],
)
def test_a_policy_that_does_not_answer_what_was_asked_is_an_error(pairs, complaint):
    with pytest.raises(PolicyError, match=complaint):
        sample(Unfaithful(*pairs), [problem()])
