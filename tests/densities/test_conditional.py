"""Conditional laws: their parts make the whole, their masses are 1, their entropies are exact."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from flowtrain.config.data import Data
from flowtrain.config.section import names, options
from flowtrain.densities.conditional import Components, Conditional
from flowtrain.densities.density import Density
from flowtrain.densities.interval import Interval, Rotations

Build = Callable[..., Density]

NAMES = sorted(
    name
    for section in options(Data)
    if section.owner.startswith("flowtrain.densities.") and "condition" in section.model_fields
    for name in names(section)
)
MIXTURES = (
    "circles", "eight_gaussians", "gaussian_mixture", "moons", "pinwheel", "rings", "two_spirals",
    "u1", "u3", "u4",
)  # fmt: skip


def laws(name: str, default: Build) -> list[Conditional]:
    density = default(name)
    found: list[Conditional] = [Rotations(density, Interval(-0.5, 2.0))]
    return [*found, Components(density)] if name in MIXTURES else found


@pytest.mark.parametrize("name", NAMES)
def test_no_points_are_a_sample_too(name: str, default: Build) -> None:
    for law in laws(name, default):
        x, context = law.sample(0, torch.Generator().manual_seed(0))
        assert (x.shape, context.shape) == ((0, law.dim), (0, law.context_dim))
        assert law.log_prob(x, context).shape == (0,)


def test_every_mixture_is_known(default: Build) -> None:
    assert [name for name in NAMES if default(name).components()] == list(MIXTURES)


@pytest.mark.parametrize("name", MIXTURES)
def test_the_components_make_the_density(name: str, default: Build) -> None:
    density = default(name)
    x = density.sample(200, torch.Generator().manual_seed(0))
    parts = [math.log(weight) + part.log_prob(x) for weight, part in density.components()]
    torch.testing.assert_close(
        torch.stack(parts).logsumexp(0), density.log_prob(x), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("name", MIXTURES)
def test_each_component_has_mass_one(name: str, default: Build) -> None:
    weights = [weight for weight, _ in default(name).components()]
    assert sum(weights) == pytest.approx(1)
    for _, part in default(name).components():
        nodes, w = part.quadrature(200)
        assert float(w @ part.log_prob(nodes).exp()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_samples_follow_their_conditional_law(name: str, default: Build) -> None:
    for law in laws(name, default):
        x, context = law.sample(20_000, torch.Generator().manual_seed(1))
        assert (x.shape, context.shape) == ((20_000, 2), (20_000, law.context_dim))
        assert x.dtype == context.dtype == torch.float64
        surprise = -law.log_prob(x, context)
        error = float(surprise.std()) / math.sqrt(len(x))
        assert float(surprise.mean()) == pytest.approx(law.entropy, abs=4 * error + 1e-9)
        low, high = law.window
        assert bool(((x >= low) & (x <= high)).all())
        again = law.sample(20_000, torch.Generator().manual_seed(1))
        assert torch.equal(again[0], x)
        assert torch.equal(again[1], context)


@pytest.mark.parametrize("name", ["moons", "pinwheel"])
def test_a_case_is_the_law_at_its_condition(name: str, default: Build) -> None:
    for law in laws(name, default):
        assert sum(case.weight for case in law.cases) == pytest.approx(1)
        for case in law.cases:
            x = case.density.sample(50, torch.Generator().manual_seed(0))
            of_law = law.log_prob(x, case.context.expand(50, -1))
            torch.testing.assert_close(of_law, case.density.log_prob(x))
            torch.testing.assert_close(of_law, law.at(case.context).log_prob(x))
            assert case.label.startswith(f"{law.name}=")


def test_gradients_pass_through_the_conditional_density(default: Build) -> None:
    for law in laws("moons", default):
        x, context = law.sample(20, torch.Generator().manual_seed(0))
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(law.log_prob(x, context).sum(), x)
        step = torch.zeros_like(x)
        step[:, 0] = 1e-5
        with torch.no_grad():
            rise = law.log_prob(x + step, context) - law.log_prob(x - step, context)
        torch.testing.assert_close(gradient[:, 0], rise / 2e-5, rtol=1e-4, atol=1e-4)


def test_a_density_of_one_part_has_no_component_to_be_given(default: Build) -> None:
    with pytest.raises(ValueError, match="no components to be given; try condition=rotation"):
        Components(default("swissroll"))


def one_hot(index: int, size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64)[index]


def test_the_first_moon_is_the_upper_one(default: Build) -> None:
    upper, lower = (
        Components(default("moons")).at(one_hot(index, 2)).sample(1000, torch.Generator())
        for index in (0, 1)
    )
    assert float(upper[:, 1].mean()) > float(lower[:, 1].mean()) + 1
