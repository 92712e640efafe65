"""The density of a curve blurred by noise: moons, spirals and the swiss roll are such."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowtrain.batching import by_rows
from flowtrain.densities.density import REACH, Density, box_around
from flowtrain.densities.numerics import gauss_legendre, logsumexp_by_row

ORDER = 16  # Gauss-Legendre nodes on a panel of the curve
SPACING = 0.5  # mean distance of nodes in noise sd: log p to 1e-7 wherever there is mass
MAX_PANELS = 2**12  # 65,536 nodes on a curve, a millisecond of log_prob for each point
NEGLIGIBLE = 40.0  # nats below the largest term: exp(-40) is under a rounding error in float64


def curve_nodes(
    curve: Callable[[Tensor], Tensor], start: float, stop: float, sd: float
) -> tuple[Tensor, Tensor]:
    """Quadrature nodes t and weights, (m,) each, on t -> curve(t), fine enough for a blur of sd.

    Panels are cut at equal arc lengths, so that a fast stretch gets as many nodes as it needs.

    Args:
        curve: (m,) -> (m, 2).
        start: of t.
        stop: of t, beyond start.
        sd: standard deviation of the blur.

    Raises:
        ValueError: the blur is too small to be resolved.

    >>> def parabola(t):
    ...     return torch.stack([t, t**2], dim=1)
    >>> t, weights = curve_nodes(parabola, start=0.0, stop=1.0, sd=0.1)
    >>> round(float(weights @ t**2), 6)  # ∫ t² dt
    0.333333
    """
    t = torch.linspace(start, stop, 2**16, dtype=torch.float64)
    length = torch.linalg.vector_norm(curve(t).diff(dim=0), dim=1).cumsum(0)
    sharpest = float(length[-1]) / (ORDER * SPACING * MAX_PANELS)
    if not sharpest <= sd < math.inf:
        raise ValueError(f"noise must be >= {sharpest:.2g} for an exact density, got {sd:g}")
    panels = math.ceil(MAX_PANELS * sharpest / sd)
    cuts = torch.searchsorted(length, length[-1] * torch.arange(1, panels) / panels)
    return gauss_legendre(torch.cat([t[:1], t[cuts], t[-1:]]), ORDER)


class BlurredCurve(Density):
    """The density Σ_j w_j k(x - c_j), k a Gaussian after an optional uniform jitter of each axis.

    Right to 1e-7 within ten sd of the curve, to about a nat in the tails beyond (p < exp(-50)).

    Args:
        centres: nodes c_j on the curve, (m, 2).
        weights: their probabilities w_j, (m,).
        sd: standard deviation of the Gaussian.
        jitter: full width of the uniform jitter, 0 for none.

    Raises:
        ValueError: sd is not positive, or jitter is negative.

    >>> class Blob(BlurredCurve):  # a curve of one point; a subclass states its samples
    ...     def sample(self, n, generator):
    ...         return self.sd * torch.randn(n, 2, generator=generator, dtype=torch.float64)
    >>> blob = Blob(torch.zeros(1, 2), torch.ones(1), sd=2.0)
    >>> blob.log_prob(torch.zeros(1, 2))  # -log 2π sd²
    tensor([-3.2242])
    """

    def __init__(self, centres: Tensor, weights: Tensor, *, sd: float, jitter: float = 0.0) -> None:
        if not 0 <= jitter < math.inf:
            raise ValueError(f"jitter must be >= 0, got {jitter:g}")
        self.centres = centres
        self.weights = weights
        self.sd = sd
        # A jitter far below the noise changes nothing that float64 could tell.
        self.half = jitter / 2 if jitter > 1e-4 * sd else 0.0
        self.reach = self.half + REACH * sd
        super().__init__(window=box_around(centres, self.reach), resolution=sd)

    def log_prob(self, x: Tensor) -> Tensor:
        centres, log_weights = self.centres.to(x), self.weights.log().to(x)

        def of_rows(rows: Tensor) -> Tensor:
            with torch.no_grad():  # most nodes are too far off to deserve a special function
                x_gap, y_gap = (
                    (rows[:, i, None] - centres[:, i]).abs_().sub_(self.half).clamp_(min=0)
                    for i in (0, 1)
                )
                distance = x_gap.square_().add_(y_gap.square_())
                limit = distance.amin(1, keepdim=True) + 2 * NEGLIGIBLE * self.sd**2
                row, node = (distance <= limit).nonzero(as_tuple=True)
            gap = (rows[row] - centres[node]).abs()
            terms = self._log_kernel(gap).sum(1) + log_weights[node]
            return logsumexp_by_row(terms, row, len(rows))

        return by_rows(of_rows, x, len(centres))

    def _prob_on_grid(self, *axes: Tensor) -> Tensor:
        x, y = axes
        # The kernel is a product over the axes, so the sum over the curve is a matrix product.
        near = (self.centres[:, 0] - x.mean()).abs() < self.reach + (x.max() - x.min()) / 2
        centres, weights = self.centres[near], self.weights[near]
        along_x, along_y = (
            self._log_kernel((axis[:, None] - centres[:, i]).abs()).exp()
            for i, axis in enumerate((x, y))
        )
        return (along_x * weights) @ along_y.T

    def _log_kernel(self, gap: Tensor) -> Tensor:
        """One axis of the kernel's log-density at a distance gap >= 0."""
        if self.half == 0:
            return -0.5 * (gap / self.sd).square() - math.log(self.sd * math.sqrt(2 * math.pi))
        # (erfc(a) - erfc(b)) / 4 half with exp(-a²) taken out, so that no tail underflows; below
        # a = -6 erfc(a) is 2 to the last bit, where exp(a²) would overflow for a wide jitter.
        unit = self.sd * math.sqrt(2)
        a, b = ((gap - self.half) / unit).clamp(min=-6), (gap + self.half) / unit
        # Far out a and b are one number, and their difference is known.
        apart = (a - b).clamp(max=-2 * self.half / unit)
        scaled: Tensor = torch.special.erfcx(a) - torch.special.erfcx(b) * (apart * (a + b)).exp()
        return scaled.log() - a.square() - math.log(4 * self.half)
