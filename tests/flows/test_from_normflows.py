"""What is normflows' own about its flows; the rest is walked with every flow in test_flow.py."""

from typing import Any

import pytest
import torch

from flowtrain.flows.flow import Flow, Standardize
from flowtrain.flows.from_normflows import Residual, normflows

pytest.importorskip("normflows")

TWO = Standardize(torch.zeros(2), torch.ones(2))
SMALL: dict[str, Any] = {"transforms": 2, "hidden": 16, "depth": 2, "arguments": {}}


def residual(seed: int = 0) -> Flow:
    torch.manual_seed(seed)
    settings = SMALL | {"arguments": {"init_zeros": False}}
    flow = normflows(TWO, flow="residual", generator=torch.Generator(), **settings)
    return flow.double()


def test_the_log_det_of_a_residual_block_is_normflows_own_in_the_plane() -> None:
    from normflows.flows.residual import iResBlock

    block = residual().transforms[0]
    assert isinstance(block, Residual)
    x = torch.randn(9, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z, minus_log_det = iResBlock(block.network, brute_force=True)(x, 0)
    torch.testing.assert_close(block.inverse(x), (z, -minus_log_det[:, 0]))


def test_samples_carry_gradients_through_the_inverse_of_a_residual_block() -> None:
    flow = residual()
    weight = next(flow.parameters())
    z = torch.randn(9, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def loss() -> torch.Tensor:
        x, log_det = flow(z)
        mean: torch.Tensor = (x.sin().sum(-1) + log_det).mean()
        return mean

    (gradient,) = torch.autograd.grad(loss(), weight)
    step = torch.zeros_like(weight)
    step.flatten()[gradient.abs().argmax()] = 1e-5
    with torch.no_grad():
        above, below = weight + step, weight - step
        weight.copy_(above)
        up = loss()
        weight.copy_(below)
        down = loss()
    slope = (up - down) / 2e-5
    torch.testing.assert_close(
        slope, gradient.flatten()[gradient.abs().argmax()], rtol=1e-5, atol=0
    )


def test_a_residual_block_stays_a_contraction_while_it_is_trained() -> None:
    from normflows.nets.lipschitz import InducedNormLinear

    flow = residual()
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    x = 5 * torch.randn(64, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for _ in range(60):  # of a loss that pulls every block apart
        optimizer.zero_grad()
        z, _ = flow.inverse(x)
        (z[:, 0] * 10 + z[:, 1]).mean().backward()
        optimizer.step()
    matrices = [layer for layer in flow.modules() if isinstance(layer, InducedNormLinear)]
    assert len(matrices) == 6
    for layer in matrices:
        used = layer.compute_weight(update=False)
        assert torch.linalg.matrix_norm(used, 2) < 0.95  # it is bounded by 0.9


@pytest.mark.parametrize("flow", ["realnvp", "nsf", "maf", "nsf_ar"])
def test_one_dimension_is_refused(flow: str) -> None:
    one = Standardize(torch.zeros(1), torch.ones(1))
    with pytest.raises(ValueError, match=f"^{flow} of normflows needs two dimensions"):
        normflows(one, flow=flow, generator=torch.Generator(), **SMALL)


def test_a_name_that_is_unknown_builds_nothing() -> None:
    with pytest.raises(ValueError, match=r"^'iaf' is no flow of normflows"):
        normflows(TWO, flow="iaf", generator=torch.Generator(), **SMALL)


@pytest.mark.parametrize("flow", ["residual", "realnvp"])
def test_flows_without_a_condition_are_refused_one(flow: str) -> None:
    with pytest.raises(ValueError, match=rf"^{flow} of normflows learns no p\(x \| c\)$"):
        normflows(TWO, flow=flow, generator=torch.Generator(), context_dim=2, **SMALL)


@pytest.mark.parametrize("flow", ["nsf", "maf", "nsf_ar"])
def test_a_conditional_density_is_the_one_that_normflows_gives(flow: str) -> None:
    from normflows import ConditionalNormalizingFlow
    from normflows.distributions import DiagGaussian

    torch.manual_seed(0)
    ours = normflows(TWO, flow=flow, generator=torch.Generator(), context_dim=3, **SMALL).double()
    layers = [transform.layer for transform in ours.transforms]
    own = ConditionalNormalizingFlow(DiagGaussian(2, trainable=False), layers).double()
    generator = torch.Generator().manual_seed(1)
    x, c = (torch.randn(9, d, generator=generator, dtype=torch.float64) for d in (2, 3))
    with torch.no_grad():
        for weight in ours.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
        found, others = ours.log_prob(x, c), ours.log_prob(x, c.roll(1, 0))
        torch.testing.assert_close(found, own.log_prob(x, c))
    assert (found - others).abs().max() > 0.1


def test_what_normflows_refuses_is_told_in_words() -> None:
    settings = SMALL | {"arguments": {"bins": 3}}
    with pytest.raises(ValueError, match=r"nsf of normflows: .* unexpected keyword .* 'bins'"):
        normflows(TWO, flow="nsf", generator=torch.Generator(), **settings)
