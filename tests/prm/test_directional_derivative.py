"""Derivatives along a direction from forward passes, held against exact ones (torch.func.jvp)."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.func import jvp

from pipeline.prm.directional_derivative import (
    RECHECK,
    Precision,
    Stride,
    directional_derivative,
)
from pipeline.prm.parallel import Ranks
from tests.prm.unrolled import assert_close

TOLERANCE = 2e-2
PRECISION = Precision(wanted_rms=0.02, tolerated_bend=0.01)
PHI, V = torch.ones(9), torch.linspace(-1, 1, 9)
MATRIX = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))

Logits = Callable[[torch.Tensor], torch.Tensor]


def straight(weights: torch.Tensor) -> torch.Tensor:
    return MATRIX @ weights + 0.1 * (MATRIX @ weights).sin()


def curved(weights: torch.Tensor, by: float = 20.0) -> torch.Tensor:
    moved = MATRIX @ (weights - PHI)
    return moved + by * moved.square()


def curved_where_labels_differ(weights: torch.Tensor) -> torch.Tensor:
    """All logits move together by much more than one against another."""
    return 100 * (V @ (weights - PHI)) + curved(weights, by=1e3)


class Counted:
    """A function that knows how often it was asked."""

    def __init__(self, function: Logits) -> None:
        self.function, self.passes = function, 0

    def __call__(self, weights: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        return self.function(weights)


def along(function: Logits, stride: Stride, v: torch.Tensor = V) -> tuple[torch.Tensor, Stride]:
    logits = function.function(PHI) if isinstance(function, Counted) else function(PHI)

    def logits_at(distance: float) -> torch.Tensor:
        return function(PHI + distance * v)

    return directional_derivative(logits, logits_at, PHI, v, stride, PRECISION, Ranks())


@pytest.mark.parametrize("distance", [1e-7, None, 1e7])
def test_a_bad_first_guess_of_the_distance_is_mended(distance: float | None) -> None:
    found, _ = along(straight, Stride(distance))
    assert_close(found, jvp(straight, (PHI,), (V,))[1], TOLERANCE)


@pytest.mark.parametrize("function", [straight, curved, curved_where_labels_differ])
def test_every_derivative_is_as_exact_as_the_first(function: Logits) -> None:
    exact = jvp(function, (PHI,), (V,))[1]
    stride = Stride()
    for _ in range(2 * RECHECK):
        found, stride = along(function, stride)
        assert_close(found, exact, TOLERANCE)
        assert_close(found - found.mean(), exact - exact.mean(), TOLERANCE)


def test_where_logits_are_straight_one_pass_is_made_and_two_every_so_often() -> None:
    counted, stride, passes = Counted(straight), Stride(distance=0.02), []
    _, stride = along(counted, stride)  # finds the distance
    for _ in range(2 * RECHECK):
        before = counted.passes
        _, stride = along(counted, stride)
        passes.append(counted.passes - before)
    assert passes == ([1] * (RECHECK - 1) + [2]) * 2


@pytest.mark.parametrize("function", [curved, curved_where_labels_differ])
def test_where_logits_are_curved_two_passes_are_made(function: Logits) -> None:
    counted = Counted(function)
    _, stride = along(counted, Stride())
    assert stride.bend > PRECISION.tolerated_bend
    before = counted.passes
    along(counted, stride)
    assert counted.passes - before == 2


def test_the_bend_is_the_error_of_one_pass() -> None:
    _, found = along(curved, Stride())
    _, measured = along(curved, found)
    trusting, _ = along(curved, replace(found, bend=0.0))  # one pass, as far along
    exact = jvp(curved, (PHI,), (V,))[1]
    errors = [
        ((trusting - exact - shift).norm() / (exact - shift_of_exact).norm()).item()
        for shift, shift_of_exact in (
            (torch.tensor(0.0), torch.tensor(0.0)),
            ((trusting - exact).mean(), exact.mean()),
        )
    ]
    assert measured.bend == pytest.approx(max(errors), rel=0.05)


def test_a_stride_that_had_to_be_mended_is_measured_again() -> None:
    _, stride = along(straight, Stride(distance=1e7, bend=0.0))
    assert 0.0 < stride.bend < math.inf
    assert stride.age == 0


def test_without_a_direction_nothing_is_asked() -> None:
    def asked(distance: float) -> torch.Tensor:
        pytest.fail("no pass is needed")

    logits = torch.ones(3)
    stride = Stride(distance=0.5)
    found, after = directional_derivative(
        logits, asked, PHI, torch.zeros(9), stride, PRECISION, Ranks()
    )
    assert found.tolist() == [0.0, 0.0, 0.0]
    assert after == stride


def test_logits_that_are_never_finite_are_an_error() -> None:
    with pytest.raises(FloatingPointError, match="finitely"):
        directional_derivative(
            torch.ones(3), lambda _: torch.full((3,), torch.nan), PHI, V, Stride(), PRECISION,
            Ranks(),
        )  # fmt: skip
