"""What a density of the user's own must keep to before anything is trained on it."""

import torch
from torch import Tensor

from flowtrain.densities.density import Density

POINTS = 10_000
NODES = 400  # of a quadrature, per axis


def check_density(density: object) -> None:
    """Hold a density to the contract of `Density`: shapes, finite values, mass 1, own samples.

    No grid covers more than two dimensions: there the entropy alone tells a mass that is not 1.

    Raises:
        ValueError: says which part of the contract is broken, and by how much.

    >>> from flowtrain.densities import Rings
    >>> check_density(Rings(radii=[1.0, 2.0], noise=0.1))
    >>> check_density("rings")
    Traceback (most recent call last):
        ...
    ValueError: a str is no density: subclass flowtrain.densities.Density
    """
    if not isinstance(density, Density):
        raise ValueError(
            f"a {type(density).__name__} is no density: subclass flowtrain.densities.Density"
        )
    x = density.sample(POINTS, torch.Generator().manual_seed(0))
    if x.shape != (POINTS, density.dim) or x.dtype != torch.float64:
        raise ValueError(
            f"sample(n, generator) must return (n, {density.dim}) in float64, "
            f"got {(*x.shape,)} in {x.dtype} for n = {POINTS}"
        )
    if not x.isfinite().all():
        raise ValueError("sample(n, generator) must return finite points")
    if not torch.equal(x, density.sample(POINTS, torch.Generator().manual_seed(0))):
        raise ValueError("sample(n, generator) must take all its chance from the generator")
    surprise = -_checked_log_prob(density, x, "its samples")
    low, high = density.window
    if density.dim <= 2:
        nodes, weights = density.quadrature(NODES)
        mass = float(weights @ _checked_log_prob(density, nodes, "its window").exp())
        if abs(mass - 1) > 0.01:
            raise ValueError(
                f"exp(log_prob) integrates to {mass:.4f} over the window, it must to 1"
            )
    else:
        inside = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)).double()
        _checked_log_prob(density, low + (high - low) * inside, "its window")
    outside = float(((x < low) | (x > high)).any(1).double().mean())
    if outside > 0.001:
        raise ValueError(f"{outside:.1%} of the samples lie outside the window")
    error = float(surprise.std()) / POINTS**0.5
    gap = float(surprise.mean()) - density.entropy
    if not abs(gap) < 6 * error + 0.01:
        raise ValueError(
            f"the samples do not follow log_prob: their mean of -log_prob is {gap:+.4f} nats "
            f"off the entropy"
        )


def check_components(density: Density) -> None:
    """Hold the components of a density to their contract: each is a density, their mixture is it.

    Raises:
        ValueError: says which part of the contract is broken.

    >>> from flowtrain.densities import Rings
    >>> check_components(Rings(radii=[1.0, 2.0], noise=0.1))
    """
    x = density.sample(POINTS, torch.Generator().manual_seed(0))
    parts = density.components()
    for _, part in parts:
        check_density(part)
    mixture = sum((weight * part.log_prob(x).exp() for weight, part in parts), x.new_zeros(len(x)))
    p = density.log_prob(x).exp()
    if parts and not (mixture - p).abs().mean() <= 0.01 * p.mean():
        raise ValueError("the weighted sum of components() is another density")


def _checked_log_prob(density: Density, points: Tensor, name: str) -> Tensor:
    log_p = density.log_prob(points)
    if log_p.shape != (len(points),) or log_p.dtype != points.dtype:
        raise ValueError(
            f"log_prob(x) must return (n,) in the dtype of x, got {(*log_p.shape,)} "
            f"in {log_p.dtype} for x of {(*points.shape,)} in {points.dtype}"
        )
    if log_p.isnan().any() or (log_p == torch.inf).any():
        raise ValueError(f"log_prob(x) is NaN or infinite on {name}")
    return log_p
