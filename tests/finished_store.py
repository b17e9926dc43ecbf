"""A store in which a run of the scripted policy is finished, made without running it."""

from pathlib import Path

from pipeline import groundwork
from pipeline.part_file import write_part
from pipeline.plan import Plan
from pipeline.records import (
    Completion,
    Example,
    FinishReason,
    ProgramVerdict,
    Role,
    Rollout,
    Solution,
)
from sandbox.protocol import Comparator, Isolation, Status, Verdict
from tests import scripted_run
from tests.scripted import VERSION

PROBLEMS_PER_PART, SAMPLES, ROLLOUTS = 16, 8, 4
ROWS_PER_PART = PROBLEMS_PER_PART * (1 + SAMPLES * (3 + 2 * ROLLOUTS))
"""Problems, solutions, verdicts and examples, completions and rollouts of one prefix each."""

_FIRST = "def main():\n    print(double(int(input())))\n\n\n"
_CODE = _FIRST + "def double(x):\n    return x * 2\n\n\nmain()\n"


def fill(place: Path, parts: int, *, examples: bool = True) -> Plan:
    """`parts` finished parts of every stage; without `examples`, all but that stage."""
    scripted_run.write_problems(
        place, ["Read a number, print its double."] * (parts * PROBLEMS_PER_PART)
    )
    plan = scripted_run.plan_of(place, samples=SAMPLES, problems_per_part=PROBLEMS_PER_PART)
    groundwork.lay_problems(plan, scripted_run.Told())
    verdict = Verdict(Status.AC, 2, 2, 2, None, "", 0.1, 0.1, 9.0, Isolation.NONE, Comparator.LCB)
    stages = [plan.solutions, plan.verdicts, plan.completions, plan.rollouts]
    stages += [plan.examples] if examples else []
    for part in range(parts):
        rows: dict[str, list] = {stage.name: [] for stage in stages}
        for problem in plan.problems.read(part):
            for sample in range(SAMPLES):
                key = f"{problem.problem_id}-{sample}"
                rows["solutions"].append(
                    Solution(key, problem.problem_id, VERSION, sample, _CODE, _CODE,
                             FinishReason.STOP, 9, 30, 0, 0.0)
                )  # fmt: skip
                rows["verdicts"].append(ProgramVerdict(key, problem.problem_id, verdict))
                for index in range(ROLLOUTS):
                    rows["completions"].append(
                        Completion(key, index, problem.problem_id, VERSION, _CODE, _CODE,
                                   FinishReason.STOP, 9, 30, 0.0)
                    )  # fmt: skip
                    rows["rollouts"].append(
                        Rollout(key, index, _CODE, _CODE, FinishReason.STOP, 30, Status.AC)
                    )
                if examples:
                    rows["examples"].append(
                        Example(key, problem.problem_id, Role.TRAIN, "easy", problem.statement,
                                _CODE, (len(_FIRST), len(_CODE)), (key, "last"), (4, 0), (4, 0),
                                None, True)
                    )  # fmt: skip
        for stage in stages:
            table = stage.schema.to_table(rows[stage.name])
            inputs = stage.input_digests(part)
            # Nothing is synced: a million rows are made in a minute, not in ten.
            write_part(stage.path(part), table, stage.schema, inputs, durable=False)
    return plan
