"""The contract of a known density: samples, an exact log_prob, an exact entropy."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from flowtrain.batching import BLOCK
from flowtrain.densities.importance import Gaussian
from flowtrain.densities.numerics import midpoint

REACH = 6.0  # standard deviations to the edge of a window: exp(-18), 1e-8 of the mass, lies beyond
EXTREME = 1e12  # the side of a window, and its inverse: its square is far from float32's limits
FINEST = 1e-6  # details, in units of the distance from the origin: float32 tells 1e-7
MAX_NODES = 2**26  # of an entropy grid: some ten seconds, the most that is worth waiting for


class Density(ABC):
    """A density on R^d that is known exactly: sample, log_prob, entropy.

    A subclass states its samples and its log_prob; on a line or a plane quadrature and entropy
    follow from them, in more dimensions it states its entropy, too.

    Attributes:
        dim: d, 2 unless a subclass says otherwise.

    Args:
        window: corners (low, high) of a box that holds all but about 1e-8 of the mass, each (d,).
        resolution: the smallest length over which the density varies, as the noise of a smooth
            one; a grid twice as fine integrates p log p to better than 1e-6.

    Raises:
        ValueError: the window is no box, extremely wide or narrow, or the resolution is not
            positive, or too fine for float32 so far from the origin.

    >>> class Normal(Density):
    ...     def __init__(self):
    ...         super().__init__(window=(-6 * torch.ones(2), 6 * torch.ones(2)), resolution=1.0)
    ...     def sample(self, n, generator):
    ...         return torch.randn(n, 2, generator=generator, dtype=torch.float64)
    ...     def log_prob(self, x):
    ...         return torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1)
    >>> round(Normal().entropy, 5)  # 1 + log 2π
    2.83788
    """

    dim: int = 2
    normalized: bool = True  # False where Z is not known: log_prob is off by log Z
    log_normalizer: float | None = None  # log Z of an energy U, p = exp(-U) / Z, where it is one
    log_normalizer_error: float = 0.0  # its standard error, where it is an estimate
    approximation: Gaussian | None = None  # where a flow begins, if it must not know the samples

    def __init__(self, *, window: tuple[Tensor, Tensor], resolution: float) -> None:
        low, high = window
        if not ((low < high).all() and torch.cat([low, high]).isfinite().all()):
            raise ValueError(f"the window from {low.tolist()} to {high.tolist()} is no finite box")
        require_positive(resolution=resolution)
        side, farthest = float((high - low).max()), float(torch.cat([low, high]).abs().max())
        if not 1 / EXTREME <= side <= EXTREME:
            raise ValueError(
                f"the window is {side:.2g} wide: scale the density into [{1 / EXTREME:g}, "
                f"{EXTREME:g}], as if in another unit"
            )
        if resolution < FINEST * farthest:
            raise ValueError(
                f"details of size {resolution:.2g} cannot be told at {farthest:.2g} from the "
                "origin: shift the density nearer, or make it less sharp"
            )
        self.window = window
        self.resolution = resolution

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n independent points, (n, d) in float64 on the CPU, all chance from `generator`."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Evaluate log p in nats, (n, d) -> (n,), in the dtype and on the device of x."""

    def components(self) -> Sequence[tuple[float, "Density"]]:
        """Return the densities that it is a mixture of, each with its weight; none by default."""
        return ()

    @property
    def grid_points(self) -> list[int]:
        """The nodes along each axis of a grid that is fine enough for every detail.

        Raises:
            ValueError: the density is so sharp that the grid would be too large.
        """
        low, high = self.window
        counts = [math.ceil(side / (self.resolution / 2)) for side in (high - low).tolist()]
        if math.prod(counts) > MAX_NODES:
            raise ValueError(
                f"a density with details of size {self.resolution:g} in its window needs "
                f"{' x '.join(map(str, counts))} nodes: "
                + ("make it less sharp or less wide" if self.dim <= 2 else "state its entropy")
            )
        return counts

    @cached_property
    def entropy(self) -> float:
        """Entropy -∫ p log p in nats, to 1e-6.

        Raises:
            ValueError: the density is so sharp that a grid over its window would be too large.
        """
        counts = self.grid_points
        (x, x_weights), *others = (
            self._axis_rule(axis, count) for axis, count in enumerate(counts)
        )
        entropy = 0.0
        rows = max(1, BLOCK // math.prod(counts[1:]))
        with torch.no_grad():
            for xs, weights in zip(torch.split(x, rows), torch.split(x_weights, rows), strict=True):
                p = self._prob_on_grid(xs, *(nodes for nodes, _ in others))
                terms = weights @ torch.xlogy(p, p)
                for _, others_weights in others:
                    terms = terms @ others_weights
                entropy -= float(terms)
        return entropy

    def quadrature(self, points: int = 256) -> tuple[Tensor, Tensor]:
        """Nodes (m, d) and weights (m,) over the window, float64: ∫ f ≈ Σ w f.

        For a smooth density the error falls exponentially once the spacing, window / points, is
        below `resolution`.
        """
        nodes, weights = zip(
            *(self._axis_rule(axis, points) for axis in range(self.dim)), strict=True
        )
        return _product(nodes), _product(weights).prod(1)

    def _axis_rule(self, axis: int, points: int) -> tuple[Tensor, Tensor]:
        low, high = self.window
        return midpoint(float(low[axis]), float(high[axis]), points)

    def _prob_on_grid(self, *axes: Tensor) -> Tensor:
        """Evaluate p on the product of the axes, (k,), (m,) -> (k, m)."""
        return self.log_prob(_product(axes)).exp().reshape([len(axis) for axis in axes])


def _product(axes: Sequence[Tensor]) -> Tensor:
    """Return all points whose coordinates are on the axes, (m, d)."""
    return torch.cartesian_prod(*axes).reshape(-1, len(axes))


def box_around(points: Tensor, margin: float | Tensor) -> tuple[Tensor, Tensor]:
    """Corners (2,) of the box that holds all points (n, 2) with a margin.

    >>> box_around(torch.tensor([[0.0, 0.0], [1.0, 2.0]]), margin=0.5)
    (tensor([-0.5000, -0.5000]), tensor([1.5000, 2.5000]))
    """
    return (points - margin).amin(0), (points + margin).amax(0)


def require_positive(**values: float) -> None:
    """Raise a ValueError that names the first value which is not a positive finite number.

    Raises:
        ValueError: as said.

    >>> require_positive(scale=2.0, noise=0.0)
    Traceback (most recent call last):
        ...
    ValueError: noise must be > 0, got 0
    """
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be > 0, got {value:g}")
