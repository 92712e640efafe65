"""Toy densities against quadrature, Monte Carlo, histograms and the constants of their laws."""

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.polynomial.legendre import leggauss
from omegaconf import OmegaConf
from scipy.optimize import brentq
from scipy.stats import chi2
from sklearn.datasets import make_moons
from torch import Tensor

from flowtrain.data import DENSITIES, Density, Pinwheel

CONF = Path(__file__).parents[2] / "conf" / "data"
NAMES = sorted(DENSITIES)
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
}
RAW_MOONS = {0.05: 0.289234, 0.1: 1.007585, 0.2: 1.677476}

# The same law, ever so slightly wrong.
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
}


def build(name: str, **changes: Any) -> Density:
    parameters: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    parameters.update(changes)
    return DENSITIES[parameters.pop("name")](**parameters)


@cache
def default(name: str) -> Density:
    return build(name)


def draw(density: Density, n: int, seed: int = 0) -> Tensor:
    return density.sample(n, torch.Generator().manual_seed(seed))


PANELS, ORDER = 48, 8


def panels(density: Density) -> tuple[Tensor, Tensor]:
    """Nodes and weights, (48, 8, 48, 8, 2) and (48, 8, 48, 8): a rule unlike the package's own."""
    x, w = (torch.from_numpy(array) for array in leggauss(ORDER))
    axes = []
    for low, high in zip(*density.window, strict=True):
        edges = torch.linspace(float(low), float(high), PANELS + 1, dtype=torch.float64)
        half = edges.diff()[:, None] / 2
        axes.append(((edges[:-1, None] + half * (1 + x)).flatten(), (half * w).flatten()))
    (x0, w0), (x1, w1) = axes
    shape = (PANELS, ORDER, PANELS, ORDER)
    return torch.cartesian_prod(x0, x1).reshape(*shape, 2), torch.outer(w0, w1).reshape(shape)


def masses_and_entropy(law: Density, cells_of: Density) -> tuple[Tensor, float]:
    """The law's mass in 48 x 48 cells of a density's window, and its entropy there."""
    x, w = panels(cells_of)
    p = law.log_prob(x.flatten(0, 3)).exp().reshape(w.shape)
    return (w * p).sum((1, 3)), -float((w * torch.xlogy(p, p)).sum())


@cache
def default_masses_and_entropy(name: str) -> tuple[Tensor, float]:
    return masses_and_entropy(default(name), default(name))


def histogram_p_value(x: Tensor, masses: Tensor, window: tuple[Tensor, Tensor]) -> float:
    """Chi-square p-value of points against cell masses; cells that expect < 25 are one cell."""
    low, high = window
    cell = ((x - low) / (high - low) * PANELS).floor().to(torch.int64)
    inside = ((cell >= 0) & (cell < PANELS)).all(1)
    index = cell[inside, 0] * PANELS + cell[inside, 1]
    counts = torch.bincount(index, minlength=PANELS**2).double()
    expected = len(x) * masses.flatten()
    large = expected >= 25
    rest = torch.stack([len(x) - counts[large].sum(), len(x) - expected[large].sum()])
    statistic = float(((counts - expected)[large].square() / expected[large]).sum())
    statistic += float((rest[0] - rest[1]).square() / rest[1].clamp(min=1))
    return float(chi2.sf(statistic, df=int(large.sum())))


# --- density and entropy ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_mass_is_one(name: str) -> None:
    density = default(name)
    x, w = density.quadrature()
    assert x.dtype == w.dtype == torch.float64
    assert float(w @ density.log_prob(x).exp()) == pytest.approx(1, abs=1e-6)
    assert float(default_masses_and_entropy(name)[0].sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_quadrature_covers_the_window(name: str) -> None:
    density = default(name)
    low, high = density.window
    x, w = density.quadrature(60)
    assert x.shape == (3600, 2)
    assert float(w.sum()) == pytest.approx(float((high - low).prod()))
    assert bool(((x > low) & (x < high)).all())


@pytest.mark.parametrize("name", NAMES)
def test_entropy_by_another_quadrature(name: str) -> None:
    assert default(name).entropy == pytest.approx(default_masses_and_entropy(name)[1], abs=1e-6)


@pytest.mark.parametrize("name", sorted(ENTROPY))
def test_entropy_is_the_known_one(name: str) -> None:
    assert default(name).entropy == pytest.approx(ENTROPY[name][0], abs=1e-5)
    assert default_masses_and_entropy(name)[1] == pytest.approx(ENTROPY[name][0], abs=1e-5)


@pytest.mark.parametrize("noise", sorted(RAW_MOONS))
def test_entropy_of_raw_moons(noise: float) -> None:
    moons = build("moons", noise=noise, scale=1.0, shift=[0.0, 0.0])
    assert moons.entropy == pytest.approx(RAW_MOONS[noise], abs=1e-5)
    assert masses_and_entropy(moons, moons)[1] == pytest.approx(RAW_MOONS[noise], abs=1e-5)


@pytest.mark.parametrize("name", sorted(ENTROPY))
def test_entropy_after_standardisation(name: str) -> None:
    density = default(name)
    log_sd = float(draw(density, 1_000_000).std(0).log().sum())
    assert density.entropy - log_sd == pytest.approx(ENTROPY[name][1], abs=5e-3)


@pytest.mark.parametrize("name", NAMES)
def test_entropy_by_monte_carlo(name: str) -> None:
    density = default(name)
    surprise = -density.log_prob(draw(density, 40_000))
    error = float(surprise.std()) / math.sqrt(len(surprise))
    assert float(surprise.mean()) == pytest.approx(density.entropy, abs=4 * error + 1e-9)


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
    ],
)
def test_entropy_of_sharp_laws(name: str, changes: dict[str, float]) -> None:
    density = build(name, **changes)
    surprise = -density.log_prob(draw(density, 10_000))
    error = float(surprise.std()) / math.sqrt(len(surprise))
    assert float(surprise.mean()) == pytest.approx(density.entropy, abs=4 * error)


# --- samples ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_samples_follow_the_density(name: str) -> None:
    density = default(name)
    masses, _ = default_masses_and_entropy(name)
    x = draw(density, 400_000)
    assert histogram_p_value(x, masses, density.window) > 1e-3
    wrong, _ = masses_and_entropy(build(name, **WRONG[name]), density)
    assert histogram_p_value(x, wrong, density.window) < 1e-9


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_samples_are_exactly_n_and_reproducible(name: str, n: int) -> None:
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


@pytest.mark.parametrize("name", ["moons", "circles"])
@pytest.mark.parametrize("n", [100_001, 100_002])
def test_large_odd_samples(name: str, n: int) -> None:
    x = draw(default(name), n)
    assert x.shape == (n, 2)
    halves = x[: n // 2].mean(0) - x[n // 2 :].mean(0)
    assert float(halves.abs().max()) < 5 * float(x.std()) * 2 / math.sqrt(n)


def test_small_samples_of_moons_are_random() -> None:
    """scikit-learn's own small samples have angles on a grid: their means hardly vary."""

    def spread(samples: list[Tensor]) -> float:
        means = torch.stack([x[:, 0].mean() for x in samples])
        return float(means.var() * len(samples[0]) / torch.cat(samples)[:, 0].var())

    moons = build("moons", scale=1.0, shift=[0.0, 0.0])
    ours = [draw(moons, 64, seed) for seed in range(200)]
    gridded = [
        torch.from_numpy(make_moons(64, noise=0.1, random_state=seed)[0]) for seed in range(200)
    ]
    assert spread(ours) == pytest.approx(1, abs=0.4)  # standard error 0.1
    assert spread(gridded) < 0.1
    masses, _ = masses_and_entropy(moons, moons)
    assert histogram_p_value(torch.cat(ours), masses, moons.window) > 1e-3


# --- log_prob as a function ---------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_keeps_dtype_and_value(name: str) -> None:
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
def test_log_prob_far_away(name: str, dtype: torch.dtype) -> None:
    angle = torch.linspace(0, 2 * math.pi, 17, dtype=dtype)
    radius = torch.tensor([0.0, 1.0, 5.0, 10.0, 15.0, 30.0, 100.0, 1000.0], dtype=dtype)
    x = torch.stack([torch.outer(radius, angle.cos()), torch.outer(radius, angle.sin())], dim=-1)
    log_p = default(name).log_prob(x.flatten(0, 1)).reshape(len(radius), -1)
    assert not bool(log_p.isnan().any())
    assert float(log_p[-1].max()) < -1e4
    assert bool(log_p.isfinite().all()) == (name != "checkerboard")


@pytest.mark.parametrize("name", SMOOTH)
def test_log_prob_has_the_right_gradient(name: str) -> None:
    density = default(name)
    x = torch.cat([draw(density, 4), torch.tensor([[7.0, 5.0], [-20.0, 9.0]]).double()])
    assert torch.autograd.gradcheck(density.log_prob, x.requires_grad_())


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_does_not_depend_on_the_batch(name: str) -> None:
    density = default(name)
    x = draw(density, 3000)
    one_by_one = torch.cat([density.log_prob(row) for row in torch.split(x[:20], 1)])
    assert density.log_prob(x)[:20] == pytest.approx(one_by_one, abs=1e-9)


# --- the pinwheel's preimages -------------------------------------------------------------------


def pinwheel_by_brute_force(density: Pinwheel, x: Tensor) -> float:
    """p(x) from every sign change of the angle equation on a fine grid, arm by arm."""
    y = (x / density.scale).numpy()
    rho, theta = float(np.hypot(*y)), float(np.arctan2(y[1], y[0]))
    grid = np.linspace(-np.pi, np.pi, 50_001)
    angle = grid - density.rate * np.exp(rho * np.cos(grid))
    total = 0.0
    for arm in range(density.arms):
        base = theta + 2 * np.pi * arm / density.arms
        first, last = (np.array([angle.min(), angle.max()]) - base) / (2 * np.pi)
        for turn in range(math.floor(first), math.ceil(last) + 1):
            target = base + 2 * np.pi * turn
            miss = angle - target
            for i in np.flatnonzero((miss[:-1] < 0) != (miss[1:] < 0)):
                psi = brentq(
                    lambda psi, target=target: (
                        psi - density.rate * np.exp(rho * np.cos(psi)) - target
                    ),
                    grid[i],
                    grid[i + 1],
                    xtol=1e-15,
                )
                a, b = rho * np.cos(psi), rho * np.sin(psi)
                z = ((a - 1) / density.radial_std) ** 2 + (b / density.tangential_std) ** 2
                total += np.exp(-z / 2) / abs(1 + density.rate * np.exp(a) * b)
    sds = density.radial_std * density.tangential_std * density.scale**2
    return float(total) / (2 * np.pi * sds * density.arms)


@pytest.mark.parametrize(
    "changes",
    [{}, {"rate": 1.0}, {"rate": 0.6, "arms": 1, "tangential_std": 0.4}, {"rate": 0.0, "arms": 3}],
)
def test_pinwheel_against_brute_force(changes: dict[str, Any]) -> None:
    density = build("pinwheel", **changes)
    assert isinstance(density, Pinwheel)
    scattered = 2 * torch.randn(10, 2, dtype=torch.float64, generator=torch.Generator())
    x = torch.cat([draw(density, 20), scattered])
    expected = [math.log(pinwheel_by_brute_force(density, row)) for row in x]
    assert density.log_prob(x).tolist() == pytest.approx(expected, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_pinwheel_misses_no_preimage(rate: float) -> None:
    """The density of an image is at least what its own preimage gives."""
    density = build("pinwheel", rate=rate)
    assert isinstance(density, Pinwheel)
    axis = torch.linspace(-5, 5, 301, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    a, b = 1 + density.radial_std * z[:, 0], density.tangential_std * z[:, 1]
    angle = rate * a.exp()
    x = torch.stack([a * angle.cos() + b * angle.sin(), b * angle.cos() - a * angle.sin()], dim=1)
    sds = density.radial_std * density.tangential_std * density.scale**2
    volume = 2 * math.pi * sds * density.arms * (1 + rate * a.exp() * b).abs()
    least = -z.square().sum(1) / 2 - volume.log()
    assert float((density.log_prob(density.scale * x) - least).min()) > -1e-6


# --- parameters ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("moons", {"noise": -1}, "noise must be > 0, got -1"),
        ("moons", {"scale": 0.0}, "scale must be > 0, got 0"),
        ("moons", {"shift": [1.0]}, "shift must be two finite numbers"),
        ("moons", {"noise": 1e-6}, "noise must be >= 9.6e-05 for an exact density"),
        ("circles", {"noise": math.nan}, "noise must be > 0, got nan"),
        ("circles", {"factor": 1.0}, r"factor must be in \(0, 1\), got 1"),
        ("pinwheel", {"arms": 0}, "arms must be >= 1, got 0"),
        ("pinwheel", {"rate": -0.1}, "rate must be >= 0, got -0.1"),
        ("pinwheel", {"radial_std": 2.0}, "wind the arms more than 50 times"),
        ("eight_gaussians", {"radius": 0}, "radius must be > 0, got 0"),
        ("two_spirals", {"jitter": -0.5}, "jitter must be > 0, got -0.5"),
        ("checkerboard", {"squares": 1}, "squares must be >= 2, got 1"),
        ("checkerboard", {"side": math.inf}, "side must be > 0, got inf"),
        ("rings", {"radii": []}, "radii must hold at least one radius"),
        ("rings", {"radii": [1.0, -2.0]}, r"radii\[1\] must be > 0, got -2"),
        ("swissroll", {"noise": 0}, "noise must be > 0, got 0"),
        ("gaussian_mixture", {"weights": []}, "weights must hold at least one weight"),
        ("gaussian_mixture", {"weights": [1.0, 0.0, 1.0]}, r"weights\[1\] must be > 0, got 0"),
        ("gaussian_mixture", {"means": [[0.0, 0.0]]}, r"means must have shape \(3, 2\)"),
        ("gaussian_mixture", {"means": [[0.0], [0.0, 1.0]]}, "means must be a regular nested list"),
        ("gaussian_mixture", {"means": [[math.inf, 0.0]] * 3}, "means must be finite"),
        (
            "gaussian_mixture",
            {"covariances": [[[1.0, 2.0], [2.0, 1.0]]] * 3},
            r"covariances\[0\] must be symmetric positive definite",
        ),
        (
            "gaussian_mixture",
            {"covariances": [[[1.0, 0.5], [0.0, 1.0]]] * 3},
            r"covariances\[0\] must be symmetric positive definite",
        ),
    ],
)
def test_bad_parameters_are_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, **changes)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("rings", {"noise": 1e-4}, r"needs \d+ x \d+ nodes"),
        ("pinwheel", {"rate": 2.0, "arms": 1}, "rate 2 folds the blades too far"),
    ],
)
def test_entropy_says_when_it_cannot_be_exact(
    name: str, changes: dict[str, Any], message: str
) -> None:
    density = build(name, **changes)
    with pytest.raises(ValueError, match=message):
        _ = density.entropy


def test_every_density_has_a_config() -> None:
    configs = {path.stem: OmegaConf.load(path) for path in CONF.glob("*.yaml")}
    assert {name for name in configs if configs[name].name in DENSITIES} == set(DENSITIES)
    assert all(configs[name].name == name for name in DENSITIES)


def test_mixture_weights_are_normalised() -> None:
    x = torch.zeros(1, 2)
    scaled = build("gaussian_mixture", weights=[3.0, 3.0, 4.0])
    assert torch.equal(scaled.log_prob(x), default("gaussian_mixture").log_prob(x))
