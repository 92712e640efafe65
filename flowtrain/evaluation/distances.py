"""How far two sets of points are apart, beside how far two halves of one set are."""

from collections.abc import Callable

import torch
from torch import Tensor

from flowtrain.batching import BLOCK, by_rows
from flowtrain.flows.statistics import mean_and_deviation

POINTS = 2_000  # of each set that `sample_distances` compares: about a second
MEDIAN_POINTS = 1_000  # whose half a million distances give the kernel its bandwidth
DIRECTIONS = 128  # random lines of the sliced distance: its own error is then some 5 %


def energy_distance(x: Tensor, y: Tensor) -> Tensor:
    """Return √(2 E|X - Y| - E|X - X'| - E|Y - Y'|), a scalar >= 0 (Székely & Rizzo 2013).

    X and Y are drawn from the rows of x (n, d) and y (m, d), X' and Y' likewise and independently
    (the V-statistic), so the distance of two samples of one distribution is not zero but shrinks as
    n^(-1/2). Its square is in the data's units.

    >>> energy_distance(torch.zeros(4, 1), torch.ones(4, 1))  # √2 |0 - 1|
    tensor(1.4142)
    """
    across, within_x, within_y = (
        _mean_over_pairs(lambda distance: distance, *pair) for pair in ((x, y), (x, x), (y, y))
    )
    return (2 * across - within_x - within_y).clamp(min=0).sqrt()


def mmd(x: Tensor, y: Tensor) -> Tensor:
    """Return the unbiased estimate of the squared maximum mean discrepancy, a scalar.

    MMD² = E k(X, X') + E k(Y, Y') - 2 E k(X, Y) for rows of x (n, d) and y (m, d), where no row
    meets itself (Gretton et al. 2012, eq. 3): for samples of one distribution it scatters around 0.
    k = exp(-|x - y|² / 2 s²), s the median distance of the rows of both sets that differ.

    >>> generator = torch.Generator().manual_seed(0)
    >>> x, y = torch.randn(2, 500, 2, generator=generator, dtype=torch.float64)
    >>> float(mmd(x, y).abs()) < 0.01 < float(mmd(x, y + 1))
    True
    """
    s = _median_distance(torch.cat([x, y]))

    def kernel(distance: Tensor) -> Tensor:
        return (distance.square() / (-2 * s**2)).exp()

    n, m = len(x), len(y)
    within_x = (n * _mean_over_pairs(kernel, x, x) - 1) / (n - 1)
    within_y = (m * _mean_over_pairs(kernel, y, y) - 1) / (m - 1)
    return within_x + within_y - 2 * _mean_over_pairs(kernel, x, y)


def sliced_wasserstein(
    x: Tensor, y: Tensor, *, generator: torch.Generator, directions: int = DIRECTIONS
) -> Tensor:
    """Return √(mean of W2² along random directions), a scalar in the data's units.

    Along each direction W2 is exact for any numbers of rows, x (n, d) and y (m, d): their quantile
    functions are steps, compared where either jumps (Bonneel et al. 2015).

    Args:
        x: (n, d).
        y: (m, d).
        generator: draws the directions, on the CPU.
        directions: how many.

    >>> x = torch.arange(5.0)[:, None]
    >>> distance = sliced_wasserstein(x, x + 3, generator=torch.Generator().manual_seed(0))
    >>> round(distance.item(), 4)  # in 1D all directions are one
    3.0
    """
    n, m = len(x), len(y)
    # In units of 1 / nm the jumps are whole numbers, so that no rounding pairs the wrong points.
    jumps = torch.cat([m * torch.arange(n + 1), n * torch.arange(m + 1)]).unique().to(x.device)
    weights = jumps.diff().to(x) / (n * m)
    row_x, row_y = jumps[:-1] // m, jumps[:-1] // n
    lines = torch.randn(directions, x.shape[1], generator=generator, dtype=torch.float64).to(x)
    lines = lines / lines.norm(dim=1, keepdim=True)
    total = x.new_zeros(())
    for some in lines.split(max(1, BLOCK // (n + m))):
        sorted_x, sorted_y = ((points @ some.T).sort(dim=0).values for points in (x, y))
        total += (weights @ (sorted_x[row_x] - sorted_y[row_y]).square()).sum()
    return (total / directions).sqrt()


def sample_distances(
    samples: Tensor, data: Tensor, *, generator: torch.Generator
) -> dict[str, float]:
    """Return each distance of a flow's samples to the data beside its floor, by name.

    The data are split at random into halves: `energy` is from the samples to the first,
    `energy_floor` from the second half to the first, what a perfect flow would get. All sets
    have the same size, at most POINTS. Columns are divided by the data's standard deviation first,
    so that none drowns the others: energy² and W2 are in those units, `mmd` is MMD².

    Args:
        samples, data: rows, (n, d) and (m, d), at least 2 and 4 of them; computed in float64 on
            the CPU.
        generator: splits, thins and draws directions, on the CPU.

    >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    >>> found = sample_distances(x + 1, x, generator=torch.Generator().manual_seed(0))
    >>> list(found)
    ['energy', 'mmd', 'sliced_w2', 'energy_floor', 'mmd_floor', 'sliced_w2_floor']
    >>> found["energy"] > found["energy_floor"]
    True
    """
    samples, data = samples.detach().cpu().double(), data.detach().cpu().double()
    mean, spread = map(torch.from_numpy, mean_and_deviation(data.numpy()))
    std = spread * (len(data) / (len(data) - 1)) ** 0.5
    size = min(len(data) // 2, len(samples), POINTS)
    order = torch.randperm(len(data), generator=generator)
    drawn = samples[torch.randperm(len(samples), generator=generator)[:size]]
    half, other = data[order[:size]], data[order[size : 2 * size]]
    # A column that is constant over these rows keeps its unit.
    std = torch.where(std > 0, std, 1.0)
    model, half, other = ((rows - mean) / std for rows in (drawn, half, other))
    found = {}
    for tag, points in (("", model), ("_floor", other)):
        found[f"energy{tag}"] = energy_distance(points, half).item()
        found[f"mmd{tag}"] = mmd(points, half).item()
        sliced = sliced_wasserstein(points, half, generator=generator)
        found[f"sliced_w2{tag}"] = sliced.item()
    return found


def _mean_over_pairs(function: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Mean of a function of the distance over all pairs of rows, a block of them at a time."""
    centre = x.mean(0)  # cdist expands |x - y|², which loses digits far from the origin
    x, y = x - centre, y - centre
    sums = by_rows(lambda rows: function(torch.cdist(rows, y)).sum(1), x, width=len(y))
    return sums.sum() / (len(x) * len(y))


def _median_distance(x: Tensor) -> Tensor:
    """Median distance of rows (n, d) that differ; of evenly spaced ones if they are many."""
    distances = torch.pdist(x[:: -(-len(x) // MEDIAN_POINTS)])
    distances = distances[distances > 0]
    # Where all rows are equal, so is every kernel: any bandwidth gives zero.
    return distances.median() if len(distances) else x.new_ones(())
