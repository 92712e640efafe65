"""Base distributions against torch.distributions and quadrature, in float64."""

import math

import pytest
import torch
from torch import Tensor

from flowtrain.flows.bases import Base, Normal

CASES = {f"normal-{dim}d": Normal(dim) for dim in (1, 2, 3)}


def points(dim: int, n: int = 50) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(n, dim, generator=generator, dtype=torch.float64)


@pytest.fixture(params=CASES)
def base(request: pytest.FixtureRequest) -> Base:
    return CASES[request.param].double()


def test_the_normal_law_is_that_of_torch() -> None:
    z = points(3)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    torch.testing.assert_close(Normal(3).log_prob(z), expected, rtol=0, atol=1e-12)


def test_a_base_keeps_the_dtype_of_its_points(base: Base) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        z = points(base.dim).to(dtype)
        assert base.log_prob(z).dtype == base.cdf(z).dtype == dtype
        assert base.sample(4, None, dtype=dtype, device=z.device).dtype == dtype


def test_samples_are_uniform_by_the_distribution_function(base: Base) -> None:
    n, generator = 20_000, torch.Generator().manual_seed(1)
    z = base.sample(n, generator, dtype=torch.float64, device=torch.device("cpu"))
    u = base.cdf(z).sort(0).values
    steps = (torch.arange(n) + 0.5)[:, None] / n
    assert (u - steps).abs().max() < 1.63 / math.sqrt(n)  # Kolmogorov-Smirnov at 1 %


def test_the_density_is_the_slope_of_the_distribution_function(base: Base) -> None:
    """∂(u_1 .. u_d)/∂z is triangular: its determinant, the product of its diagonal, is p(z)."""
    z = points(base.dim).requires_grad_()
    u = base.cdf(z)
    slopes = [
        torch.autograd.grad(u[:, i].sum(), z, retain_graph=True)[0][:, i] for i in range(base.dim)
    ]
    density = torch.stack(slopes).prod(0)
    torch.testing.assert_close(density, base.log_prob(z).exp(), rtol=1e-9, atol=1e-15)
