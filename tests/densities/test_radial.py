"""Densities on circles: circles beside scikit-learn's, and what is refused."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import ks_2samp
from sklearn.datasets import make_circles
from torch import Tensor

from flowtrain.densities.density import Density
from flowtrain.densities.radial import Rings, circles

Build = Callable[..., Density]
Draw = Callable[..., Tensor]
PValue = Callable[[Tensor, Tensor, tuple[Tensor, Tensor]], float]

POINTS = 400_000


@pytest.fixture(scope="module")
def theirs() -> Tensor:
    """Return scikit-learn's circles, scaled as FFJORD has them."""
    x, _ = make_circles(POINTS, noise=0.08, factor=0.5, random_state=0)
    return 3 * torch.from_numpy(x)


def radial(x: Tensor, y: Tensor) -> float:
    """Return the Kolmogorov-Smirnov p-value that the radii of two sets are of one distribution."""
    return float(ks_2samp(x.norm(dim=1).numpy(), y.norm(dim=1).numpy()).pvalue)


def test_large_samples_of_circles_are_those_of_scikit_learn(
    default: Build, draw: Draw, theirs: Tensor, two_sample_p_value: PValue
) -> None:
    density = default("circles")
    ours = draw(density, POINTS)
    assert two_sample_p_value(ours, theirs, density.window) > 1e-3
    assert radial(ours, theirs) > 1e-3
    assert float(ours.mean(0).abs().max()) < 4 * float(ours.std()) / math.sqrt(POINTS)
    powers = [x.norm(dim=1)[:, None] ** torch.tensor([2, 4]) for x in (ours, theirs)]
    gap = powers[0].mean(0) - powers[1].mean(0)
    error = (powers[0].var(0) + powers[1].var(0)).div(POINTS).sqrt()
    assert float((gap / error).abs().max()) < 4


@pytest.mark.parametrize("changes", [{"noise": 0.088}, {"factor": 0.51}, {"scale": 3.06}], ids=str)
def test_circles_that_are_slightly_wrong_are_told_from_those_of_scikit_learn(
    changes: dict[str, Any],
    build: Build,
    default: Build,
    draw: Draw,
    theirs: Tensor,
    two_sample_p_value: PValue,
) -> None:
    wrong = draw(build("circles", **changes), POINTS)
    assert two_sample_p_value(wrong, theirs, default("circles").window) < 1e-9
    assert radial(wrong, theirs) < 1e-9


def test_circles_are_two_rings() -> None:
    two = circles(noise=0.1, factor=0.25, scale=2.0)
    assert isinstance(two, Rings)
    assert (two.radii.tolist(), two.noise) == ([2.0, 0.5], 0.2)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("circles", {"noise": math.nan}, "noise must be > 0, got nan"),
        ("circles", {"factor": 0.0}, r"radii\[1\] must be > 0, got 0"),
        ("circles", {"scale": 0.0}, "noise must be > 0, got 0"),
        ("rings", {"radii": []}, "radii must hold at least one radius"),
        ("rings", {"radii": [1.0, -2.0]}, r"radii\[1\] must be > 0, got -2"),
    ],
)
def test_bad_parameters_are_refused(
    name: str, changes: dict[str, Any], message: str, build: Build
) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, **changes)


def test_entropy_says_when_it_cannot_be_exact(build: Build) -> None:
    density = build("rings", noise=1e-4)
    with pytest.raises(ValueError, match=r"needs \d+ x \d+ nodes"):
        _ = density.entropy
