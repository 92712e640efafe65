"""What every registered flow must hold, walked over all of them and their variants."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from flowtrain.flows import FLOWS, ContinuousFlow, Flow, Standardize
from flowtrain.flows.elementwise import Affine, RationalQuadratic
from flowtrain.flows.ode import Solver

Make = Callable[..., Flow]
Randomize = Callable[[nn.Module, torch.Generator], None]

STACK: dict[str, Any] = {"couplings": 4, "hidden": 16, "depth": 2, "activation": "silu"}
REALNVP = STACK | {"elementwise": Affine(log_scale_bound=1.5), "mixing": "alternate"}
GLOW = REALNVP | {"mixing": "lu"}
SPLINE = STACK | {"elementwise": RationalQuadratic(bins=5, bound=3.0), "mixing": "lu"}
SETTINGS: dict[str, dict[str, Any]] = {
    "affine": {}, "glow": GLOW, "realnvp": REALNVP, "spline": SPLINE
}  # fmt: skip
# Of weights drawn at random, for float64 to invert the flow and for a grid to integrate it.
MILD = {"glow": 0.6, "spline": 0.5}

TIGHT = Solver("dopri8", rtol=1e-8, atol=1e-8, max_steps=500)

# name: (flow, dimensions, what differs from the defaults)
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    **{
        f"realnvp-{order}-{dim}d": ("realnvp", dim, {"mixing": order})
        for order in ("alternate", "random")
        for dim in (2, 3, 5)
    },
    **{f"glow-{dim}d": ("glow", dim, {}) for dim in (2, 3)},
    **{
        f"spline-{mixing}-{dim}d": ("spline", dim, {"mixing": mixing})
        for mixing in ("lu", "alternate", "random")
        for dim in (2, 3)
    },
    **{f"affine-{dim}d": ("affine", dim, {}) for dim in (1, 2, 3)},
    **{f"realnvp-{name}": ("realnvp", 2, {"activation": name}) for name in ("relu", "tanh")},
    **{
        f"ffjord-{field}-{dim}d": ("ffjord", dim, {"field": field})
        for field in ("concatsquash", "time_mlp")
        for dim in (1, 2, 3)
    },
    **{
        f"ffjord-{field}-{name}": ("ffjord", 2, {"field": field, "activation": name})
        for field in ("concatsquash", "time_mlp")
        for name in ("softplus", "silu", "gelu")
    },
    **{
        f"ffjord-hutchinson-{noise}-{probes}": (
            "ffjord",
            3,
            {"divergence": "hutchinson", "noise": noise, "probes": probes},
        )
        for noise in ("rademacher", "gaussian")
        for probes in (1, 3)
    },
}


@pytest.fixture
def make(make_ffjord: Make, randomize: Randomize) -> Callable[..., Flow]:
    """Return a builder of the named case, in evaluation mode."""

    def build(name: str, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Flow:
        flow_name, dim, changes = CASES[name]
        if flow_name == "ffjord":
            return make_ffjord(dim, seed=seed, dtype=dtype, **changes).eval()
        generator = torch.Generator().manual_seed(seed)
        standardize = Standardize(0.5 + torch.arange(dim), 1.5 + torch.arange(dim))
        flow = FLOWS[flow_name](standardize, generator=generator, **(SETTINGS[flow_name] | changes))
        randomize(flow, generator)
        for parameter in flow.parameters():
            parameter.data.mul_(MILD.get(flow_name, 1.0))
        return flow.to(dtype).eval()

    return build


def points(name: str, n: int = 5, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, CASES[name][1], generator=generator, dtype=torch.float64)


def accurate(flow: Flow) -> tuple[Flow, float]:
    """Return a flow that is solved to a tight tolerance, and how well it should do."""
    if not isinstance(flow, ContinuousFlow):
        return flow, 1e-8  # splines of random weights are steep
    flow.cnf.solver = flow.cnf.evaluation_solver = TIGHT
    return flow, 1e-6


def log_det_by_autograd(function: Callable[[Tensor], tuple[Tensor, Tensor]], z: Tensor) -> Tensor:
    z = z.clone().requires_grad_()
    x = function(z)[0]
    rows = [torch.autograd.grad(x[:, i].sum(), z, retain_graph=True)[0] for i in range(z.shape[1])]
    return torch.stack(rows, 1).slogdet().logabsdet


def test_every_registered_flow_is_walked() -> None:
    assert {flow for flow, _, _ in CASES.values()} == set(FLOWS)


@pytest.mark.parametrize("name", CASES)
def test_log_dets_and_log_prob_follow_the_autograd_jacobian(name: str, make: Make) -> None:
    flow, tolerance = accurate(make(name))
    z = points(name)
    x, log_det = flow(z)
    close = partial(torch.testing.assert_close, rtol=0, atol=tolerance)
    expected = log_det_by_autograd(flow, z)
    close(log_det, expected)
    close(flow.log_prob(x), Normal(0.0, 1.0).log_prob(z).sum(-1) - expected)
    x = x.detach()
    close(flow.inverse(x)[1], log_det_by_autograd(flow.inverse, x))
    if CASES[name][0] != "affine":
        assert (log_det - flow(0 * z)[1]).abs().max() > 0.01  # or it tests a linear map


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", CASES)
def test_inverse_undoes_forward(name: str, training: bool, make: Make) -> None:
    flow, tolerance = accurate(make(name).train(training))
    z = points(name)
    x, log_det = flow(z)
    back, back_log_det = flow.inverse(x)
    torch.testing.assert_close(back, z, rtol=0, atol=tolerance)
    torch.testing.assert_close(back_log_det, -log_det, rtol=0, atol=tolerance)
    assert (x - z).abs().max() > 0.1


@pytest.mark.parametrize("name", ["realnvp-random-2d", "spline-lu-2d", "ffjord-concatsquash-2d"])
def test_density_has_mass_one(name: str, make: Make) -> None:
    flow = make(name)
    if isinstance(flow, ContinuousFlow):
        flow = flow.with_solver(Solver("dopri5", rtol=1e-4, atol=1e-4, max_steps=100))
    sample = flow.sample(2000, torch.Generator().manual_seed(0))
    middle, reach = sample.mean(0), 2 * (sample - sample.mean(0)).abs().amax(0)
    axes = [torch.linspace(-1, 1, 201, dtype=torch.float64) * r for r in reach]
    area = (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    with torch.no_grad():
        mass = flow.log_prob(torch.cartesian_prod(*axes) + middle).exp().sum() * area
    assert math.isclose(mass, 1.0, abs_tol=5e-3)


@pytest.mark.parametrize("name", CASES)
def test_gradients_reach_every_parameter(name: str, make: Make) -> None:
    flow = make(name).train()
    flow.log_prob(points(name)).mean().backward()
    for key, parameter in flow.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 1e-9, key


@pytest.mark.parametrize("name", CASES)
def test_state_dict_is_the_whole_function(name: str, make: Make) -> None:
    flow, other, x = make(name), make(name, seed=1), points(name)
    assert not torch.equal(flow.log_prob(x), other.log_prob(x))
    other.load_state_dict(flow.state_dict())
    assert torch.equal(flow.log_prob(x), other.log_prob(x))


@pytest.mark.parametrize("name", CASES)
def test_float32_agrees_with_float64(name: str, make: Make) -> None:
    flow, x = make(name, dtype=torch.float32), points(name)
    log_prob = flow.log_prob(x.float())
    assert log_prob.dtype == flow.sample(3).dtype == torch.float32
    torch.testing.assert_close(log_prob.double(), make(name).log_prob(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_samples_depend_on_their_generator_alone(name: str, make: Make) -> None:
    flow = make(name)
    before = torch.get_rng_state()
    first = flow.sample(7, torch.Generator().manual_seed(3))
    again = flow.sample(7, torch.Generator().manual_seed(3))
    other = flow.sample(7, torch.Generator().manual_seed(4))
    assert first.shape == (7, CASES[name][1])
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert not first.requires_grad


@pytest.mark.parametrize("name", ["realnvp-random-3d", "spline-lu-3d", "ffjord-concatsquash-3d"])
def test_samples_are_the_base_carried_forward(name: str, make: Make) -> None:
    flow, tolerance = accurate(make(name))
    z = flow.sample_base(50, torch.Generator().manual_seed(3))
    sample = flow.sample(50, torch.Generator().manual_seed(3))
    assert abs(z.mean()) < 0.3
    assert 0.8 < z.std() < 1.2
    torch.testing.assert_close(sample, flow(z)[0], rtol=0, atol=tolerance)
    assert torch.equal(sample, flow.transport(z))


def test_standardize_is_the_fixed_affine_map() -> None:
    mean, std = torch.tensor([1.0, -2.0]), torch.tensor([2.0, 0.5])
    standardize, z = Standardize(mean, std), torch.tensor([[0.0, 0.0], [1.0, -1.0]])
    x, log_det = standardize(z)
    torch.testing.assert_close(x, torch.tensor([[1.0, -2.0], [3.0, -2.5]]))
    torch.testing.assert_close(log_det, torch.zeros(2))  # log 2 + log 1/2
    torch.testing.assert_close(standardize.inverse(x)[0], z)
    assert not list(standardize.parameters())
    assert set(standardize.state_dict()) == {"mean", "std"}
