"""What a flow must beat on held-out points: Gaussians, and a kernel density estimate."""

import math

import torch
from torch import Tensor

from flowtrain.batching import BLOCK
from flowtrain.errors import UserError
from flowtrain.flows.statistics import mean_and_deviation

RIDGE = 1e-6  # of each column's variance, added to it
KERNELS = 10_000  # with TEST rows 1e8 pairs, two seconds of a CPU core
TEST = 10_000
LEFT_OUT = 500  # rows that choose the bandwidth, each left out in turn: another two seconds


def gaussian_nll(train: Tensor, test: Tensor) -> float:
    """Return the NLL of held-out rows, in nats, under the Gaussian of maximum likelihood.

    It has the mean and full covariance of the training rows. RIDGE of each column's variance is
    added to it, so that the density exists where a column is a combination of others.

    Args:
        train, test: rows, (n, d) and (m, d); computed in float64 on the CPU.

    Raises:
        UserError: a column is constant over the training rows.

    >>> train, test = torch.tensor([[-1.0], [1.0]]), torch.zeros(2, 1)
    >>> round(gaussian_nll(train, test), 4)  # ½ log 2π, at the mean of N(0, 1)
    0.9189
    """
    from sklearn.mixture import GaussianMixture

    z, z_test, log_scale = _standardized(train, test)
    # With one component there is nothing to start from, and nothing to iterate.
    best = GaussianMixture(1, reg_covar=RIDGE, init_params="random_from_data", random_state=0)
    best.fit(z.numpy())
    return float(log_scale) - float(best.score(z_test.numpy()))


def linear_gaussian_nll(
    train: Tensor, test: Tensor, train_context: Tensor, test_context: Tensor
) -> float:
    """Return the NLL, in nats, under the likeliest Gaussian of mean linear in the condition.

    It is N(A c + b, Σ).

    Args:
        train, test: rows, (n, d) and (m, d); computed in float64 on the CPU.
        train_context, test_context: what they are conditional on, (n, c) and (m, c).

    Raises:
        UserError: a column is constant over the training rows.

    >>> context = torch.linspace(-1, 1, 100)[:, None]
    >>> x = 3 * context + 0.1 * torch.randn(100, 1, generator=torch.Generator().manual_seed(0))
    >>> linear_gaussian_nll(x, x, context, context) < gaussian_nll(x, x) - 2
    True
    """
    z, z_test, log_scale = _standardized(train, test)
    c, c_test = (
        torch.cat([each.cpu().double(), torch.ones(len(each), 1, dtype=torch.float64)], 1)
        for each in (train_context, test_context)
    )
    # One-hot columns add up to the constant: of the solutions that leaves, the smallest.
    slope = torch.linalg.lstsq(c, z, driver="gelsd").solution
    found = gaussian_nll(z - c @ slope, z_test - c_test @ slope)
    return float(log_scale) + found


def class_gaussian_nll(
    train: Tensor, test: Tensor, train_context: Tensor, test_context: Tensor
) -> float | None:
    """Return the NLL, in nats, under a Gaussian for each class: its own mean and covariance.

    The covariances are shrunk to the one that the classes have in common, as by d + 1 more rows of
    that one: so few rows of a class do no harm.

    Args:
        train, test: rows, (n, d) and (m, d); computed in float64 on the CPU.
        train_context, test_context: equal rows are a class, (n, c) and (m, c).

    Returns:
        None where a class has fewer than two training rows.

    Raises:
        UserError: a column is constant over the training rows.

    >>> context = torch.tensor([[0.0], [1.0]]).repeat(50, 1)
    >>> x = 3 * context + 0.1 * torch.randn(100, 1, generator=torch.Generator().manual_seed(0))
    >>> class_gaussian_nll(x, x, context, context) < gaussian_nll(x, x) - 2
    True
    """
    z, z_test, log_scale = _standardized(train, test)
    contexts = torch.cat([train_context, test_context]).cpu()
    classes, which = torch.unique(contexts, dim=0, return_inverse=True)
    own, own_test = which.split([len(z), len(z_test)])
    if torch.bincount(own, minlength=len(classes)).min() < 2:
        return None
    means = torch.stack([z[own == kind].mean(0) for kind in range(len(classes))])
    residual, residual_test = z - means[own], z_test - means[own_test]
    common = residual.mT @ residual / len(z) + RIDGE * torch.eye(z.shape[1], dtype=z.dtype)
    root = torch.linalg.cholesky(common)
    w, w_test = (
        torch.linalg.solve_triangular(root, each.mT, upper=False).mT
        for each in (residual, residual_test)
    )
    nll, more = torch.empty(len(z_test), dtype=z.dtype), z.shape[1] + 1
    for kind in own_test.unique().tolist():
        rows = w[own == kind]
        shrunk = (rows.mT @ rows + more * torch.eye(len(root), dtype=z.dtype)) / (len(rows) + more)
        law = torch.distributions.MultivariateNormal(torch.zeros_like(means[0]), shrunk)
        nll[own_test == kind] = -law.log_prob(w_test[own_test == kind])
    return float(nll.mean() + root.diagonal().log().sum() + log_scale)


def kde_nll(train: Tensor, test: Tensor, seed: int) -> float:
    """Return the NLL, in nats, under equal Gaussians on each of up to KERNELS training rows.

    The kernels are round where every column has mean 0 and deviation 1 over the training rows.
    Their width maximises the likelihood of up to LEFT_OUT training rows, each left out in turn.

    Args:
        train, test: rows, (n, d) and (m, d); computed in float64 on the CPU.
        seed: decides which rows stay where train has over KERNELS, or test over TEST.

    Raises:
        UserError: a column is constant over the training rows.

    >>> from flowtrain.densities import Rings
    >>> x = Rings(radii=[1.0, 2.0], noise=0.1).sample(1000, torch.Generator().manual_seed(0))
    >>> kde_nll(x[:500], x[500:], seed=0) < gaussian_nll(x[:500], x[500:])
    True
    """
    generator = torch.Generator().manual_seed(seed)
    z, z_test, log_scale = _standardized(train, test)
    z = z[torch.randperm(len(z), generator=generator)[:KERNELS]]
    z_test = z_test[torch.randperm(len(z_test), generator=generator)[:TEST]]
    return float(log_scale - kde_log_prob(z, z_test, left_out_bandwidth(z)).mean())


def kde_log_prob(centres: Tensor, x: Tensor, bandwidth: float) -> Tensor:
    """Log of the mean of Gaussians N(centre, bandwidth² I), in nats: (n, d), (m, d) -> (m,).

    >>> kde_log_prob(torch.zeros(1, 1), torch.zeros(1, 1), bandwidth=1.0)  # -½ log 2π
    tensor([-0.9189])
    """
    blocks = x.split(max(1, BLOCK // len(centres)))
    return torch.cat([_log_prob(torch.cdist(rows, centres), centres, bandwidth) for rows in blocks])


def left_out_bandwidth(x: Tensor) -> float:
    """Return the bandwidth under which rows (n, d) are likeliest by the kernels on the others.

    The first LEFT_OUT rows are scored; the bandwidth lies within 0.01 and 3, and is found to 1 %.

    >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> 0.1 < left_out_bandwidth(x) < 1
    True
    """
    from scipy.optimize import minimize_scalar

    distances = torch.cdist(x[:LEFT_OUT], x)
    distances.fill_diagonal_(math.inf)

    def nll(log_bandwidth: float) -> float:
        return -_log_prob(distances, x, math.exp(log_bandwidth)).mean().item()

    # The likelihood may have several peaks: rounded data has one at the width of the rounding.
    grid = torch.linspace(math.log(0.01), math.log(3), 13, dtype=torch.float64).tolist()
    best = min(range(len(grid)), key=lambda i: nll(grid[i]))
    bracket = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = minimize_scalar(nll, bounds=bracket, method="bounded", options={"xatol": 0.01})
    return math.exp(found.x)


def _log_prob(distances: Tensor, centres: Tensor, bandwidth: float) -> Tensor:
    n, d = centres.shape
    constant = math.log(n) + 0.5 * d * math.log(2 * math.pi) + d * math.log(bandwidth)
    return (distances.square() / (-2 * bandwidth**2)).logsumexp(1) - constant


def _standardized(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return both with mean 0 and deviation 1 over the training rows, and Σ log deviations."""
    train, test = train.cpu().double(), test.cpu().double()
    mean, std = map(torch.from_numpy, mean_and_deviation(train.numpy()))
    if not std.all():
        column = int((std == 0).nonzero()[0])
        raise UserError(f"column {column} (from 0) is constant over the {len(train)} training rows")
    return (train - mean) / std, (test - mean) / std, std.log().sum()
