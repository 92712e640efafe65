"""One-dimensional quadrature rules: nodes and weights in float64."""

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor


def midpoint(low: float, high: float, points: int) -> tuple[Tensor, Tensor]:
    """Midpoint rule, (points,) each: exponentially convergent for smooth mass inside."""
    step = (high - low) / points
    nodes = low + step * (torch.arange(points, dtype=torch.float64) + 0.5)
    return nodes, torch.full_like(nodes, step)


def gauss_legendre(edges: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre rule of `order` nodes on every panel between edges (k + 1,): (k * order,)."""
    nodes, weights = (torch.from_numpy(array) for array in leggauss(order))
    half = edges.diff()[:, None] / 2
    return (edges[:-1, None] + half * (1 + nodes)).flatten(), (half * weights).flatten()
