"""The mixture of flows: its density is their mean, and its samples follow it."""

import pytest
import torch

from flowtrain.flows import Flow, Standardize
from flowtrain.flows.ensemble import mixture
from flowtrain.flows.linear import affine
from flowtrain.flows.whiten import Whiten


@pytest.fixture
def gaussians() -> list[Flow]:
    """Return two flows that are Gaussians, of means -2 and 2 and deviations 0.5 and 1."""
    return [
        affine(Standardize(torch.full((1,), mean), torch.full((1,), std)).double(),
               generator=torch.Generator()).double()
        for mean, std in ((-2.0, 0.5), (2.0, 1.0))
    ]  # fmt: skip


def test_the_density_is_the_mean_of_the_flows(gaussians: list[Flow]) -> None:
    x = torch.linspace(-6, 8, 2001, dtype=torch.float64)[:, None]
    flow = mixture(gaussians)
    wanted = sum(
        torch.distributions.Normal(mean, std).log_prob(x[:, 0].double()).exp() / 2
        for mean, std in ((-2.0, 0.5), (2.0, 1.0))
    )
    torch.testing.assert_close(flow.log_prob(x).exp(), wanted)
    assert torch.trapezoid(flow.log_prob(x).exp(), x[:, 0]).item() == pytest.approx(1, abs=1e-6)


def test_samples_follow_the_density(gaussians: list[Flow]) -> None:
    flow, n = mixture(gaussians), 40_000
    x = flow.sample(n, torch.Generator().manual_seed(0))
    assert x.shape == (n, 1)
    left = x[x < 0.0]
    assert len(left) / n == pytest.approx(0.5 + 0.5 * 0.02275, abs=0.01)
    assert x.mean().item() == pytest.approx(0.0, abs=0.04)
    assert x.var().item() == pytest.approx(4 + (0.25 + 1) / 2, rel=0.02)


def test_a_seed_says_which_samples(gaussians: list[Flow]) -> None:
    flow = mixture(gaussians)
    first, second = (flow.sample(50, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    x, log_q = flow.sample_with_log_prob(50, torch.Generator().manual_seed(3))
    assert torch.equal(x, first)
    torch.testing.assert_close(log_q, flow.log_prob(x))


def test_it_keeps_the_digits_of_what_its_flows_keep() -> None:
    """At 1e6 a float32 has steps of 1/16."""
    x = 1e6 + torch.randn(500, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    flow = affine(Whiten.fit(x, bend=False), generator=torch.Generator())
    both = mixture([flow, flow])
    torch.testing.assert_close(both.log_prob(x), flow.log_prob(x), rtol=0, atol=1e-6)
    assert len(both.sample(500, torch.Generator().manual_seed(0))[:, 0].unique()) == 500


def test_its_conditional_laws_are_refused(gaussians: list[Flow]) -> None:
    with pytest.raises(NotImplementedError, match="mixture of flows"):
        mixture(gaussians).base.cdf(torch.zeros(1, 1))
