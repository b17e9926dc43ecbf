"""Programs to verdicts, rollouts and truths. The judge here says AC of programs that hold `right`;
the real ones have tests of their own."""

from collections.abc import Sequence

from pipeline.execution import judge_rollouts, judge_solutions, judge_truth, to_program
from pipeline.functions import split_steps
from pipeline.records import Completion, FinishReason, Solution
from sandbox.protocol import Comparator, Isolation, Program, Status, Verdict
from tests.scripted import VERSION, problem

MEMORY_MB = 64


class Judge:
    def __init__(self, infra: str = "never") -> None:
        self.infra = infra
        self.programs: list[Program] = []

    def __call__(self, programs: Sequence[Program]) -> list[Verdict]:
        self.programs += programs
        return [self._verdict(program) for program in programs]

    def _verdict(self, program: Program) -> Verdict:
        status = Status.AC if "right" in program.code else Status.WA
        if self.infra in program.code:
            status = Status.INFRA
        passed = int(status is Status.AC)
        return Verdict(
            status, passed, 1, 1, None, "", 0.1, 0.1, 9.0, Isolation.DOCKER, Comparator.LCB
        )


def solution(solution_id: str, code: str) -> Solution:
    return Solution(
        solution_id, "p", VERSION, 0, code, code, FinishReason.STOP, 1, 1, 0, 0.0
    )  # fmt: skip


def completion(index: int, code: str) -> Completion:
    return Completion("step", index, "p", VERSION, code, code, FinishReason.STOP, 1, 5, 0.0)


def test_a_program_carries_the_limits_of_its_problem() -> None:
    program = to_program(problem(time_limit_s=3.0), "code", MEMORY_MB)
    assert (program.limits.cpu_s, program.limits.memory_mb) == (3.0, MEMORY_MB)
    assert program.tests == problem().tests


def test_a_program_runs_after_the_prelude_that_its_problem_assumes() -> None:
    program = to_program(problem(prelude="import math\n"), "print(math.pi)", MEMORY_MB)
    assert (program.prelude, program.code) == ("import math\n", "print(math.pi)")


def test_every_solution_gets_its_own_verdict() -> None:
    solutions = [solution("a", "right"), solution("b", "wrong")]
    verdicts = judge_solutions(Judge(), Isolation.DOCKER, [problem()], solutions, MEMORY_MB)
    assert [(v.program_id, v.verdict.status) for v in verdicts] == [
        ("a", Status.AC),
        ("b", Status.WA),
    ]


def test_an_answer_without_a_program_is_a_compile_error_and_is_not_executed() -> None:
    judge = Judge()
    (verdict,) = judge_solutions(judge, Isolation.NONE, [problem()], [solution("a", "")], MEMORY_MB)
    assert verdict.verdict.status is Status.CE
    assert verdict.verdict.tests_run == 0
    assert verdict.verdict.isolation is Isolation.NONE
    assert judge.programs == []


def test_a_rejected_completion_becomes_an_unexecuted_rollout() -> None:
    judge = Judge()
    rollouts = judge_rollouts(
        judge, [problem()], [completion(0, "right"), completion(1, "")], MEMORY_MB
    )
    assert [r.status for r in rollouts] == [Status.AC, None]
    assert rollouts[0].tokens == 5
    assert len(judge.programs) == 1


def test_truth_is_what_the_reference_makes_of_each_prefix() -> None:
    code = "def main(): pass  # right\n\ndef helper(): pass  # broken\n"
    one = solution("a", code)

    def spoil_after_helper(problem, code, steps, index) -> str:
        return "wrong" if index == 1 else code[: steps[index].end]

    truths = judge_truth(
        Judge(), spoil_after_helper, [problem()], {"a": split_steps(code, "a")}, [one], MEMORY_MB
    )
    assert [truth.correct for truth in truths] == [True, False]


def test_truth_is_unknown_where_the_sandbox_failed() -> None:
    code = "def main(): pass  # broken\n"
    truths = judge_truth(
        Judge(infra="broken"),
        lambda problem, code, steps, index: code,
        [problem()],
        {"a": split_steps(code, "a")},
        [solution("a", code)],
        MEMORY_MB,
    )
    assert truths == []
