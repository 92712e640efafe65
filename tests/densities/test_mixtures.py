"""Mixtures of Gaussians: weights, and what is refused."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from flowtrain.densities.density import Density
from flowtrain.densities.mixtures import eight_gaussians

Build = Callable[..., Density]


def test_mixture_weights_are_normalised(build: Build, default: Build) -> None:
    x = torch.zeros(1, 2)
    scaled = build("gaussian_mixture", weights=[3.0, 3.0, 4.0])
    assert torch.equal(scaled.log_prob(x), default("gaussian_mixture").log_prob(x))


def test_eight_gaussians_stand_at_the_points_of_the_compass() -> None:
    mixture = eight_gaussians(radius=4.0, noise=0.5, scale=0.5)
    assert mixture.weights.tolist() == [0.125] * 8
    for angle in range(0, 360, 45):
        radians = math.radians(angle)
        centre = torch.tensor([[2 * math.cos(radians), 2 * math.sin(radians)]]).double()
        peak = -math.log(8 * 2 * math.pi * 0.25**2)
        assert mixture.log_prob(centre).item() == pytest.approx(peak, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": []}, "weights must hold at least one weight"),
        ({"weights": [1e-300, 1e300, 1.0]}, r"weights\[0\] is nothing beside the largest"),
        ({"weights": [1.0, 0.0, 1.0]}, r"weights\[1\] must be > 0, got 0"),
        ({"means": [[0.0, 0.0]]}, r"means must have shape \(3, 2\)"),
        ({"means": [[0.0], [0.0, 1.0]]}, "means must be a regular nested list"),
        ({"means": [[math.inf, 0.0]] * 3}, "means must be finite"),
        (
            {"covariances": [[[1.0, 2.0], [2.0, 1.0]]] * 3},
            r"covariances\[0\] must be symmetric positive definite",
        ),
        (
            {"covariances": [[[1.0, 0.5], [0.0, 1.0]]] * 3},
            r"covariances\[0\] must be symmetric positive definite",
        ),
    ],
)
def test_bad_parameters_are_refused(changes: dict[str, Any], message: str, build: Build) -> None:
    with pytest.raises(ValueError, match=message):
        build("gaussian_mixture", **changes)
