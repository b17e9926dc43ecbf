"""The stopping rule keeps its word, whatever the chance of a rollout to pass."""

import itertools

import numpy as np
import pytest

from pipeline.config import (
    ArmConfig,
    EarlyStop,
    PipelineConfig,
    RolloutConfig,
    ScaleModelProblems,
    Targets,
    TrainingConfig,
    VLLMPolicy,
)
from pipeline.early_stop import decided_steps, max_risk, stopping_region, walk, waves
from pipeline.records import StepLabel

RULE = EarlyStop(first=4, error=0.25, risk=0.05)


def test_waves_double_what_is_there_and_end_with_the_samples() -> None:
    assert waves(20, RULE) == [range(4), range(4, 8), range(8, 16), range(16, 20)]
    assert waves(4, None) == [range(4)]


def by_brute_force(p: float, samples: int, rule: EarlyStop) -> tuple[float, float, float]:
    """The same as `walk`, from every sequence of outcomes."""
    region = stopping_region(samples, rule)
    missed = mean_label = mean_trials = 0.0
    looks = [wave.stop for wave in waves(samples, rule)]
    for outcomes in itertools.product((0, 1), repeat=samples):
        chance = float(np.prod([p if passed else 1 - p for passed in outcomes]))
        m = next(m for m in looks if m == samples or (m, sum(outcomes[:m])) in region)
        label, full = sum(outcomes[:m]) / m, sum(outcomes) / samples
        missed += chance * (abs(label - full) > rule.error + 1e-9)
        mean_label += chance * label
        mean_trials += chance * m
    return missed, mean_label - p, mean_trials


@pytest.mark.parametrize("rule", [RULE, EarlyStop(first=2, error=0.2, risk=0.1)])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.35, 0.5, 0.8])
def test_risk_bias_and_trials_are_those_of_every_possible_sequence(p, rule) -> None:
    samples = 10
    found = walk(np.array([p]), stopping_region(samples, rule), samples, rule)
    exact = by_brute_force(p, samples, rule)
    assert (found.missed[0], found.bias[0], found.trials[0]) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("samples", [6, 8, 16, 24])
@pytest.mark.parametrize("error", [0.1, 0.25, 0.4])
@pytest.mark.parametrize("risk", [0.01, 0.05, 0.2])
def test_no_chance_of_passing_breaks_the_bound(samples, error, risk) -> None:
    rule = EarlyStop(first=4, error=error, risk=risk)
    region = stopping_region(samples, rule)
    between_the_grid = np.linspace(0.0004, 0.9996, 517)
    assert walk(between_the_grid, region, samples, rule).missed.max() <= risk + 1e-3
    assert max_risk(region, samples, rule) <= risk


def test_the_documented_figures_are_those_of_the_rule() -> None:
    found = walk(np.array([0.0, 0.1, 0.3, 0.5]), stopping_region(16, RULE), 16, RULE)
    assert found.trials.round(1).tolist() == [8.0, 7.8, 6.9, 6.5]
    every = walk(np.linspace(0, 1, 1001), stopping_region(16, RULE), 16, RULE)
    assert round(float(every.missed.max()), 3) == 0.046
    assert round(float(np.abs(every.bias).max()), 3) == 0.027


def test_passing_and_failing_are_treated_alike() -> None:
    assert stopping_region(16, RULE) == {(m, m - s) for m, s in stopping_region(16, RULE)}


def test_without_risk_a_step_stops_only_where_no_outcome_can_matter() -> None:
    rule = EarlyStop(first=4, error=0.5, risk=0.0)
    for m, s in stopping_region(8, rule):
        for full in range(s, s + 8 - m + 1):
            assert abs(s / m - full / 8) <= 0.5


def test_counts_that_are_no_end_of_a_wave_decide_nothing() -> None:
    counts = {"all failed": (0, 8), "one is missing": (0, 7), "none was judged": (0, 0)}
    labels = [StepLabel(step_id, *passed_of) for step_id, passed_of in counts.items()]
    assert decided_steps(labels, stopping_region(16, RULE)) == {"all failed"}


def test_a_rule_that_could_never_stop_anything_is_refused() -> None:
    with pytest.raises(ValueError, match=r"early_stop.first \(4\) must be below samples \(4\)"):
        RolloutConfig(samples=4, early_stop=RULE)


def test_targets_that_leave_the_own_ending_out_are_refused_where_it_is_counted() -> None:
    with pytest.raises(ValueError, match=r"rollouts\.own_ending"):
        PipelineConfig(
            problems=ScaleModelProblems(),
            policy=VLLMPolicy(model="somewhere", gpus=0),
            rollouts=RolloutConfig(own_ending=True),
            training=TrainingConfig(arms=(ArmConfig(name="any", targets=Targets.HARD),)),
        )
