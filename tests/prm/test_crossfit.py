import pytest

from pipeline.config import Targets
from pipeline.prm.crossfit import beliefs, halves, share
from pipeline.prm.encoding import EncodedSolution
from pipeline.prm.label_table import Evidence, initial_label
from pipeline.prm.parallel import Ranks
from tests.prm.world import make_example, make_examples

EXAMPLES = make_examples(40, seed=5)


def test_no_problem_is_in_both_halves_and_every_example_is_in_one() -> None:
    first, second = halves(EXAMPLES)
    assert sorted([*first, *second]) == list(range(len(EXAMPLES)))
    problems = [{EXAMPLES[index].problem_id for index in half} for half in (first, second)]
    assert not problems[0] & problems[1]
    assert abs(len(problems[0]) - len(problems[1])) <= 1


def test_ranks_judge_every_example_once() -> None:
    solutions = [EncodedSolution(str(n), (0,) * (n % 7 + 1), (n % 7,), False) for n in range(20)]
    judged = list(range(3, 20))
    mine = [share(judged, solutions, Ranks(rank, 3)) for rank in range(3)]
    assert sorted(index for part in mine for index in part) == judged


def test_a_belief_is_that_of_its_step() -> None:
    example = make_example(("double", "square"), ("double", "square"))
    found = beliefs([example], [0], [(0.25, 0.75)])
    assert found == dict(zip(example.step_ids, (0.25, 0.75), strict=True))


@pytest.mark.parametrize(
    ("passed", "trials", "label"),
    [(0, 0, 0.8), (0, 2, 0.4), (2, 2, 0.9), (0, 998, 0.0016)],
    ids=["no rollouts", "as many as the belief is worth", "all passed", "many outweigh it"],
)
def test_a_belief_counts_as_so_many_rollouts(passed: int, trials: int, label: float) -> None:
    known = Evidence(passed, trials, final_label=False, belief=0.8)
    assert initial_label(Targets.CROSSFIT, known, strength=2.0) == pytest.approx(label)


def test_cross_fitting_without_a_belief_is_refused() -> None:
    with pytest.raises(ValueError, match="a belief about every step"):
        initial_label(Targets.CROSSFIT, Evidence(1, 4, final_label=True), strength=2.0)
