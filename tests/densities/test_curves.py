"""Densities on a curve: moons beside scikit-learn's, spirals, and what is refused."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.datasets import make_moons
from torch import Tensor

from flowtrain.densities.density import Density

Build = Callable[..., Density]
Draw = Callable[..., Tensor]
Integrate = Callable[[Density, Density], tuple[Tensor, float]]
PValue = Callable[[Tensor, Tensor, tuple[Tensor, Tensor]], float]

RAW_MOONS = {0.05: 0.289234, 0.1: 1.007585, 0.2: 1.677476}  # entropies in nats, by noise


@pytest.mark.parametrize("noise", sorted(RAW_MOONS))
def test_entropy_of_raw_moons(noise: float, build: Build, masses_and_entropy: Integrate) -> None:
    moons = build("moons", noise=noise, scale=1.0, shift=[0.0, 0.0])
    assert moons.entropy == pytest.approx(RAW_MOONS[noise], abs=1e-5)
    assert masses_and_entropy(moons, moons)[1] == pytest.approx(RAW_MOONS[noise], abs=1e-5)


# --- scikit-learn's moons -----------------------------------------------------------------------

POINTS = 400_000


@pytest.fixture(scope="module")
def theirs() -> Tensor:
    """Return scikit-learn's moons, scaled and shifted as FFJORD has them."""
    x, _ = make_moons(POINTS, noise=0.1, random_state=0)
    return 2 * torch.from_numpy(x) + torch.tensor([-1.0, -0.2])


def moments(x: Tensor) -> Tensor:
    """Return every point's coordinates and their products, (n, 5)."""
    return torch.cat([x, x.square(), x.prod(1, keepdim=True)], 1)


def standard_errors_apart(x: Tensor, y: Tensor) -> float:
    gap = moments(x).mean(0) - moments(y).mean(0)
    error = (moments(x).var(0) / len(x) + moments(y).var(0) / len(y)).sqrt()
    return float((gap / error).abs().max())


def test_large_samples_of_moons_are_those_of_scikit_learn(
    default: Build, draw: Draw, theirs: Tensor, two_sample_p_value: PValue
) -> None:
    moons = default("moons")
    ours = draw(moons, POINTS)
    assert standard_errors_apart(ours, theirs) < 4
    assert two_sample_p_value(ours, theirs, moons.window) > 1e-3


@pytest.mark.parametrize(
    "changes", [{"noise": 0.11}, {"scale": 2.04}, {"shift": [-0.96, -0.2]}], ids=str
)
def test_moons_that_are_slightly_wrong_are_told_from_those_of_scikit_learn(
    changes: dict[str, Any],
    build: Build,
    default: Build,
    draw: Draw,
    theirs: Tensor,
    two_sample_p_value: PValue,
) -> None:
    wrong = draw(build("moons", **changes), POINTS)
    assert two_sample_p_value(wrong, theirs, default("moons").window) < 1e-9
    if "noise" not in changes:
        assert standard_errors_apart(wrong, theirs) > 4


def test_small_samples_of_moons_are_random(
    build: Build, draw: Draw, masses_and_entropy: Integrate, histogram_p_value: PValue
) -> None:
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


# --- spirals ------------------------------------------------------------------------------------


def test_spirals_need_no_jitter(
    build: Build, draw: Draw, masses_and_entropy: Integrate, histogram_p_value: PValue
) -> None:
    spirals, jittered = build("two_spirals", jitter=0.0), build("two_spirals", jitter=0.02)
    masses, entropy = masses_and_entropy(spirals, spirals)
    assert float(masses.sum()) == pytest.approx(1, abs=1e-6)
    assert spirals.entropy == pytest.approx(entropy, abs=1e-6)
    assert spirals.entropy < build("two_spirals").entropy
    x = draw(spirals, 100_000)
    assert histogram_p_value(x, masses, spirals.window) > 1e-3
    of_default, _ = masses_and_entropy(build("two_spirals"), spirals)
    assert histogram_p_value(x, of_default, spirals.window) < 1e-9
    assert jittered.entropy == pytest.approx(spirals.entropy, abs=1e-3)  # no jump at 0


# --- parameters ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("moons", {"noise": -1}, "noise must be >= 9.6e-05 for an exact density, got -1"),
        ("moons", {"noise": 1e-6}, "noise must be >= 9.6e-05 for an exact density, got 1e-06"),
        ("moons", {"noise": math.nan}, "noise must be >= 9.6e-05 for an exact density, got nan"),
        ("moons", {"noise": math.inf}, "noise must be >= 9.6e-05 for an exact density, got inf"),
        ("moons", {"scale": 0.0}, "scale must be > 0, got 0"),
        ("moons", {"scale": -1.0}, "scale must be > 0, got -1"),
        ("moons", {"shift": [math.inf, 0.0]}, "is no finite box"),
        ("two_spirals", {"jitter": -0.5}, "jitter must be >= 0, got -0.1"),
        ("two_spirals", {"turns": 0}, "turns must be > 0, got 0"),
        ("two_spirals", {"scale": 0}, "scale must be > 0, got 0"),
        ("swissroll", {"noise": 0}, "noise must be >= 0.00"),
        ("swissroll", {"scale": -1.0}, "resolution must be > 0, got -1"),
    ],
)
def test_bad_parameters_are_refused(
    name: str, changes: dict[str, Any], message: str, build: Build
) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, **changes)
