"""Base distributions against torch.distributions and quadrature, in float64."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, distributions, nn

from flowtrain.config.model import BASES
from flowtrain.config.section import imported
from flowtrain.flows.bases import Base, Mixture, Normal, StudentT, log_peak
from flowtrain.flows.flow import Standardize
from flowtrain.flows.linear import affine

Randomize = Callable[[nn.Module, torch.Generator], None]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CASES: dict[str, tuple[type[Base], int]] = {
    f"{name}-{dim}d": (imported(owner), dim) for name, owner in BASES.items() for dim in (1, 2, 3)
}


def build(kind: type[Base], dim: int) -> Base:
    if kind is Mixture:
        return Mixture(dim, components=3, generator=seeded(0)).double()
    return kind(dim).double()


@pytest.fixture(params=CASES)
def base(request: pytest.FixtureRequest, randomize: Randomize) -> Base:
    found = build(*CASES[request.param])
    randomize(found, seeded(1))
    return found


def points(dim: int, n: int = 50) -> Tensor:
    return 3 * torch.randn(n, dim, generator=seeded(0), dtype=torch.float64)


def draws(base: Base, n: int, seed: int = 1) -> Tensor:
    return base.sample(n, seeded(seed), dtype=torch.float64, device=torch.device("cpu"))


def even(base: Base, n: int, seed: int) -> Tensor:
    return base.sample_evenly(n, seeded(seed), dtype=torch.float64, device=torch.device("cpu"))


def of_torch(base: Base) -> distributions.Distribution:
    """Return the same law as torch.distributions has it."""
    if isinstance(base, StudentT):  # a Gaussian whose precision is drawn: see the test below
        assert base.dim == 1
        return distributions.Independent(distributions.StudentT(base.df, 0.0, base.scale), 1)
    if isinstance(base, Mixture):
        components = distributions.Independent(distributions.Normal(base.means, base.scales), 1)
        return distributions.MixtureSameFamily(distributions.Categorical(base.weights), components)
    zeros = torch.zeros(base.dim, dtype=torch.float64)
    return distributions.Independent(distributions.Normal(zeros, zeros + 1), 1)


def test_the_densities_are_those_of_torch(base: Base) -> None:
    z = points(base.dim)
    if isinstance(base, StudentT) and base.dim > 1:
        expected = student_t_by_quadrature(z, base.df, base.scale)
    else:
        expected = of_torch(base).log_prob(z)
    torch.testing.assert_close(base.log_prob(z), expected, rtol=0, atol=1e-10)


def student_t_by_quadrature(z: Tensor, df: Tensor, scale: Tensor) -> Tensor:
    """Integrate N(z; 0, scale² / g) over the law of the precision g, Gamma(df / 2, df / 2)."""
    log_g = torch.linspace(-40, 8, 4001, dtype=torch.float64)
    precision = distributions.Gamma(df / 2, df / 2).log_prob(log_g.exp())
    normal = distributions.Normal(0.0, scale * (-log_g / 2).exp()[:, None, None])
    terms = normal.log_prob(z).sum(-1) + (precision + log_g)[:, None]
    log_p: Tensor = terms.logsumexp(0) + (log_g[1] - log_g[0]).log()
    return log_p


def test_the_density_is_the_slope_of_the_distribution_function(base: Base) -> None:
    """∂u_i/∂z_j = 0 for j > i: the determinant, the product of the diagonal, is p(z)."""
    z, h = points(base.dim), 1e-5
    slopes = torch.stack(
        [
            (base.cdf(z + step) - base.cdf(z - step)) / (2 * h)
            for step in h * torch.eye(base.dim, dtype=torch.float64)
        ],
        -1,
    )
    assert slopes.triu(1).abs().max() == 0
    density = slopes.diagonal(dim1=-2, dim2=-1).prod(-1)
    torch.testing.assert_close(density, base.log_prob(z).exp(), rtol=1e-5, atol=1e-9)


def test_samples_are_uniform_by_the_distribution_function(base: Base) -> None:
    n = 20_000
    u = base.cdf(draws(base, n)).sort(0).values
    steps = (torch.arange(n) + 0.5)[:, None] / n
    assert (u - steps).abs().max() < 1.63 / math.sqrt(n)  # Kolmogorov-Smirnov at 1 %


def test_each_even_sample_is_by_the_law(base: Base) -> None:
    n = 4_000
    first = torch.cat([even(base, 8, seed)[:1] for seed in range(n)])
    u = base.cdf(first).sort(0).values
    steps = (torch.arange(n) + 0.5)[:, None] / n
    assert (u - steps).abs().max() < 1.63 / math.sqrt(n)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_even_samples_of_a_normal_law_leave_a_mean_a_fifth_of_its_noise(dim: int) -> None:
    def noise(draw: Callable[[Base, int, int], Tensor]) -> Tensor:
        means = [draw(Normal(dim), 512, seed).square().mean(0) for seed in range(50)]
        return torch.stack(means).std(0)

    assert (noise(even) < 0.2 * noise(draws)).all()
    assert not torch.equal(even(Normal(dim), 8, 0), even(Normal(dim), 8, 1))


def test_samples_carry_the_gradient_of_their_law(base: Base) -> None:
    """d E f(Z) / dθ by the samples is E f(Z) d log p(Z) / dθ."""
    n, parameters = 200_000, list(base.parameters())
    if not parameters:
        return
    for parameter in parameters:
        parameter.data.mul_(0.5)  # for scores of less variance
    z = draws(base, n)
    assert torch.equal(z.detach(), no_grad_draws(base, n))
    away = torch.linspace(0.5, 1.0, base.dim, dtype=torch.float64)

    def value(z: Tensor) -> Tensor:
        return torch.tanh(z - away).sum(-1) + torch.cos(z.sum(-1))

    by_samples = torch.autograd.grad(value(z).mean(), parameters)
    still = z.detach()
    centred = value(still) - value(still).mean()
    by_scores = torch.autograd.grad((centred * base.log_prob(still)).mean(), parameters)
    for ours, theirs in zip(by_samples, by_scores, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02)
    assert max(each.abs().max() for each in by_scores) > 0.04


@torch.no_grad()
def no_grad_draws(base: Base, n: int) -> Tensor:
    return draws(base, n)


def test_a_base_keeps_the_dtype_of_its_points(base: Base) -> None:
    base = base.float()
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        z = points(base.dim).to(dtype)
        assert base.log_prob(z).dtype == base.cdf(z).dtype == dtype


def test_a_base_that_learned_nothing_is_near_the_normal_law() -> None:
    z = torch.randn(5000, 4, generator=seeded(0), dtype=torch.float64)
    for kind in (StudentT, Mixture):
        gap = Normal(4).log_prob(z) - build(kind, 4).log_prob(z)
        assert 0 < gap.mean() < 0.25


def test_many_degrees_of_freedom_lose_no_digits_in_float32() -> None:
    for df in (0.3, 2.0, 30.0, 1e3, 1e7):
        exact = torch.tensor([df], dtype=torch.float64)
        expected = distributions.StudentT(exact).log_prob(torch.zeros_like(exact))
        assert log_peak(exact).item() == pytest.approx(expected.item(), abs=1e-8)
        assert log_peak(exact.float()).item() == pytest.approx(expected.item(), abs=2e-6)


def test_the_weights_of_a_mixture_are_its_shares_of_the_samples(randomize: Randomize) -> None:
    base = Mixture(1, components=3, generator=seeded(0)).double()
    randomize(base, seeded(1))
    with torch.no_grad():
        base.shift.copy_(torch.tensor([[-50.0], [0.0], [50.0]]) - base.start)
    shares = (draws(base, 100_000).detach() / 50).round().long().flatten().add(1).bincount() / 1e5
    torch.testing.assert_close(shares.double(), base.weights.detach(), rtol=0, atol=5e-3)


def test_a_flow_learns_the_tail_of_its_points() -> None:
    df, n = 3, 4000
    normal = torch.randn(n, df + 2, generator=seeded(0), dtype=torch.float64)
    chi_squared = normal[:, :df].square().sum(-1, keepdim=True)
    x = 1.0 + 2.0 * normal[:, df:] / (chi_squared / df).sqrt()
    flow = affine(Standardize(x.mean(0), x.std(0)), generator=seeded(0)).double()
    flow.base = StudentT(2).double()
    optimizer = torch.optim.LBFGS(flow.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def nll() -> Tensor:
        optimizer.zero_grad()
        loss = -flow.log_prob(x).mean()
        loss.backward()
        return loss

    optimizer.step(nll)
    assert isinstance(flow.base, StudentT)
    assert flow.base.df.item() == pytest.approx(df, rel=0.1)
