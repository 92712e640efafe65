"""A law of the user's own that is known up to a constant: a log-density, and no samples."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flowtrain.batching import by_rows
from flowtrain.densities.density import Density
from flowtrain.densities.importance import Gaussian, Weighted
from flowtrain.densities.numerics import midpoint
from flowtrain.errors import UserError

LogDensity = Callable[[Tensor], Tensor]

NODES = {1: 2**14, 2: 2**10}  # per axis, of the quadrature that finds log Z
ACCURACY = 1e-3  # nats of log Z: half the nodes must find the same
EDGE, BEYOND = 0.01, 1e-4  # the outermost part of the window, and the mass that it may hold
SIDES = 6.0  # deviations of the start in a side of the window
POINTS = 1_000  # of the start, at which a log-density is checked


class Target(Density):
    """A law known by its log-density up to a constant, as a posterior is.

    No points of it can be drawn: a flow learns it by `objective=reverse_kl`, from `log_prob` alone.
    On a line or a plane quadrature over the window finds log Z, so that `log_prob` is normalised
    and there is KL; a flow begins at the Gaussian with the law's own mean and covariance. In more
    dimensions Z stays unknown, `log_prob` is as the user wrote it, and a flow begins in the middle
    of the window, with a sixth of its sides as deviations.

    Args:
        log_density: log p + log Z in nats, (n, d) -> (n,), each row by itself, in the dtype and on
            the device of x. Autograd differentiates it.
        dim: d.
        window: ends (low, high) of a box that holds the law, each a number or d of them.

    Raises:
        ValueError: the log-density breaks this contract, or the window is no box, cuts a part of
            the law off, or is too wide for its details.

    >>> target = Target(lambda x: -x.square().sum(1) / 2, dim=2, window=(-8.0, 8.0))
    >>> round(target.log_normalizer, 6), round(target.entropy, 6)  # log 2π, and 1 + that
    (1.837877, 2.837877)
    >>> Target(lambda x: -x.square().sum(1) / 2, dim=3, window=(-8.0, 8.0)).normalized
    False
    """

    log_normalizer: float
    approximation: Gaussian

    def __init__(
        self,
        log_density: LogDensity,
        *,
        dim: int,
        window: tuple[float | Sequence[float], float | Sequence[float]],
    ) -> None:
        self.log_density, self.dim, self.normalized = log_density, dim, dim in NODES
        low, high = (_corner(end, dim) for end in window)
        finest = float((high - low).max()) / NODES.get(dim, 1)
        super().__init__(window=(low, high), resolution=2 * finest)
        self.log_normalizer, self._entropy = 0.0, math.nan
        self.approximation = Gaussian((low + high) / 2, torch.diag((high - low) / SIDES))
        _check(log_density, self.approximation)
        if self.normalized:
            self._integrate()
        _refuse_impossible(log_density, self.approximation)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Refuse: none can be drawn.

        Raises:
            UserError: always.
        """
        raise UserError("data: this target is known up to a constant, and has no points to draw")

    def log_prob(self, x: Tensor) -> Tensor:
        return self.log_density(x) - self.log_normalizer

    @property
    def entropy(self) -> float:
        """Entropy in nats; NaN where Z is not known."""
        return self._entropy

    def _integrate(self) -> None:
        """Find log Z, the entropy and the moments by the midpoint rule, whose nodes weigh alike."""
        fine, coarse = (self._on_nodes(count) for count in (NODES[self.dim], NODES[self.dim] // 2))
        gap = abs(fine.log_normalizer - coarse.log_normalizer)
        if not gap <= ACCURACY:
            raise ValueError(
                f"log Z by {NODES[self.dim]:,} and by half as many nodes per axis differ by "
                f"{gap:.2g} nats: the window is too wide for this law; narrow it"
            )
        low, high = self.window
        margin = EDGE * (high - low)
        outside = ((fine.points < low + margin) | (fine.points > high - margin)).any(1)
        cut = float(fine.shares[outside].sum())
        if cut > BEYOND:
            raise ValueError(
                f"{cut:.2%} of the mass is at the edge of the window, so that more lies beyond; "
                "widen it"
            )
        self.log_normalizer = fine.log_normalizer
        possible = fine.shares > 0
        log_p = fine.log_weight[possible] - fine.log_normalizer - _log_volume(self.window)
        self._entropy = -float(fine.shares[possible] @ log_p)
        self.approximation = fine.moments()

    @torch.no_grad()
    def _on_nodes(self, count: int) -> Weighted:
        """Return the nodes of a rule, as points drawn evenly from the window would stand for p."""
        low, high = self.window
        axes = [midpoint(float(a), float(b), count)[0] for a, b in zip(low, high, strict=True)]
        nodes = torch.cartesian_prod(*axes).reshape(-1, self.dim)
        log_p = by_rows(lambda x: _values(self.log_density, x), nodes, width=16)
        if not log_p.isfinite().any():
            raise ValueError("the log-density is -inf all over the window: it holds no mass")
        return Weighted(nodes, log_p + _log_volume(self.window))


def _corner(end: float | Sequence[float], dim: int) -> Tensor:
    if isinstance(end, int | float):
        return torch.full((dim,), float(end), dtype=torch.float64)
    if len(end) != dim:
        raise ValueError(f"the window has {len(end)} numbers in a corner, the target dim={dim}")
    return torch.tensor(end, dtype=torch.float64)


def _log_volume(window: tuple[Tensor, Tensor]) -> float:
    low, high = window
    return float((high - low).log().sum())


def _values(log_density: LogDensity, x: Tensor) -> Tensor:
    """Return the log-density of points, held to its contract, (n,).

    Raises:
        ValueError: it is of another type, shape or dtype, or NaN or infinite.
    """
    log_p = log_density(x)
    if not isinstance(log_p, Tensor):
        raise ValueError(
            f"the log-density must be a tensor, got a {type(log_p).__name__}: write it in torch"
        )
    if log_p.shape != (len(x),) or log_p.dtype != x.dtype:
        raise ValueError(
            f"the log-density must be (n,) in the dtype of x, got {(*log_p.shape,)} in "
            f"{log_p.dtype} for x of {(*x.shape,)} in {x.dtype}"
        )
    undefined = log_p.isnan() | (log_p == torch.inf)
    if undefined.any():
        where = ", ".join(f"{value:.4g}" for value in x[undefined][0].tolist())
        raise ValueError(f"the log-density is {log_p[undefined][0].item():g} at ({where})")
    return log_p


def _check(log_density: LogDensity, start: Gaussian) -> None:
    """Hold a log-density to its contract at points of a Gaussian.

    Raises:
        ValueError: says which part of the contract is broken.
    """
    drawn = start.sample(POINTS, torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.float64):
        x = drawn.to(dtype).requires_grad_()
        log_p = _values(log_density, x)
        if not log_p.requires_grad:
            raise ValueError("the log-density has no gradient: write all of it in torch")
        (slope,) = torch.autograd.grad(log_p.sum(), x)
        if not slope[log_p > -torch.inf].isfinite().all():
            raise ValueError("the gradient of the log-density is NaN or infinite")
        if len(idle := (slope == 0).all(0).nonzero()):
            raise ValueError(
                f"the log-density does not depend on coordinate {int(idle[0])} (from 0), so that "
                "it has no integral; is data.dim too large?"
            )
    some = _values(log_density, drawn[::2])
    if not torch.allclose(some, log_p[::2], rtol=1e-6, atol=1e-6):
        raise ValueError("the log-density of a row must depend on that row alone")


def _refuse_impossible(log_density: LogDensity, start: Gaussian) -> None:
    """Refuse a log-density that is -inf where a flow begins: its loss would be infinite."""
    x = start.sample(POINTS, torch.Generator().manual_seed(0))
    if number := int((_values(log_density, x) == -torch.inf).sum()):
        raise ValueError(
            f"the log-density is -inf at {number:,} of {POINTS:,} points where a flow begins; take "
            "coordinates that are free, as the log of what is positive"
        )
