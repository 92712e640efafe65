"""Numerical pieces of exact densities: quadrature rules, a log of sums by row."""

import math

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor


def logsumexp_by_row(terms: Tensor, row: Tensor, rows: int) -> Tensor:
    """log Σ exp over the terms (m,) that belong to each row, given by `row` (m,): (rows,).

    >>> logsumexp_by_row(torch.zeros(3), row=torch.tensor([0, 0, 1]), rows=2)
    tensor([0.6931, 0.0000])
    """
    lowest = torch.finfo(terms.dtype).min  # not -inf, whose difference from itself is NaN
    top = terms.new_full((rows,), lowest).scatter_reduce(0, row, terms.detach(), "amax")
    total = terms.new_zeros(rows).index_add(0, row, (terms - top[row]).exp())
    return top + total.log()


def log_ndtr(z: Tensor) -> Tensor:
    """Return log Φ(z) of the normal law, with the gradient far out, where torch's own is infinite.

    >>> z = torch.tensor([-1e6, 0.0], requires_grad=True)
    >>> log_ndtr(z).sum().backward()
    >>> z.grad[0].item()  # of -z² / 2
    1000000.0
    """
    edge = -5.0
    tail = z.clamp(max=edge)
    beyond = (torch.special.erfcx(tail * -math.sqrt(0.5)) / 2).log() - tail.square() / 2
    return torch.where(z < edge, beyond, torch.special.log_ndtr(z.clamp(min=edge)))


def draw_kinds(weights: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw n numbers below k by their weights (k,), (n,); torch's multinomial refuses n = 0.

    >>> draw_kinds(torch.tensor([0.0, 1.0]), 3, torch.Generator()).tolist()
    [1, 1, 1]
    """
    if n == 0:
        return torch.empty(0, dtype=torch.int64)
    return torch.multinomial(weights, n, replacement=True, generator=generator)


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
