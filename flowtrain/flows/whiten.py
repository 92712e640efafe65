"""The fixed map between a table's columns and the coordinates its flow learns in, in float64."""

import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowtrain.flows.flow import Transform

Floats = NDArray[np.float64]

QUANTILES = 2_000  # of a column, to which its bend is fitted: more change the fit by less than 1 %
# The least scale of a bend, in robust deviations of the column. Below it the map is a logarithm,
# and a held-out row a little beyond the smallest training value is infinitely surprising.
LEAST_SCALE = 0.6
SHRINKAGE = (1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7)
FOLDS = 10


class Whiten(Transform):
    """The fixed map under which a table looks like a standard normal, as far as two laws can.

    Each column is standardised, or, where its tails are heavy or skewed, bent by the arcsinh that
    makes it most normal (Johnson's SU distribution, Biometrika 36, 1949, eq. 33); then the columns
    are decorrelated. A flow that has learned nothing yet is the Gaussian of the training rows, with
    Johnson's margins. Columns that are nearer to independence as they stand, as pixels are, are not
    decorrelated. All is computed in float64, and stays there when the flow is cast: an offset
    of 1e8 with unit spread, or times since 1970, lose no digit.

        y = (x - offset) / scale,  u = asinh(y) if bent else y,  z = matrix (u - shift) / spread

    Args:
        offset, scale: of the columns, (d,).
        bent: which columns are bent, (d,) booleans.
        shift, spread: mean and deviation of u, (d,).
        matrix: what decorrelates, (d, d), or the identity.

    >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> x[:, 1] = 1e8 + x[:, 0].exp()
    >>> whiten = Whiten.fit(x, bend=True)
    >>> z, log_det = whiten.inverse(x)
    >>> z.dtype, log_det.dtype, torch.allclose(whiten(z)[0], x, rtol=0, atol=1e-7)
    (torch.float64, torch.float64, True)
    """

    offset: Tensor
    scale: Tensor
    bent: Tensor
    shift: Tensor
    spread: Tensor
    matrix: Tensor

    def __init__(
        self, offset: Tensor, scale: Tensor, bent: Tensor, shift: Tensor, spread: Tensor,
        matrix: Tensor,
    ) -> None:  # fmt: skip
        super().__init__()
        for name, value in (
            ("offset", offset), ("scale", scale), ("shift", shift), ("spread", spread),
            ("matrix", matrix),
        ):  # fmt: skip
            self.register_buffer(name, value.double().clone())
        self.register_buffer("bent", bent.clone())

    @property
    def dim(self) -> int:
        """The number of columns, d."""
        return len(self.offset)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        u = self.shift + self.spread * torch.linalg.solve(self.matrix, z.double().mT).mT
        # Not the sinh of what is not bent: it may overflow, and its gradient then is NaN.
        y = torch.where(self.bent, torch.sinh(torch.where(self.bent, u, 0.0)), u)
        return self.offset + self.scale * y, -self._log_det(y)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = (x.double() - self.offset) / self.scale
        u = torch.where(self.bent, torch.asinh(y), y)
        z = ((u - self.shift) / self.spread) @ self.matrix.mT
        return z, self._log_det(y)

    def _log_det(self, y: Tensor) -> Tensor:
        """Return log|det dz/dx| at y, (n, d) -> (n,)."""
        fixed = torch.linalg.slogdet(self.matrix)[1] - (self.scale.log() + self.spread.log()).sum()
        # log √(1 + y²), without y², which overflows first
        bends = torch.where(self.bent, torch.hypot(y, torch.ones_like(y)).log(), 0.0)
        log_det: Tensor = fixed - bends.sum(-1)
        return log_det

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Self:
        def moved(buffer: Tensor) -> Tensor:
            if buffer.dtype != torch.float64:
                return fn(buffer)
            return fn(buffer.view(torch.int64)).view(torch.float64)  # moved, never cast

        super()._apply(moved, *args, **kwargs)  # type: ignore[no-untyped-call]
        return self

    @classmethod
    def blank(cls, dim: int) -> Self:
        """Return the identity, of the shapes that a saved one is loaded into.

        >>> Whiten.blank(2).inverse(torch.ones(1, 2))
        (tensor([[1., 1.]], dtype=torch.float64), tensor([0.], dtype=torch.float64))
        """
        zeros = torch.zeros(dim, dtype=torch.float64)
        eye = torch.eye(dim, dtype=torch.float64)
        return cls(zeros, zeros + 1, zeros > 0, zeros, zeros + 1, eye)

    @classmethod
    def fit(cls, x: Tensor, *, bend: bool) -> Self:
        """Fit to training rows: margins and covariance of maximum likelihood, the latter shrunk.

        A column is bent where that gains more likelihood than its two parameters can by chance
        (BIC). The correlations are shrunk towards none by the amount under which rows left out, a
        tenth at a time, are likeliest; without shrinkage this is the best Gaussian.

        Args:
            x: (n, d).
            bend: whether columns may be bent at all, and left correlated; else the law that a flow
                begins at is the best Gaussian.

        Raises:
            ValueError: a column is constant, spans more than float64 can, or has a value beside
                which the others are one.

        >>> x = torch.tensor([[1.0, 0.0], [2.0, 3.0], [4.0, 1.0], [5.0, 4.0]], dtype=torch.float64)
        >>> z, _ = Whiten.fit(x, bend=False).inverse(x)
        >>> bool((z.mean(0).abs() < 1e-6).all())
        True
        """
        rows = x.detach().cpu().double().numpy()
        n, d = rows.shape
        (offset, scale), bent = mean_and_deviation(rows), np.zeros(d, dtype=bool)
        u = np.empty_like(rows)
        for column in range(d):
            values, centre, width = rows[:, column], offset[column], scale[column]
            if not (0 < width < math.inf):
                what = "is constant" if width == 0 else "spans more than float64 can"
                raise ValueError(f"column {column} (from 0) {what} over the {n} training rows")
            y = (values - centre) / width
            if bend and (found := _bend(y)) is not None:
                bent[column] = True
                offset[column], scale[column] = centre + width * found[0], width * found[1]
                u[:, column] = np.arcsinh((y - found[0]) / found[1])
            else:
                u[:, column] = y
            if _merged(values, u[:, column]):
                raise ValueError(
                    f"column {column} (from 0) has values up to {np.abs(values).max():.3g}, beside "
                    "which most others cannot be told apart: drop these rows, or take logarithms"
                )
        shift, spread = u.mean(0), u.std(0)
        w = (u - shift) / spread
        matrix = _decorrelate(w)
        if bend and -math.inf < _dependence(w, np.eye(d)) < _dependence(w, matrix):
            matrix = np.eye(d)
        return cls(*map(torch.from_numpy, (offset, scale, bent, shift, spread, matrix)))


def mean_and_deviation(rows: Floats) -> tuple[Floats, Floats]:
    """Return the mean and the standard deviation of each column, whose squares do not overflow.

    Args:
        rows: (n, d), of any size that float64 has.

    Returns:
        both of shape (d,); a deviation is infinite where a column spans more than float64 can.

    >>> mean, deviation = mean_and_deviation(np.array([[1e300, 2.0], [3e300, 2.0]]))
    >>> mean.tolist(), deviation.tolist()
    ([2e+300, 2.0], [1e+300, 0.0])
    """
    with np.errstate(over="ignore", invalid="ignore"):
        apart = rows - rows[0]
        largest = np.abs(apart).max(0)
        unit = np.where((largest > 0) & (largest < math.inf), largest, 1.0)
        mean = np.where(largest < math.inf, rows[0] + unit * (apart / unit).mean(0), rows[0])
        deviation = np.where(largest < math.inf, unit * (apart / unit).std(0), math.inf)
    return mean, deviation


def _merged(values: Floats, u: Floats) -> bool:
    """Return whether most values of a column (n,) that differ are one in what a flow sees of u."""
    some = slice(None, None, -(-len(values) // QUANTILES))
    seen = len(np.unique(u[some].astype(np.float32)))
    return 2 * seen < len(np.unique(values[some]))


def _bend(y: Floats) -> tuple[float, float] | None:
    """Return location and scale of the arcsinh that makes values most normal, if it gains enough.

    Args:
        y: (n,), of mean 0 and deviation 1.
    """
    n = len(y)
    some = y if n <= QUANTILES else np.quantile(y, (np.arange(QUANTILES) + 0.5) / QUANTILES)
    low, middle, high = np.quantile(y, [0.25, 0.5, 0.75])
    width = float(high - low) / 1.35 or 1.0  # as wide as a normal's deviation
    locations, log_scales = np.linspace(-8, 8, 17), np.linspace(math.log(LEAST_SCALE), 4, 9)
    for _ in range(4):  # a grid, and finer ones around its best
        nll = [
            [_johnson_nll(some, middle + width * at, width * math.exp(s)) for s in log_scales]
            for at in locations
        ]
        row, column = np.unravel_index(np.argmin(nll), np.shape(nll))
        at, log_scale = locations[row], log_scales[column]
        reach, stretch = np.diff(locations)[0], np.diff(log_scales)[0]
        locations = at + reach * np.linspace(-1, 1, 5)
        log_scales = (log_scale + stretch * np.linspace(-1, 1, 5)).clip(math.log(LEAST_SCALE))
    location, scale = float(middle + width * at), float(width * math.exp(log_scale))
    gain = n * (math.log(y.std()) - _johnson_nll(y, location, scale))
    return (location, scale) if gain > math.log(n) else None


def _johnson_nll(y: Floats, location: float, scale: float) -> float:
    """Return the mean NLL of Johnson's SU law less ½ log 2πe, its other two at their best."""
    t = (y - location) / scale
    u = np.arcsinh(t)
    return float(np.log(u.std()) + 0.5 * np.log1p(t * t).mean() + math.log(scale))


def _decorrelate(w: Floats) -> Floats:
    """Return R^(-1/2) of the correlations R of rows (n, d), shrunk by what left-out rows like best.

    The symmetric root moves the columns least (ZCA; Kessy et al. 2018, arXiv 1512.00809).
    """
    n, d = w.shape
    folds = np.arange(n) % FOLDS
    score = np.zeros(len(SHRINKAGE))
    for fold in range(min(FOLDS, n)):
        kept, left = w[folds != fold], w[folds == fold]
        centre = kept.mean(0)
        values, vectors = np.linalg.eigh((kept - centre).T @ (kept - centre) / len(kept))
        squares = np.square((left - centre) @ vectors).sum(0)
        for index, shrunk in enumerate(SHRINKAGE):
            variances = (1 - shrunk) * values.clip(0) + shrunk
            score[index] += len(left) * np.log(variances).sum() + (squares / variances).sum()
    best = SHRINKAGE[int(np.argmin(score))]
    values, vectors = np.linalg.eigh((1 - best) * (w.T @ w) / n + best * np.eye(d))
    root: Floats = (vectors / np.sqrt(values)) @ vectors.T
    return root


def _dependence(w: Floats, matrix: Floats) -> float:
    """Return the total correlation of matrix @ w over rows w (n, d), in nats, less one constant.

    It is the sum of the entropies of the margins less the joint one, which a matrix changes by
    log|det|: what a flow has to learn beyond margins, and no margin is hard to learn. A matrix may
    well make it larger: a sum of pixels that are often 0 has no sharp margin any more.
    """
    from scipy.stats import differential_entropy  # by spacings, Vasicek 1976

    with np.errstate(divide="ignore"):  # of equal values: -inf
        margins = differential_entropy(w @ matrix.T, axis=0).sum()
    return float(margins - np.linalg.slogdet(matrix)[1])
