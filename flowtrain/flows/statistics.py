"""The statistics of rows that their whitening is fitted by, in numpy."""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
QUANTILES = 2_000  # of a column, to which its bend is fitted: more change the fit by less than 1 %
# The least scale of a bend, in robust deviations of the column. Below it the map is a logarithm,
# and a held-out row a little beyond the smallest training value is infinitely surprising.
LEAST_SCALE = 0.6
SHRINKAGE = (1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7)
FOLDS = 10


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


def merged(values: Floats, u: Floats) -> bool:
    """Return whether most values of a column (n,) that differ are one in what a flow sees of u.

    >>> values = np.array([0.0, 1.0, 2.0, 3.0, 1e300])
    >>> merged(values, values / 1e300), merged(values[:4], values[:4])
    (True, False)
    """
    some = slice(None, None, -(-len(values) // QUANTILES))
    seen = len(np.unique(u[some].astype(np.float32)))
    return 2 * seen < len(np.unique(values[some]))


def johnson_bend(y: Floats) -> tuple[float, float] | None:
    """Return location and scale of the arcsinh that makes values most normal, if it gains enough.

    Args:
        y: (n,), of mean 0 and deviation 1.

    >>> y = np.random.default_rng(0).standard_normal(1000)
    >>> johnson_bend(y) is None, johnson_bend(np.sinh(2 * y) / 4) is None
    (True, False)
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


def decorrelation(w: Floats) -> Floats:
    """Return R^(-1/2) of the correlations R of rows (n, d), shrunk by what left-out rows like best.

    The symmetric root moves the columns least (ZCA; Kessy et al. 2018, arXiv 1512.00809).

    >>> w = np.random.default_rng(0).standard_normal((500, 2)) @ [[1.0, 0.8], [0.0, 0.6]]
    >>> w /= w.std(0)
    >>> bool(abs(np.corrcoef((w @ decorrelation(w)).T)[0, 1]) < 0.1)  # it was 0.8
    True
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


def total_correlation(w: Floats, matrix: Floats) -> float:
    """Return the total correlation of matrix @ w over rows w (n, d), in nats, less one constant.

    It is the sum of the entropies of the margins less the joint one, which a matrix changes by
    log|det|: what a flow has to learn beyond margins, and no margin is hard to learn. A matrix may
    well make it larger: a sum of pixels that are often 0 has no sharp margin any more. Fewer than 5
    rows tell nothing of a margin: -inf.

    >>> w = np.random.default_rng(0).standard_normal((500, 2)) @ [[1.0, 0.8], [0.0, 0.6]]
    >>> total_correlation(w, np.eye(2)) > total_correlation(w, decorrelation(w))
    True
    """
    from scipy.stats import differential_entropy  # by spacings, Vasicek 1976

    if len(w) < 5:
        return -math.inf
    with np.errstate(divide="ignore"):  # of equal values: -inf
        margins = differential_entropy(w @ matrix.T, axis=0).sum()
    return float(margins - np.linalg.slogdet(matrix)[1])
