"""Stop rolling out a step once its label is decided, with a bound on how often that is wrong.

The full label of a step is S_n / n: S_n of n rollouts pass. Rollouts are made in waves; after a
wave of m rollouts in all, of which s passed, the step stops where (m, s) is in a stopping region R,
and its label is s / m. A stop misses if the full label, which would have come of the same first m
rollouts and n - m more, is further than `error` away from s / m. R is chosen so that

    max over p of  P_p(a step stops and misses)  <=  risk

where p is the chance of a rollout to pass: a bound for every prefix, whatever the mix of easy and
hopeless ones, and no prior belief is needed for it. A prior only ranks the states: R grows by the
state with the least chance of a miss under a uniform p (the beta-binomial predictive probability of
Lee and Liu, Clinical Trials 5, 2008), together with its mirror image, as long as the bound holds.
P_p is computed exactly, by walking through the waves; its maximum is taken over 1,001 values of p.

What it costs, for n = 16, first = 4, error = 0.25 and risk = 0.05 (`walk` gives all of it): the
largest risk is 0.046, and steps with p = 0, 0.1, 0.3 and 0.5 get 8.0, 7.8, 6.9 and 6.5 rollouts on
average. Labels of fewer trials are noisier, within those bounds, and with optional stopping they
are a little biased: here towards 1/2, by at most 0.027. Passes that come late are missed: `hard`
targets, which ask whether any rollout passes, see fewer of them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from pipeline.config import EarlyStop
from pipeline.records import StepLabel

Region = frozenset[tuple[int, int]]
"""States (rollouts, passed)."""

Floats = NDArray[np.float64]

_ALL_P: Floats = np.linspace(0.0, 1.0, 1001)


@dataclass(frozen=True, slots=True)
class Walk:
    """What becomes of a step whose rollouts pass with chance p: one entry per p that was asked."""

    missed: Floats  # P(it stops and the full label is further than `error` away)
    bias: Floats  # E[label] - p
    trials: Floats  # E[rollouts]


def waves(samples: int, rule: EarlyStop | None) -> list[range]:
    """The rollout indices of each wave: `first`, then each time as many as there are already."""
    if rule is None:
        return [range(samples)]
    ends = [rule.first]
    while ends[-1] < samples:
        ends.append(min(2 * ends[-1], samples))
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def decided_steps(labels: Iterable[StepLabel], region: Region) -> set[str]:
    """The ids of the steps that need no more rollouts.

    Counts that are no end of a wave (a rollout was rejected, or the sandbox failed) decide nothing:
    the bound is not about them.
    """
    return {label.step_id for label in labels if (label.trials, label.passed) in region}


def stopping_region(samples: int, rule: EarlyStop) -> Region:
    """The states at which a step stops. Under a second for `samples` up to 64."""
    looks = [wave.stop for wave in waves(samples, rule)[:-1]]
    states = [(m, s) for m in looks for s in range(m // 2 + 1)]
    states.sort(key=lambda state: _predicted_miss(*state, samples, rule.error))
    region: Region = frozenset()
    for m, s in states:
        larger = region | {(m, s), (m, m - s)}
        if max_risk(larger, samples, rule) > rule.risk:
            break
        region = larger
    return region


def max_risk(region: Region, samples: int, rule: EarlyStop) -> float:
    """The largest chance of a miss over all p."""
    return float(walk(_ALL_P, region, samples, rule).missed.max())


def walk(p: Floats, region: Region, samples: int, rule: EarlyStop) -> Walk:
    """Through the waves, exactly, for every chance in `p` at once."""
    going = {0: np.ones_like(p)}  # passed -> chance of being here and not having stopped
    missed, label, trials = (np.zeros_like(p) for _ in range(3))
    for wave in waves(samples, rule):
        steps = _binomial(len(wave), p)
        reached: dict[int, Floats] = {}
        for passed, chance in going.items():
            for more, of_more in enumerate(steps):
                reached[passed + more] = reached.get(passed + more, 0.0) + chance * of_more
        m = wave.stop
        rest = _binomial(samples - m, p)
        for s in [s for s in reached if m == samples or (m, s) in region]:
            chance = reached.pop(s)
            trials += chance * m
            label += chance * s / m
            for more in _misses(m, s, samples, rule.error):
                missed += chance * rest[more]
        going = reached
    return Walk(missed, label - p, trials)


def _misses(m: int, s: int, samples: int, error: float) -> Iterator[int]:
    """The numbers of further passes that put the full label out of reach of s / m."""
    for more in range(samples - m + 1):
        if abs(s / m - (s + more) / samples) > error + 1e-9:
            yield more


def _predicted_miss(m: int, s: int, samples: int, error: float) -> float:
    """The chance of a miss after s of m passed, p being uniform beforehand."""
    return sum(
        # Beta-binomial with integer parameters: a ratio of binomial coefficients.
        comb(s + more, s) * comb(samples - s - more, m - s) / comb(samples + 1, m + 1)
        for more in _misses(m, s, samples, error)
    )


def _binomial(n: int, p: Floats) -> list[Floats]:
    """P(k of n) for every k, each over all p."""
    return [comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
