"""A flow as a torch distribution: shapes, densities, gradients, and company it keeps."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.distributions import AffineTransform, Independent, Normal, TransformedDistribution
from torch.distributions.constraints import real_vector

from flowtrain.build import build_flow
from flowtrain.config.schema import Config
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.distribution import FlowDistribution
from flowtrain.flows.flow import Flow, Standardize

Randomize = Callable[[nn.Module, torch.Generator], None]


@pytest.fixture(params=["realnvp", "ffjord", "affine model.base=mixture"])
def flow(request: pytest.FixtureRequest, tiny: Callable[..., Config], randomize: Randomize) -> Flow:
    mean, std = torch.arange(3.0), 1 + torch.arange(3.0)
    model, *extra = request.param.split()
    config = tiny("dtype=float64", *extra, model=model)
    flow = build_flow(config, Standardize(mean, std), seed=0)
    randomize(flow, torch.Generator().manual_seed(0))
    return flow


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("shape", [(), (5,), (2, 4)])
def test_samples_and_densities_have_the_shapes_of_torch(flow: Flow, shape: tuple[int, ...]) -> None:
    distribution = flow.distribution(generator=seeded())
    assert (distribution.event_shape, distribution.batch_shape) == ((3,), ())
    x = distribution.sample(torch.Size(shape))
    assert x.shape == (*shape, 3)
    assert not x.requires_grad
    log_q = distribution.log_prob(x)
    assert log_q.shape == shape
    assert torch.equal(log_q.reshape(-1), flow.log_prob(x.reshape(-1, 3)))


def test_the_draws_are_the_flow_s_own(flow: Flow) -> None:
    assert torch.equal(flow.distribution(generator=seeded()).sample((7,)), flow.sample(7, seeded()))
    torch.manual_seed(5)
    drawn = flow.distribution().sample((7,))
    torch.manual_seed(5)
    assert torch.equal(drawn, flow.sample(7))


@pytest.mark.parametrize("way", ["rsample", "log_prob"])
def test_gradients_reach_every_weight(flow: Flow, way: str) -> None:
    distribution = flow.distribution(generator=seeded())
    assert distribution.has_rsample
    outcome = (
        distribution.rsample((9,))
        if way == "rsample"
        else distribution.log_prob(torch.randn(9, 3).double())
    )
    outcome.square().sum().backward()
    gradients = [weight.grad for weight in flow.parameters()]
    assert all(each is not None and each.isfinite().all() for each in gradients)
    assert any(each is not None and each.any() for each in gradients)


def test_a_batch_is_of_independent_draws_and_broadcasts(flow: Flow) -> None:
    distribution = flow.distribution(generator=seeded()).expand(torch.Size([4]))
    x = distribution.sample((2,))
    assert x.shape == (2, 4, 3)
    assert len(x.reshape(-1, 3).unique(dim=0)) == 8
    assert distribution.log_prob(x).shape == (2, 4)
    one = distribution.log_prob(x[0, 0])
    assert one.shape == (4,)
    assert one.max() - one.min() < 1e-9  # products of several rows may round otherwise


def test_it_keeps_company_with_torch_s_distributions(flow: Flow) -> None:
    distribution = flow.distribution(generator=seeded())
    batch = Independent(distribution.expand(torch.Size([4])), 1)
    x = batch.sample()
    assert x.shape == (4, 3)
    assert torch.allclose(batch.log_prob(x), flow.log_prob(x).sum())

    twice = TransformedDistribution(distribution, AffineTransform(1.0, 2.0, event_dim=1))
    y = twice.rsample((6,))
    expected = flow.log_prob((y - 1) / 2) - 3 * torch.tensor(2.0).log()
    assert torch.allclose(twice.log_prob(y), expected)


def test_its_divergence_can_be_estimated_by_differentiable_samples(flow: Flow) -> None:
    distribution = flow.distribution(generator=seeded())
    mean, std = (torch.tensor(values, dtype=flow.dtype) for values in ([0.5, 1, 2], [2.0, 3, 4]))
    x = distribution.rsample((1000,))
    divergence = (distribution.log_prob(x) - Independent(Normal(mean, std), 1).log_prob(x)).mean()
    assert divergence > 0
    divergence.backward()
    assert any(weight.grad is not None for weight in flow.parameters())


def test_arguments_are_validated_as_torch_s_own_are(flow: Flow) -> None:
    distribution = flow.distribution()
    assert distribution.support is real_vector
    with pytest.raises(ValueError, match="right-most size"):
        distribution.log_prob(torch.zeros(5, 2, dtype=torch.float64))
    nan = torch.full((5, 3), torch.nan, dtype=torch.float64)
    with pytest.raises(ValueError, match="within the support"):
        distribution.log_prob(nan)
    if not isinstance(flow, ContinuousFlow):  # an ODE refuses NaN by itself
        assert FlowDistribution(flow, validate_args=False).log_prob(nan).isnan().all()


def test_the_flow_keeps_its_mode(flow: Flow) -> None:
    flow.train()
    flow.distribution().sample((2,))
    assert flow.training


def test_a_batch_of_conditions_is_a_batch_of_distributions(
    tiny: Callable[..., Config], randomize: Randomize
) -> None:
    standardize = Standardize(torch.zeros(3), torch.ones(3))
    flow = build_flow(tiny("dtype=float64"), standardize, seed=0, context_dim=2)
    randomize(flow, torch.Generator().manual_seed(0))
    contexts = torch.randn(4, 2, generator=seeded(), dtype=torch.float64)
    distribution = flow.distribution(contexts, generator=seeded())
    assert (distribution.batch_shape, distribution.event_shape) == ((4,), (3,))
    x = distribution.sample((6,))
    log_q = distribution.log_prob(x)
    assert (x.shape, log_q.shape) == ((6, 4, 3), (6, 4))
    for position, context in enumerate(contexts):
        torch.testing.assert_close(log_q[:, position], flow.log_prob(x[:, position], context))
    one = flow.distribution(contexts[0])
    assert one.batch_shape == ()
    assert one.expand(torch.Size([5])).sample().shape == (5, 3)
    assert torch.equal(one.log_prob(x[:, 0]), log_q[:, 0])
    with pytest.raises(ValueError, match="context is needed"):
        flow.distribution()
    with pytest.raises(ValueError, match="got"):
        flow.distribution(torch.zeros(4, 3))
