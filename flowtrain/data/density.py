"""The contract of a toy law: samples, an exact density, an exact entropy."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from flowtrain.data.quadrature import midpoint

REACH = 6.0  # standard deviations to the edge of a window: exp(-18), 1e-8 of the mass, lies beyond
BLOCK = 2**18  # numbers held at once while rows are worked through: 2 MB in float64, a core's cache
MAX_NODES = 2**26  # of an entropy grid: some ten seconds, the most that is worth waiting for


class Density(ABC):
    """A law on R² with exact density: sample, log_prob, entropy.

    A law states its samples and its log-density; quadrature and entropy follow from them.

    Args:
        window: corners (low, high) of a box that holds all but about 1e-8 of the mass, each (2,).
        resolution: the smallest length over which the density varies, a smooth law's noise;
            a grid twice as fine integrates p log p to better than 1e-6.
    """

    dim: int = 2

    def __init__(self, *, window: tuple[Tensor, Tensor], resolution: float) -> None:
        self.window = window
        self.resolution = resolution

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n exchangeable points, (n, 2) in float64 on the CPU, all chance from `generator`."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Evaluate log p in nats, (n, 2) -> (n,), in the dtype and on the device of x."""

    @cached_property
    def entropy(self) -> float:
        """Entropy -∫ p log p in nats, to 1e-6.

        Raises:
            ValueError: the law is so sharp that a grid over its window would be too large.
        """
        low, high = self.window
        counts = [math.ceil(side / (self.resolution / 2)) for side in (high - low).tolist()]
        if math.prod(counts) > MAX_NODES:
            raise ValueError(
                f"the entropy of a law with details of size {self.resolution:g} needs "
                f"{counts[0]} x {counts[1]} nodes: make it less sharp"
            )
        (x, x_weights), (y, y_weights) = (self._axis_rule(axis, counts[axis]) for axis in (0, 1))
        entropy = 0.0
        rows = max(1, BLOCK // len(y))
        with torch.no_grad():
            for xs, weights in zip(torch.split(x, rows), torch.split(x_weights, rows), strict=True):
                p = self._prob_on_grid(xs, y)
                entropy -= float(weights @ torch.xlogy(p, p) @ y_weights)
        return entropy

    def quadrature(self, points: int = 256) -> tuple[Tensor, Tensor]:
        """Nodes (m, 2) and weights (m,) over the window, float64: ∫ f ≈ Σ w f.

        For a smooth law the error falls exponentially once the spacing, window / points, is below
        `resolution`.
        """
        (x, x_weights), (y, y_weights) = (self._axis_rule(axis, points) for axis in (0, 1))
        return torch.cartesian_prod(x, y), torch.outer(x_weights, y_weights).flatten()

    def _axis_rule(self, axis: int, points: int) -> tuple[Tensor, Tensor]:
        low, high = self.window
        return midpoint(float(low[axis]), float(high[axis]), points)

    def _prob_on_grid(self, x: Tensor, y: Tensor) -> Tensor:
        """Evaluate p on the product of two axes, (k,), (m,) -> (k, m)."""
        return self.log_prob(torch.cartesian_prod(x, y)).exp().reshape(len(x), len(y))


def box_around(points: Tensor, margin: float | Tensor) -> tuple[Tensor, Tensor]:
    """Corners (2,) of the box that holds all points (n, 2) with a margin."""
    return (points - margin).amin(0), (points + margin).amax(0)


def by_rows(function: Callable[[Tensor], Tensor], x: Tensor, width: int) -> Tensor:
    """Apply a function (n, 2) -> (n,) that holds `width` numbers a row, a few rows at a time."""
    return torch.cat([function(rows) for rows in torch.split(x, max(1, BLOCK // width))])


def logsumexp_by_row(terms: Tensor, row: Tensor, rows: int) -> Tensor:
    """log Σ exp over the terms (m,) that belong to each row, given by `row` (m,): (rows,)."""
    top = terms.new_full((rows,), -math.inf).scatter_reduce(0, row, terms.detach(), "amax")
    total = terms.new_zeros(rows).index_add(0, row, (terms - top[row]).exp())
    return top + total.log()


def require_positive(**values: float) -> None:
    """Raise a ValueError that names the first value which is not a positive finite number."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be > 0, got {value:g}")
