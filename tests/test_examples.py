"""What is known of a solution, joined."""

from pipeline.examples import build_examples, problem_text
from pipeline.functions import split_steps
from pipeline.records import FinishReason, ProgramVerdict, Role, Solution, StepLabel, StepTruth
from sandbox.protocol import Comparator, Isolation, Status, Verdict
from tests.scripted import VERSION, problem

CODE = "def main(): helper()\n\ndef helper(): pass\nmain()\n"


def solution(solution_id: str, code: str = CODE) -> Solution:
    return Solution(
        solution_id, "p", VERSION, 0, code, code, FinishReason.STOP, 1, 1, 0, 0.0
    )  # fmt: skip


def verdict(solution_id: str, status: Status) -> ProgramVerdict:
    return ProgramVerdict(
        solution_id,
        "p",
        Verdict(status, 0, 1, 1, None, "", 0.1, 0.1, 9.0, Isolation.DOCKER, Comparator.LCB),
    )


def join(solutions, verdicts, **known):
    steps_of = {s.solution_id: split_steps(s.code, s.solution_id) for s in solutions}
    return build_examples(Role.TRAIN, [problem()], solutions, verdicts, steps_of, **known)


def test_counts_and_truth_are_put_beside_their_steps() -> None:
    first, second = split_steps(CODE, "a")
    (example,) = join(
        [solution("a")],
        [verdict("a", Status.AC)],
        labels=[StepLabel(first.step_id, 3, 4)],
        truths=[StepTruth(second.step_id, False), StepTruth(first.step_id, True)],
    )
    assert example.step_ids == (first.step_id, second.step_id)
    assert example.step_ends[-1] == len(CODE)
    assert (example.passed, example.trials) == ((3, 0), (4, 0))
    assert example.step_truth == (True, False)
    assert example.final_label is True


def test_truth_that_is_not_known_of_every_step_is_not_known() -> None:
    first, _ = split_steps(CODE, "a")
    (example,) = join(
        [solution("a")], [verdict("a", Status.WA)], truths=[StepTruth(first.step_id, True)]
    )
    assert example.step_truth is None


def test_an_infrastructure_failure_is_never_a_label() -> None:
    examples = join(
        [solution("a"), solution("b")], [verdict("a", Status.INFRA), verdict("b", Status.RE)]
    )
    assert [(e.solution_id, e.final_label) for e in examples] == [("b", False)]


def test_an_answer_without_a_program_is_an_example_without_steps() -> None:
    (example,) = join([solution("a", "")], [verdict("a", Status.CE)])
    assert example.step_ids == ()
    assert example.final_label is False


def test_a_prm_reads_the_starter_code_with_the_statement() -> None:
    assert problem_text(problem(statement="Do it.")) == "Do it."
    text = problem_text(problem(statement="Do it.", starter_code="class Solution:"))
    assert text == "Do it.\n\nclass Solution:"
