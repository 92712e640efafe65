"""A turned density: its samples, its mass and its entropy turn with it."""

import math
from collections.abc import Callable

import pytest
import torch

from flowtrain.densities.density import Density
from flowtrain.densities.rotated import Rotated, rotate

Build = Callable[..., Density]


def test_a_quarter_turn_is_counterclockwise_and_two_halves_are_one() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    turned = rotate(x, torch.tensor(math.pi / 2, dtype=torch.float64))
    torch.testing.assert_close(turned, torch.tensor([[0.0, 1.0], [-2.0, 0.0]]).double())
    each = torch.tensor([math.pi, -math.pi], dtype=torch.float64)
    torch.testing.assert_close(rotate(x, each), -x)


@pytest.mark.parametrize("name", ["moons", "checkerboard"])
def test_samples_and_density_turn_together(name: str, default: Build) -> None:
    density = default(name)
    turned = Rotated(density, 0.7)
    x = turned.sample(500, torch.Generator().manual_seed(0))
    original = density.sample(500, torch.Generator().manual_seed(0))
    torch.testing.assert_close(turned.log_prob(x), density.log_prob(original))
    nodes, weights = turned.quadrature(240)
    assert float(weights @ turned.log_prob(nodes).exp()) == pytest.approx(1, abs=1e-6)
    low, high = turned.window
    assert bool(((x >= low) & (x <= high)).all())
    assert turned.entropy == density.entropy
