"""A law known up to a constant: what quadrature finds of it, and what is refused of a function."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from flowtrain.densities import Banana, TwoArcs
from flowtrain.densities.density import Density
from flowtrain.densities.target import Target
from flowtrain.errors import UserError

Function = Callable[[Tensor], Any]


def normal(x: Tensor) -> Tensor:
    return -x.square().sum(1) / 2


@pytest.mark.parametrize(
    "exact",
    [TwoArcs(thickness=0.4), Banana(spread=1.0, noise=0.3, curvature=0.5)],
    ids=lambda exact: type(exact).__name__,
)
def test_quadrature_finds_the_constant_and_the_entropy_of_a_known_law(exact: Density) -> None:
    low, high = (corner.tolist() for corner in exact.window)
    found = Target(lambda x: exact.log_prob(x) + 2.5, dim=2, window=(low, high))
    assert found.normalized
    assert found.log_normalizer == pytest.approx(2.5, abs=1e-6)
    assert found.entropy == pytest.approx(exact.entropy, abs=1e-5)
    x = exact.sample(20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.log_prob(x), exact.log_prob(x), rtol=0, atol=1e-6)
    root = found.approximation.root
    torch.testing.assert_close(root @ root.T, x.T.cov(), rtol=0.05, atol=0.05)


def test_a_law_on_a_line_may_be_zero_somewhere() -> None:
    """The exponential law of rate 3, with a kink at 0 and nothing below it but -inf."""
    with pytest.raises(ValueError, match=r"-inf at \d+ of 1,000 points where a flow begins"):
        Target(lambda x: torch.where(x > 0, -3 * x, -torch.inf)[:, 0], dim=1, window=(-1.0, 9.0))
    kinked = Target(lambda x: torch.where(x > 0, -3 * x, 9 * x)[:, 0], dim=1, window=(-3.0, 9.0))
    assert kinked.log_normalizer == pytest.approx(math.log(1 / 3 + 1 / 9), abs=1e-4)


def test_more_dimensions_leave_the_constant_unknown() -> None:
    target = Target(normal, dim=3, window=([-1.0, 0.0, -6.0], [5.0, 6.0, 6.0]))
    assert not target.normalized
    assert math.isnan(target.entropy)
    assert target.approximation.mean.tolist() == [2.0, 3.0, 0.0]
    assert target.approximation.root.diagonal().tolist() == [1.0, 1.0, 2.0]
    x = torch.randn(5, 3)
    assert torch.equal(target.log_prob(x), normal(x))
    with pytest.raises(UserError, match="has no points to draw"):
        target.sample(5, torch.Generator())


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.detach().numpy().sum(1), "must be a tensor, got a ndarray: write it in torch"),
        (lambda x: -x.square() / 2, "must be (n,) in the dtype of x, got ("),
        (lambda x: normal(x).sum(), "must be (n,) in the dtype of x, got ()"),
        (lambda x: normal(x).double(), "in torch.float64 for x of (1000, "),
        (lambda x: normal(x).detach(), "has no gradient: write all of it in torch"),
        (lambda x: normal(x) + (x[:, 0] < 0) * math.nan, "the log-density is nan at ("),
        (lambda x: normal(x) - (x[:, 0] - 9).log(), "the log-density is nan at ("),
        (lambda x: normal(x).where(x[:, 0] < 0, -math.inf), "points where a flow begins"),
        (lambda x: normal(x).where(x[:, 0] < 0, math.inf), "the log-density is inf at ("),
        (lambda x: normal(x - x.mean(0)), "a row must depend on that row alone"),
        (lambda x: normal(x[:, :-1]), "does not depend on coordinate"),
    ],
)  # fmt: skip
def test_a_function_that_breaks_the_contract_is_refused(
    function: Function, message: str, dim: int
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Target(function, dim=dim, window=(-8.0, 8.0))


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ((8.0, -8.0), "is no finite box"),
        (([-8.0, -8.0], [8.0, 8.0, 8.0]), "has 3 numbers in a corner, the target dim=2"),
        ((-1.0, 1.0), "of the mass is at the edge of the window, so that more lies beyond"),
        ((-5e4, 5e4), "the window is too wide for this law; narrow it"),
    ],
)
def test_a_window_that_does_not_fit_is_refused(window: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Target(normal, dim=2, window=window)


def test_a_law_that_is_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="-inf all over the window"):
        Target(lambda x: normal(x) - torch.inf, dim=2, window=(-8.0, 8.0))
