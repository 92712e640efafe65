"""Linear transforms: LU maps, permutations and the affine flow."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from flowtrain.flows.flow import Standardize
from flowtrain.flows.linear import LULinear, Permute, affine

Randomize = Callable[[nn.Module, torch.Generator], None]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=[1, 2, 3, 6])
def linear(request: pytest.FixtureRequest, randomize: Randomize) -> LULinear:
    linear = LULinear(torch.randperm(request.param, generator=seeded())).double()
    randomize(linear, seeded())
    return linear


def matrix(linear: LULinear) -> Tensor:
    """Return W of z = W x + c, row by row of the identity."""
    basis = torch.eye(len(linear.shift), dtype=torch.float64)
    return (linear.inverse(basis)[0] - linear.shift).mT


def test_log_det_is_that_of_the_matrix(linear: LULinear) -> None:
    expected = matrix(linear).slogdet().logabsdet.expand(4)
    x = torch.randn(4, len(linear.shift), generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(linear.inverse(x)[1], expected)
    torch.testing.assert_close(linear(x)[1], -expected)


def test_the_matrix_is_p_l_u(linear: LULinear) -> None:
    lower, upper = linear.triangles()
    assert torch.equal(lower, lower.tril(-1))
    assert torch.equal(upper, upper.triu())
    assert (upper.diagonal() > 0).all()
    product = (lower + torch.eye(len(lower), dtype=torch.float64)) @ upper
    torch.testing.assert_close(matrix(linear), product[linear.inverse_order])


def test_forward_solves_what_inverse_multiplies(linear: LULinear) -> None:
    x = torch.randn(4, len(linear.shift), generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(linear(linear.inverse(x)[0])[0], x)


def test_a_new_one_is_its_permutation() -> None:
    order, z = torch.tensor([2, 0, 1]), torch.randn(4, 3, generator=seeded())
    linear, permute = LULinear(order), Permute(order)
    for new, old in zip(linear(z), permute(z), strict=True):
        torch.testing.assert_close(new, old)
    torch.testing.assert_close(linear.inverse(z)[0], permute.inverse(z)[0])


def test_the_affine_flow_reaches_any_gaussian_by_maximum_likelihood() -> None:
    covariance = torch.tensor([[2.0, 1.2], [1.2, 1.0]], dtype=torch.float64)
    mean = torch.tensor([3.0, -1.0], dtype=torch.float64)
    truth = torch.distributions.MultivariateNormal(mean, covariance)
    x = mean + torch.randn(4000, 2, generator=seeded(), dtype=torch.float64) @ (
        torch.linalg.cholesky(covariance).mT
    )
    flow = affine(Standardize(x.mean(0), x.std(0)), generator=seeded()).double()
    optimizer = torch.optim.LBFGS(flow.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        loss = -flow.log_prob(x).mean()
        loss.backward()
        return loss

    optimizer.step(loss)
    # The best Gaussian of n points is below the truth by d (d + 3) / 4 n on the average.
    gap = (truth.log_prob(x) - flow.log_prob(x)).mean().item()
    assert gap == pytest.approx(0, abs=0.003)
    entropy = 1 + math.log(2 * math.pi) + 0.5 * float(x.mT.cov().logdet())
    assert -flow.log_prob(x).mean().item() == pytest.approx(entropy, abs=1e-3)
