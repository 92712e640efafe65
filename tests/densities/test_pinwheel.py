"""The pinwheel's preimages, against brute force."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from flowtrain.densities.density import Density
from flowtrain.densities.pinwheel import Pinwheel

Build = Callable[..., Density]
Draw = Callable[..., Tensor]


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


def test_second_derivatives_are_those_of_differences(build: Build, draw: Draw) -> None:
    density = build("pinwheel")
    x = draw(density, 5)

    def slope(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        (found,) = torch.autograd.grad(density.log_prob(x).sum(), x, create_graph=True)
        return found

    for row in x:
        hessian = torch.autograd.functional.hessian(lambda y: density.log_prob(y[None])[0], row)
        steps = 1e-5 * torch.eye(2, dtype=torch.float64)
        expected = (slope(row + steps) - slope(row - steps)).detach() / 2e-5
        torch.testing.assert_close(hessian, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [{}, {"rate": 1.0}, {"rate": 0.6, "arms": 1, "tangential_std": 0.4}, {"rate": 0.0, "arms": 3}],
)
def test_pinwheel_against_brute_force(changes: dict[str, Any], build: Build, draw: Draw) -> None:
    density = build("pinwheel", **changes)
    assert isinstance(density, Pinwheel)
    scattered = 2 * torch.randn(10, 2, dtype=torch.float64, generator=torch.Generator())
    x = torch.cat([draw(density, 20), scattered])
    expected = [math.log(pinwheel_by_brute_force(density, row)) for row in x]
    assert density.log_prob(x).tolist() == pytest.approx(expected, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_pinwheel_misses_no_preimage(rate: float, build: Build) -> None:
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": 0}, "arms must be >= 1, got 0"),
        ({"rate": -0.1}, "rate must be >= 0, got -0.1"),
        ({"rate": math.nan}, "rate must be >= 0, got nan"),
        ({"radial_std": 2.0}, "wind the arms more than 50 times"),
        ({"radial_std": -1.0}, "radial_std must be > 0, got -1"),
        ({"tangential_std": 0.0}, "tangential_std must be > 0, got 0"),
        ({"scale": math.inf}, "scale must be > 0, got inf"),
    ],
)
def test_bad_parameters_are_refused(changes: dict[str, Any], message: str, build: Build) -> None:
    with pytest.raises(ValueError, match=message):
        build("pinwheel", **changes)


def test_entropy_says_when_it_cannot_be_exact(build: Build) -> None:
    density = build("pinwheel", rate=2.0, arms=1)
    with pytest.raises(ValueError, match="rate 2 folds the blades too far"):
        _ = density.entropy
