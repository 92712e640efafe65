"""A flow as a torch distribution: shapes, densities, gradients, and company it keeps."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.distributions import AffineTransform, Independent, Normal, TransformedDistribution
from torch.distributions.constraints import real_vector

from flowtrain.build import build_flow
from flowtrain.config import Config
from flowtrain.flows import ContinuousFlow, Flow
from flowtrain.flows.distribution import FlowDistribution

Randomize = Callable[[nn.Module, torch.Generator], None]


@pytest.fixture(params=["realnvp", "ffjord"])
def flow(request: pytest.FixtureRequest, tiny: Callable[..., Config], randomize: Randomize) -> Flow:
    mean, std = torch.arange(3.0), 1 + torch.arange(3.0)
    flow = build_flow(tiny("dtype=float64", model=request.param), mean, std, seed=0)
    randomize(flow, torch.Generator().manual_seed(0))
    return flow.eval()


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("shape", [(), (5,), (2, 4)])
def test_samples_and_densities_have_the_shapes_of_torch(flow: Flow, shape: tuple[int, ...]) -> None:
    law = flow.distribution(seeded())
    assert (law.event_shape, law.batch_shape) == ((3,), ())
    x = law.sample(torch.Size(shape))
    assert x.shape == (*shape, 3)
    assert not x.requires_grad
    log_q = law.log_prob(x)
    assert log_q.shape == shape
    assert torch.equal(log_q.reshape(-1), flow.log_prob(x.reshape(-1, 3)))


def test_the_draws_are_the_flow_s_own(flow: Flow) -> None:
    assert torch.equal(flow.distribution(seeded()).sample((7,)), flow.sample(7, seeded()))
    torch.manual_seed(5)
    drawn = flow.distribution().sample((7,))
    torch.manual_seed(5)
    assert torch.equal(drawn, flow.sample(7))


@pytest.mark.parametrize("way", ["rsample", "log_prob"])
def test_gradients_reach_every_weight(flow: Flow, way: str) -> None:
    law = flow.distribution(seeded())
    assert law.has_rsample
    outcome = law.rsample((9,)) if way == "rsample" else law.log_prob(torch.randn(9, 3).double())
    outcome.square().sum().backward()
    gradients = [weight.grad for weight in flow.parameters()]
    assert all(each is not None and each.isfinite().all() for each in gradients)
    assert any(each is not None and each.any() for each in gradients)


def test_a_batch_is_of_independent_draws_and_broadcasts(flow: Flow) -> None:
    law = flow.distribution(seeded()).expand(torch.Size([4]))
    x = law.sample((2,))
    assert x.shape == (2, 4, 3)
    assert len(x.reshape(-1, 3).unique(dim=0)) == 8
    assert law.log_prob(x).shape == (2, 4)
    one = law.log_prob(x[0, 0])
    assert one.shape == (4,)
    assert len(one.unique()) == 1


def test_it_keeps_company_with_torch_s_distributions(flow: Flow) -> None:
    law = flow.distribution(seeded())
    batch = Independent(law.expand(torch.Size([4])), 1)
    x = batch.sample()
    assert x.shape == (4, 3)
    assert torch.allclose(batch.log_prob(x), flow.log_prob(x).sum())

    twice = TransformedDistribution(law, AffineTransform(1.0, 2.0, event_dim=1))
    y = twice.rsample((6,))
    expected = flow.log_prob((y - 1) / 2) - 3 * torch.tensor(2.0).log()
    assert torch.allclose(twice.log_prob(y), expected)


def test_its_divergence_can_be_estimated_by_differentiable_samples(flow: Flow) -> None:
    law = flow.distribution(seeded())
    mean, std = flow.like.new_tensor([0.5, 1, 2]), flow.like.new_tensor([2.0, 3, 4])
    x = law.rsample((1000,))
    divergence = (law.log_prob(x) - Independent(Normal(mean, std), 1).log_prob(x)).mean()
    assert divergence > 0
    divergence.backward()
    assert any(weight.grad is not None for weight in flow.parameters())


def test_arguments_are_validated_as_torch_s_own_are(flow: Flow) -> None:
    law = flow.distribution()
    assert law.support is real_vector
    with pytest.raises(ValueError, match="right-most size"):
        law.log_prob(torch.zeros(5, 2, dtype=torch.float64))
    nan = torch.full((5, 3), torch.nan, dtype=torch.float64)
    with pytest.raises(ValueError, match="within the support"):
        law.log_prob(nan)
    if not isinstance(flow, ContinuousFlow):  # an ODE refuses NaN by itself
        assert FlowDistribution(flow, validate_args=False).log_prob(nan).isnan().all()


def test_the_flow_keeps_its_mode(flow: Flow) -> None:
    flow.train()
    flow.distribution().sample((2,))
    assert flow.training
