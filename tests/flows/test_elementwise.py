"""Affine maps and splines of single coordinates."""

from typing import Any

import pytest
import torch
from torch import Tensor

from flowtrain.flows.elementwise import Affine, Elementwise, RationalQuadratic

BOUND = 3.0
FAMILIES: dict[str, Elementwise] = {
    "affine": Affine(log_scale_bound=1.5),
    "spline-2": RationalQuadratic(bins=2, bound=BOUND),
    "spline-8": RationalQuadratic(bins=8, bound=BOUND),
}


def draw(*shape: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Elementwise:
    return FAMILIES[request.param]


def test_log_slopes_are_those_of_autograd(family: Elementwise) -> None:
    at, parameters = draw(500, 2, scale=1.6).requires_grad_(), draw(500, 2, family.size)
    assert (at.abs() > BOUND).any()  # beyond the spline, too
    for direction in (family.forward, family.inverse):
        value, log_slope = direction(at, parameters)
        (slope,) = torch.autograd.grad(value.sum(), at)
        torch.testing.assert_close(log_slope, slope.log(), rtol=0, atol=1e-10)
        assert log_slope.abs().max() > 0.5


def test_inverse_undoes_forward(family: Elementwise) -> None:
    z, parameters = draw(500, 2, scale=1.6), draw(500, 2, family.size)
    x, log_slope = family.forward(z, parameters)
    back, back_log_slope = family.inverse(x, parameters)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-10)
    torch.testing.assert_close(back_log_slope, -log_slope, rtol=0, atol=1e-10)


def test_parameters_of_zero_are_the_identity(family: Elementwise) -> None:
    z = draw(100, 3, scale=2.0)
    for direction in (family.forward, family.inverse):
        x, log_slope = direction(z, torch.zeros(100, 3, family.size, dtype=torch.float64))
        torch.testing.assert_close(x, z, rtol=0, atol=1e-12)
        torch.testing.assert_close(log_slope, torch.zeros_like(z), rtol=0, atol=1e-12)


def test_gradients_reach_every_parameter(family: Elementwise) -> None:
    parameters = draw(300, 1, family.size).requires_grad_()
    z, log_slope = family.inverse(draw(300, 1), parameters)
    (z + log_slope).sum().backward()
    assert parameters.grad is not None
    assert parameters.grad.isfinite().all()
    assert (parameters.grad.abs().amax((0, 1)) > 1e-6).all()


@pytest.mark.parametrize("scale", [30.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_spline_survives_parameters_of_any_size(dtype: Any, scale: float) -> None:
    spline = RationalQuadratic(bins=8, bound=BOUND)
    x = torch.linspace(-4, 4, 2001).to(dtype)[:, None].requires_grad_()
    parameters = draw(1, 1, spline.size, scale=scale).to(dtype).requires_grad_()
    for direction in (spline.inverse, spline.forward):
        value, log_slope = direction(x, parameters.expand(2001, 1, spline.size))
        assert value.isfinite().all()
        assert log_slope.isfinite().all()
        assert (value.diff(dim=0) >= 0).all()
        for grad in torch.autograd.grad((value + log_slope).sum(), [x, parameters]):
            assert grad.isfinite().all()


def test_a_spline_meets_its_knots_and_is_smooth_across_them() -> None:
    spline = RationalQuadratic(bins=4, bound=BOUND)
    parameters = draw(1, 1, spline.size)
    sides = parameters[0, 0, :8].reshape(2, 4).softmax(-1)
    sides = 1e-3 + (1 - 4e-3) * sides
    xs, ys = 2 * BOUND * sides.cumsum(-1)[:, :3] - BOUND
    slopes = (
        1e-3 + (parameters[0, 0, 8:] + torch.tensor(0.999).double().expm1().log()).exp().log1p()
    )
    for side in (-1e-9, 1e-9):
        at = (xs + side)[:, None]
        values, log_slopes = spline.inverse(at, parameters.expand(3, 1, spline.size))
        torch.testing.assert_close(values[:, 0], ys, rtol=0, atol=1e-7)
        torch.testing.assert_close(log_slopes[:, 0], slopes.log(), rtol=0, atol=1e-6)


def test_a_spline_is_the_identity_beyond_its_bound() -> None:
    spline = RationalQuadratic(bins=4, bound=BOUND)
    at = torch.tensor([[-10.0], [-BOUND], [BOUND], [10.0]], dtype=torch.float64)
    for direction in (spline.inverse, spline.forward):
        value, log_slope = direction(at, draw(4, 1, spline.size))
        torch.testing.assert_close(value, at)
        assert (log_slope == 0).all()


def test_a_steep_spline_is_solved_in_single_precision() -> None:
    """Bins of very different slopes: where the textbook's root of a quadratic cancels."""
    family, generator = RationalQuadratic(bins=8, bound=3.0), torch.Generator().manual_seed(0)
    parameters = 3 * torch.randn(200_000, 1, family.size, generator=generator)
    z = 6 * torch.rand(200_000, 1, generator=generator) - 3
    _, log_slope = family.forward(z, parameters)
    _, exact = family.forward(z.double(), parameters.double())
    assert (log_slope - exact).abs().max() < 0.03
