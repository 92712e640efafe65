"""Numerical pieces of exact densities: quadrature rules, roots, a log of sums by row."""

import math
from collections.abc import Callable

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor


def logsumexp_by_row(terms: Tensor, row: Tensor, rows: int) -> Tensor:
    """log Σ exp over the terms (m,) that belong to each row, given by `row` (m,): (rows,).

    >>> logsumexp_by_row(torch.zeros(3), row=torch.tensor([0, 0, 1]), rows=2)
    tensor([0.6931, 0.0000])
    """
    top = terms.new_full((rows,), -math.inf).scatter_reduce(0, row, terms.detach(), "amax")
    total = terms.new_zeros(rows).index_add(0, row, (terms - top[row]).exp())
    return top + total.log()


def midpoint(low: float, high: float, points: int) -> tuple[Tensor, Tensor]:
    """Midpoint rule, (points,) each: exponentially convergent for smooth mass inside.

    >>> nodes, weights = midpoint(0.0, 1.0, 4)
    >>> nodes.tolist(), weights.tolist()
    ([0.125, 0.375, 0.625, 0.875], [0.25, 0.25, 0.25, 0.25])
    """
    step = (high - low) / points
    nodes = low + step * (torch.arange(points, dtype=torch.float64) + 0.5)
    return nodes, torch.full_like(nodes, step)


def gauss_legendre(edges: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre rule of `order` nodes on every panel between edges (k + 1,): (k * order,).

    >>> nodes, weights = gauss_legendre(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), order=2)
    >>> round(float(weights @ nodes**3), 9)  # ∫ t³ dt, exact up to degree 2 order - 1
    0.25
    """
    nodes, weights = (torch.from_numpy(array) for array in leggauss(order))
    half = edges.diff()[:, None] / 2
    return (edges[:-1, None] + half * (1 + nodes)).flatten(), (half * weights).flatten()


def rising_root(
    function: Callable[[Tensor], tuple[Tensor, Tensor]], low: Tensor, high: Tensor
) -> Tensor:
    """Root of a rising function in [low, high], to half the digits of the dtype.

    A Newton step is taken where it stays in the bracket and is at most half the last move, else a
    bisection, so that it cannot cycle. One more Newton step gives the other half of the digits.

    Args:
        function: x -> (value, derivative), all of the shape of low and high.
        low: lower ends of the brackets.
        high: upper ends.

    >>> low, high = torch.zeros(1, dtype=torch.float64), torch.full((1,), 2.0, dtype=torch.float64)
    >>> round(float(rising_root(lambda x: (x**2 - 2, 2 * x), low, high)), 9)  # √2
    1.414213562
    """
    x = (low + high) / 2
    move = high - low
    tolerance = torch.finfo(x.dtype).eps ** 0.5
    while (move > tolerance).any():
        value, slope = function(x)
        low, high = torch.where(value < 0, x, low), torch.where(value < 0, high, x)
        step = value / slope
        newton = x - step
        good = (newton > low) & (newton < high) & (2 * step.abs() <= move)
        # at a found root rounding may put a tiny step out of the bracket: bisection would leave it
        good |= step.abs() < tolerance
        last, x = x, torch.where(good, newton, (low + high) / 2)
        move = (x - last).abs()
    return x
