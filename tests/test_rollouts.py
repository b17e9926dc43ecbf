"""Solutions to step labels."""

import asyncio

import pytest

from pipeline.config import PromptStyle
from pipeline.functions import split_steps
from pipeline.policies.protocol import PolicyResponse
from pipeline.records import Completion, FinishReason, Rollout, Solution, StepLabel
from pipeline.rollouts import (
    complete_prefixes,
    count_labels,
    intermediate_steps,
    with_own_endings,
)
from pipeline.sampling import to_solution
from sandbox.protocol import Status
from tests.scripted import VERSION, Scripted, problem

COF, BARE = PromptStyle.CHAIN_OF_FUNCTIONS, PromptStyle.BARE
FIRST, SECOND, THIRD = "def a(): b()\n", "\ndef b(): c()\n", "\ndef c(): pass\na()\n"


def solution(code: str, index: int = 0) -> Solution:
    response = PolicyResponse("p", index, code, FinishReason.STOP, 1, 1)
    return to_solution(problem(), VERSION, response, BARE)


def complete(policy, *solutions: Solution, style=COF, **which) -> list[Completion]:
    indices, decided = which.get("indices", range(2)), which.get("decided", ())
    return asyncio.run(
        complete_prefixes(policy, VERSION, [problem()], solutions, indices, style, decided)
    )


def test_a_last_step_needs_no_rollouts():
    steps = intermediate_steps(solution(FIRST + SECOND + THIRD))
    assert [step.name for step in steps] == ["a", "b"]
    assert intermediate_steps(solution(FIRST)) == []
    assert intermediate_steps(solution(" ")) == []


def test_every_intermediate_prefix_is_completed_in_order():
    policy = Scripted(lambda request, index: f"# {index}\n", continues_prefill=True)
    whole = solution(FIRST + SECOND + THIRD)
    completions = complete(policy, whole, style=BARE)
    assert [request.prompt.prefill for request in policy.requests] == [FIRST, FIRST + SECOND]
    assert [(c.step_id, c.rollout_index) for c in completions] == [
        (step.step_id, index) for step in intermediate_steps(whole) for index in (0, 1)
    ]
    assert [c.code for c in completions] == [
        *(FIRST + "# 0\n", FIRST + "# 1\n"),
        *(FIRST + SECOND + "# 0\n", FIRST + SECOND + "# 1\n"),
    ]


def test_a_later_wave_asks_for_further_completions_of_the_undecided_steps_alone():
    policy = Scripted(lambda request, index: "", continues_prefill=True)
    whole = solution(FIRST + SECOND + THIRD)
    first, second = intermediate_steps(whole)
    completions = complete(policy, whole, indices=range(2, 4), decided={first.step_id})
    assert [(c.step_id, c.rollout_index) for c in completions] == [
        (second.step_id, 2),
        (second.step_id, 3),
    ]


def test_two_solutions_with_the_same_prefix_are_rolled_out_separately():
    policy = Scripted(lambda *_: "", continues_prefill=True)
    one, two = solution(FIRST + SECOND), solution(FIRST + SECOND, index=1)
    assert len({c.step_id for c in complete(policy, one, two)}) == 2


def test_a_chat_policy_sees_the_prefix_in_its_question():
    policy = Scripted(lambda *_: f"```python\n{SECOND}```")
    (completion, _) = complete(policy, solution(FIRST + SECOND))
    assert FIRST in policy.requests[0].prompt.user
    assert completion.code == FIRST + SECOND


@pytest.mark.parametrize("answer", ["def a(): return 2\n\ndef b(): pass\n", "Sorry."])
def test_a_completion_that_rewrote_its_prefix_or_holds_no_code_is_kept_without_a_program(answer):
    completions = complete(Scripted(lambda *_: answer), solution(FIRST + SECOND))
    assert [(c.completion, c.code) for c in completions] == [(answer, "")] * 2


def test_a_refused_completion_has_no_program():
    policy = Scripted(lambda *_: "", continues_prefill=True, finish_reason=FinishReason.REFUSED)
    assert {c.code for c in complete(policy, solution(FIRST + SECOND))} == {""}


def test_a_prefix_that_leaves_no_room_for_an_answer_gets_no_program_that_could_fail():
    policy = Scripted(lambda *_: "", continues_prefill=True, finish_reason=FinishReason.LENGTH)
    assert {c.code for c in complete(policy, solution(FIRST + SECOND))} == {""}


def test_an_answer_that_was_cut_off_is_judged_as_it_is():
    policy = Scripted(lambda *_: "# a", continues_prefill=True, finish_reason=FinishReason.LENGTH)
    assert {c.code for c in complete(policy, solution(FIRST + SECOND))} == {FIRST + "# a"}


def rollout(status: Status | None, step: str = "s", index: int = 0) -> Rollout:
    return Rollout(step, index, "", "", FinishReason.STOP, 0, status)


def test_labels_count_what_was_judged_and_nothing_else():
    statuses = [Status.AC, Status.WA, Status.TLE, Status.AC, Status.INFRA, None]
    assert count_labels([rollout(status) for status in statuses]) == [StepLabel("s", 2, 4)]


def test_a_step_without_one_judged_rollout_keeps_a_label_without_trials():
    rollouts = [rollout(None, "x"), rollout(Status.AC, "y"), rollout(Status.INFRA, "x", 1)]
    assert count_labels(rollouts) == [StepLabel("x", 0, 0), StepLabel("y", 1, 1)]
    assert count_labels([]) == []


def test_an_own_ending_counts_once_for_every_prefix_but_the_whole_program():
    steps_of = {
        each.solution_id: split_steps(each.code, each.solution_id)
        for each in (solution(FIRST + SECOND + THIRD), solution(FIRST + SECOND, 1))
    }
    (right, (a, b, _)), (_, (c, _)) = steps_of.items()
    rolled_out = [StepLabel(a.step_id, 1, 4), StepLabel(c.step_id, 0, 4)]
    assert with_own_endings(rolled_out, steps_of, passed={right}) == [
        StepLabel(a.step_id, 2, 5),
        StepLabel(b.step_id, 1, 1),
        StepLabel(c.step_id, 0, 5),
    ]
