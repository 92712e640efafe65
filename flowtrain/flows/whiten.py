"""The fixed map between a table's columns and the coordinates its flow learns in, in float64."""

import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from flowtrain.flows.flow import Transform
from flowtrain.flows.statistics import (
    decorrelation,
    johnson_bend,
    mean_and_deviation,
    merged,
    total_correlation,
)


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
            if bend and (found := johnson_bend(y)) is not None:
                bent[column] = True
                offset[column], scale[column] = centre + width * found[0], width * found[1]
                u[:, column] = np.arcsinh((y - found[0]) / found[1])
            else:
                u[:, column] = y
            if merged(values, u[:, column]):
                raise ValueError(
                    f"column {column} (from 0) has values up to {np.abs(values).max():.3g}, beside "
                    "which most others cannot be told apart: drop these rows, or take logarithms"
                )
        shift, spread = u.mean(0), u.std(0)
        w = (u - shift) / spread
        matrix = decorrelation(w)
        if bend and -math.inf < total_correlation(w, np.eye(d)) < total_correlation(w, matrix):
            matrix = np.eye(d)
        return cls(*map(torch.from_numpy, (offset, scale, bent, shift, spread, matrix)))
