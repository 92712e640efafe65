"""What every density must hold, walked over all of them: quadrature, histograms, constants."""

import math
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from pydantic import ValidationError
from torch import Tensor

from flowtrain import densities
from flowtrain.config.data import Data
from flowtrain.config.section import Section, names, options
from flowtrain.densities.density import Density

Build = Callable[..., Density]
Draw = Callable[..., Tensor]
Integrate = Callable[[Density, Density], tuple[Tensor, float]]
PValue = Callable[[Tensor, Tensor, tuple[Tensor, Tensor]], float]

CONF = Path(__file__).parents[2] / "conf" / "data"
SECTIONS: dict[str, type[Section]] = {
    name: section
    for section in options(Data)
    if section.owner.startswith("flowtrain.densities.")
    for name in names(section)
}
# No even grid sees their ends, or 31 dimensions.
NAMES = sorted({*SECTIONS} - {"funnel", "student_t", "logistic_regression"})
SMOOTH = [name for name in NAMES if name != "checkerboard"]

# Entropy in nats, and the same after division by the population's standard deviations.
ENTROPY = {
    "moons": (2.393879, 1.82964),
    "circles": (3.268136, 2.21379),
    "pinwheel": (2.317788, 1.52933),
    "eight_gaussians": (2.831880, 1.41451),
    "two_spirals": (2.645450, 1.70890),
    "checkerboard": (math.log(32), 1.79180),
    "rings": (2.623183, 1.87376),
    "swissroll": (2.669646, 2.03754),
    "banana": (math.log(2 * math.pi * math.e * 0.3), 1.89612),
    "u1": (2.660013, 1.89525),
    "u2": (2.672409, 2.02861),
    "u3": (2.717026, 1.99012),
    "u4": (2.900393, 1.71033),
}
# The same density, ever so slightly wrong.
WRONG: dict[str, dict[str, Any]] = {
    "moons": {"noise": 0.11},
    "circles": {"noise": 0.088},
    "pinwheel": {"tangential_std": 0.11},
    "eight_gaussians": {"noise": 0.55},
    "two_spirals": {"noise": 0.11},
    "checkerboard": {"side": 2.02},
    "rings": {"noise": 0.088},
    "swissroll": {"noise": 1.1},
    "gaussian_mixture": {"weights": [0.32, 0.30, 0.38]},
    "banana": {"curvature": 0.55},
    "u1": {"thickness": 0.44},
    "u2": {"thickness": 0.44},
    "u3": {"thickness": 0.38},
    "u4": {"second_thickness": 0.38},
}


# --- density and entropy ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_mass_is_one(name: str, default: Build, masses_and_entropy: Integrate) -> None:
    density = default(name)
    x, w = density.quadrature()
    assert x.dtype == w.dtype == torch.float64
    assert float(w @ density.log_prob(x).exp()) == pytest.approx(1, abs=1e-6)
    assert float(masses_and_entropy(default(name), default(name))[0].sum()) == pytest.approx(
        1, abs=1e-6
    )


@pytest.mark.parametrize("name", NAMES)
def test_quadrature_covers_the_window(name: str, default: Build) -> None:
    density = default(name)
    low, high = density.window
    x, w = density.quadrature(60)
    assert x.shape == (3600, 2)
    assert float(w.sum()) == pytest.approx(float((high - low).prod()))
    assert bool(((x > low) & (x < high)).all())


@pytest.mark.parametrize("name", NAMES)
def test_entropy_by_another_quadrature(
    name: str, default: Build, masses_and_entropy: Integrate
) -> None:
    assert default(name).entropy == pytest.approx(
        masses_and_entropy(default(name), default(name))[1], abs=1e-6
    )


@pytest.mark.parametrize("name", sorted(ENTROPY))
def test_entropy_is_the_known_one(name: str, default: Build, masses_and_entropy: Integrate) -> None:
    assert default(name).entropy == pytest.approx(ENTROPY[name][0], abs=1e-5)
    assert masses_and_entropy(default(name), default(name))[1] == pytest.approx(
        ENTROPY[name][0], abs=1e-5
    )


@pytest.mark.parametrize("name", sorted(ENTROPY))
def test_entropy_after_standardisation(name: str, default: Build, draw: Draw) -> None:
    density = default(name)
    log_sd = float(draw(density, 1_000_000).std(0).log().sum())
    assert density.entropy - log_sd == pytest.approx(ENTROPY[name][1], abs=5e-3)


@pytest.mark.parametrize("name", NAMES)
def test_entropy_by_monte_carlo(name: str, default: Build, draw: Draw) -> None:
    density = default(name)
    surprise = -density.log_prob(draw(density, 40_000))
    error = float(surprise.std()) / math.sqrt(len(surprise))
    assert float(surprise.mean()) == pytest.approx(density.entropy, abs=4 * error + 1e-9)


@pytest.mark.parametrize("thickness", [1e-4, 1000.0])
def test_a_constant_that_no_grid_finds_is_refused(thickness: float, build: Build) -> None:
    with pytest.raises(ValueError, match=r"needs .* nodes: make it less sharp"):
        build("u1", thickness=thickness)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("moons", {"noise": 0.01}),
        ("circles", {"noise": 0.01}),
        ("rings", {"noise": 0.02}),
        ("two_spirals", {"noise": 0.02}),
        ("swissroll", {"noise": 0.1}),
        ("eight_gaussians", {"noise": 0.02}),
        ("pinwheel", {"tangential_std": 0.01}),
        ("banana", {"noise": 0.02}),
        ("banana", {"curvature": 20.0}),  # no grid could be fine enough
        ("u1", {"thickness": 0.05}),
        ("u4", {"thickness": 0.05}),
        ("u2", {"thickness": 10.0}),  # no sharper than its ends
        ("u1", {"thickness": 10.0}),
    ],
)
def test_entropy_of_sharp_densities(
    name: str, changes: dict[str, float], build: Build, draw: Draw
) -> None:
    density = build(name, **changes)
    surprise = -density.log_prob(draw(density, 10_000))
    error = float(surprise.std()) / math.sqrt(len(surprise))
    assert float(surprise.mean()) == pytest.approx(density.entropy, abs=4 * error)


# --- samples ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_samples_follow_the_density(
    name: str,
    default: Build,
    build: Build,
    draw: Draw,
    masses_and_entropy: Integrate,
    histogram_p_value: PValue,
) -> None:
    density = default(name)
    masses, _ = masses_and_entropy(default(name), default(name))
    x = draw(density, 400_000)
    assert histogram_p_value(x, masses, density.window) > 1e-3
    wrong, _ = masses_and_entropy(build(name, **WRONG[name]), density)
    assert histogram_p_value(x, wrong, density.window) < 1e-9


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_samples_are_exactly_n_and_reproducible(
    name: str, n: int, default: Build, draw: Draw
) -> None:
    density = default(name)
    torch_state, numpy_state = torch.get_rng_state(), repr(np.random.get_state(legacy=False))
    x = draw(density, n)
    assert x.shape == (n, 2)
    assert x.dtype == torch.float64
    assert x.device.type == "cpu"
    assert torch.equal(x, draw(density, n))
    assert not torch.equal(x, draw(density, n, seed=1))
    assert torch.equal(torch_state, torch.get_rng_state())
    assert numpy_state == repr(np.random.get_state(legacy=False))  # its position and ends


@pytest.mark.parametrize("name", sorted({*SECTIONS} - {"logistic_regression"}))
def test_no_points_are_a_sample_too(name: str, default: Build, draw: Draw) -> None:
    density = default(name)
    x = draw(density, 0)
    assert (x.shape, x.dtype) == ((0, density.dim), torch.float64)
    assert density.log_prob(x).shape == (0,)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [100_001, 100_002])
def test_large_odd_samples(name: str, n: int, default: Build, draw: Draw) -> None:
    x = draw(default(name), n)
    assert x.shape == (n, 2)
    halves = x[: n // 2].mean(0) - x[n // 2 :].mean(0)
    assert float(halves.abs().max()) < 5 * float(x.std()) * 2 / math.sqrt(n)


@pytest.mark.parametrize("name", NAMES)
def test_the_points_of_the_smallest_sample_are_independent(
    name: str, default: Build, masses_and_entropy: Integrate, histogram_p_value: PValue
) -> None:
    density, generator = default(name), torch.Generator().manual_seed(0)
    pairs = torch.stack([density.sample(2, generator) for _ in range(6000)])
    masses, _ = masses_and_entropy(density, density)
    coarse = masses.unflatten(0, (16, 3)).unflatten(2, (16, 3)).sum((1, 3))
    for x in pairs.unbind(1):
        assert histogram_p_value(x, coarse, density.window) > 1e-3
    assert dependence(pairs) < 4
    assert dependence(torch.stack([pairs[:, 0], pairs[:, 0].flip(1)], 1)) > 4  # it would be seen


def dependence(pairs: Tensor) -> float:
    """Return the largest correlation of pairs, (n, 2, 2), in standard errors of none."""
    first, second = (
        torch.cat([x, x.square(), x.prod(1, keepdim=True)], 1) for x in pairs.unbind(1)
    )
    both = torch.cat([first, second], 1)
    correlation = torch.corrcoef(both.T)[:5, 5:]
    return float(correlation.abs().max()) * math.sqrt(len(pairs))


# --- log_prob as a function ---------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_keeps_dtype_and_value(name: str, default: Build, draw: Draw) -> None:
    density = default(name)
    x = draw(density, 5000).float()
    single, double = density.log_prob(x), density.log_prob(x.double())
    assert single.shape == double.shape == (5000,)
    assert single.dtype == torch.float32
    assert double.dtype == torch.float64
    assert single.double() == pytest.approx(double, abs=1e-4)
    assert density.log_prob(x[:0]).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_log_prob_far_away(name: str, dtype: torch.dtype, default: Build) -> None:
    angle = torch.linspace(0, 2 * math.pi, 17, dtype=dtype)
    radius = torch.tensor([0.0, 1.0, 5.0, 10.0, 15.0, 30.0, 100.0, 1000.0], dtype=dtype)
    x = torch.stack([torch.outer(radius, angle.cos()), torch.outer(radius, angle.sin())], dim=-1)
    log_p = default(name).log_prob(x.flatten(0, 1)).reshape(len(radius), -1)
    assert not bool(log_p.isnan().any())
    assert float(log_p[-1].max()) < -1e4
    assert bool(log_p.isfinite().all()) == (name != "checkerboard")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", sorted({*SECTIONS} - {"logistic_regression"}))
def test_log_prob_is_no_nan_as_far_as_numbers_go(
    name: str, dtype: torch.dtype, default: Build
) -> None:
    density, generator = default(name), torch.Generator().manual_seed(0)
    powers = torch.linspace(3, math.log10(torch.finfo(dtype).max) - 1, 24, dtype=torch.float64)
    way = torch.randn(24, 8, density.dim, generator=generator, dtype=torch.float64)
    way[:, 0, 1:] = 0  # along an axis
    x = (way.sign() * (10 ** powers[:, None, None])).flatten(0, 1).to(dtype).requires_grad_()
    log_p = density.log_prob(x)
    assert not bool(log_p.isnan().any())
    if log_p.requires_grad:  # a checkerboard is constant
        (slope,) = torch.autograd.grad(log_p[log_p > -math.inf].sum(), x)
        assert bool(slope[log_p > -math.inf].isfinite().all())


@pytest.mark.parametrize("name", SMOOTH)
def test_log_prob_has_the_right_gradient(name: str, default: Build, draw: Draw) -> None:
    density = default(name)
    x = torch.cat([draw(density, 4), torch.tensor([[7.0, 5.0], [-20.0, 9.0]]).double()])
    assert torch.autograd.gradcheck(density.log_prob, x.requires_grad_())


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_does_not_depend_on_the_batch(name: str, default: Build, draw: Draw) -> None:
    density = default(name)
    x = draw(density, 3000)
    one_by_one = torch.cat([density.log_prob(row) for row in torch.split(x[:20], 1)])
    assert density.log_prob(x)[:20] == pytest.approx(one_by_one, abs=1e-9)


# --- parameters ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_config_refuses_numbers_that_no_density_has(
    name: str, settings_of: Callable[..., dict[str, Any]]
) -> None:
    section, settings = SECTIONS[name], settings_of(name)
    assert section.model_validate(settings).build().entropy < math.inf
    numbers = [key for key, value in settings.items() if isinstance(value, int | float)]
    for key, value in product(numbers, (-1.0, math.nan, math.inf)):
        with pytest.raises(ValidationError, match=key):
            section.model_validate(settings | {key: value})


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("moons", {"scale": 0.0}),
        ("moons", {"shift": [1.0]}),
        ("moons", {"shift": [math.inf, 0.0]}),
        ("circles", {"factor": 1.0}),
        ("pinwheel", {"arms": 0}),
        ("eight_gaussians", {"radius": 0.0}),
        ("two_spirals", {"jitter": -0.5}),
        ("checkerboard", {"squares": 1}),
        ("rings", {"radii": []}),
        ("rings", {"radii": [1.0, -2.0]}),
        ("swissroll", {"noise": 0.0}),
        ("gaussian_mixture", {"weights": []}),
        ("gaussian_mixture", {"weights": [1.0, 0.0, 1.0]}),
        ("gaussian_mixture", {"means": [[math.inf, 0.0]] * 3}),
    ],
)
def test_the_config_refuses_what_is_out_of_range(
    name: str, changes: dict[str, Any], settings_of: Callable[..., dict[str, Any]]
) -> None:
    with pytest.raises(ValidationError, match=next(iter(changes))):
        SECTIONS[name].model_validate(settings_of(name, **changes))


def test_every_density_has_a_config() -> None:
    configs = {path.stem: OmegaConf.load(path) for path in CONF.glob("*.yaml")}
    assert {name for name in configs if configs[name].name in SECTIONS} == set(SECTIONS)
    assert all(configs[name].name == name for name in SECTIONS)


def test_every_density_is_a_public_name() -> None:
    owners = {section.owner.partition(":")[2] for section in SECTIONS.values()}
    assert {*densities.__all__} == {"Density", *owners} == {*dir(densities)}
    assert all(callable(getattr(densities, owner)) for owner in owners)
    with pytest.raises(AttributeError, match="has no attribute 'Circles'"):
        _ = densities.Circles


def test_the_known_constants_are_of_every_density() -> None:
    assert {*ENTROPY, "gaussian_mixture"} == {*WRONG} == {*NAMES}


@pytest.mark.parametrize(
    ("window", "resolution", "message"),
    [
        (([0.0, 0.0], [1.0, 0.0]), 1.0, "is no finite box"),
        (([0.0, 0.0], [1.0, math.inf]), 1.0, "is no finite box"),
        (([0.0, math.nan], [1.0, 1.0]), 1.0, "is no finite box"),
        (([0.0, 0.0], [1.0, 1.0]), 0.0, "resolution must be > 0, got 0"),
    ],
)
def test_a_density_of_ones_own_needs_a_window_and_a_resolution(
    window: tuple[list[float], list[float]], resolution: float, message: str
) -> None:
    class Own(Density):
        def sample(self, n: int, generator: torch.Generator) -> Tensor:
            return torch.zeros(n, 2, dtype=torch.float64)

        def log_prob(self, x: Tensor) -> Tensor:
            return x.new_zeros(len(x))

    low, high = (torch.tensor(corner, dtype=torch.float64) for corner in window)
    with pytest.raises(ValueError, match=message):
        Own(window=(low, high), resolution=resolution)
