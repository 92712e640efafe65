"""Laws of few steps, against fields whose steps are known."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from flowtrain.config.methods import METHODS
from flowtrain.config.solver import Adaptive, FixedStep
from flowtrain.densities.mixtures import GaussianMixture
from flowtrain.evaluation.few_steps import few_steps, straightness
from flowtrain.evaluation.reverse import reverse
from flowtrain.flows.cnf import CNF, Divergence
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.flow import Standardize

Make = Callable[..., ContinuousFlow]
TARGET = GaussianMixture(means=[[0.0, 0.0]], covariances=[[[1.0, 0.0], [0.0, 1.0]]], weights=[1.0])


class Linear(nn.Module):
    """dz/dt = rate z: k Euler steps multiply by (1 + rate / k)^k."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(rate, dtype=torch.float64))

    def forward(self, t: Tensor, z: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        return self.rate * z, self.rate * tangents


def linear(rate: float) -> ContinuousFlow:
    cnf = CNF(
        Linear(rate),
        dim=2,
        divergence=Divergence(),
        solver=Adaptive(name="dopri8", rtol=1e-9, atol=1e-9),
    )
    return ContinuousFlow(cnf, Standardize(torch.zeros(2), torch.ones(2)).double())


def base(n: int = 4_000) -> Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 3])
def test_euler_s_law_is_the_closed_form(steps: int) -> None:
    """KL(N(0, a²) | N(0, 1)) = d (a² - 1 - log a²) / 2 with a = (1 + rate / k)^k, not e^rate."""
    found = few_steps(linear(0.7), TARGET, base(), steps=steps, method="euler")
    a = (1 + 0.7 / steps) ** steps
    assert found.evaluations == steps
    assert found.folded == 0
    error = found.metrics["kl_reverse_error"]
    assert abs(found.metrics["kl_reverse"] - (a**2 - 1 - math.log(a**2))) < 4 * error


def test_steps_that_turn_space_inside_out_are_counted() -> None:
    half = ContinuousFlow(
        CNF(
            Squeeze(),
            dim=2,
            divergence=Divergence(),
            solver=Adaptive(name="dopri5", rtol=1e-6, atol=1e-6),
        ),
        Standardize(torch.zeros(2), torch.ones(2)).double(),
    )
    found = few_steps(half, TARGET, base(), steps=1, method="euler")
    assert 0.4 < found.folded < 0.6  # where x > 0 a step overshoots


class Squeeze(nn.Module):
    """dx/dt = -3 max(x, 0): one Euler step maps x > 0 to -2 x."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(-3.0, dtype=torch.float64))

    def forward(self, t: Tensor, z: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        first = torch.tensor([1.0, 0.0]).to(z)
        gate = (z > 0) * first
        return self.rate * gate * z, self.rate * gate * tangents


@pytest.mark.parametrize("method", METHODS)
def test_many_steps_have_the_law_of_the_flow(method: str, make_ffjord: Make) -> None:
    flow = make_ffjord(width=8, depth=1)
    z = flow.sample_base(10_000, torch.Generator().manual_seed(0))
    exact = reverse(flow.with_solver(Adaptive(name="dopri5", rtol=1e-8, atol=1e-8)), TARGET,
                    batch_size=10_000)  # fmt: skip
    steps = 400 if method == "euler" else 40
    found = few_steps(flow, TARGET, z, steps=steps, method=method)
    assert found.metrics["kl_reverse"] == pytest.approx(exact["kl_reverse"], rel=2e-2)
    fixed = flow.with_solver(FixedStep(name=method, step_size=1 / steps))  # type: ignore[arg-type]
    assert found.folded == 0
    assert torch.isfinite(fixed.to_data(z[:5])).all()


def test_straight_paths_have_a_straightness_of_zero(make_ffjord: Make) -> None:
    still = linear(0.0)
    assert straightness(still, base(50)) == pytest.approx(0.0, abs=1e-12)
    # z_t = z e^(rt): the gap is |z|² (e^r - 1 - r e^(rt))², and E|z|² = 2.
    r, t = 0.5, torch.linspace(0, 1, 10_001, dtype=torch.float64)
    expected = float(torch.trapezoid((math.exp(r) - 1 - r * (r * t).exp()).square(), t))
    z = base(50)
    scale = float(z.square().sum(1).mean())
    assert straightness(linear(r), z, moments=257) == pytest.approx(scale * expected, rel=1e-3)
