"""Planar and radial layers: their formulas, and that no weights can break their inverse."""

import math

import pytest
import torch
from torch import Tensor

from flowtrain.flows.planar import SMALLEST, Planar, Radial, solve_planar

STEEPEST = SMALLEST - 1


def layers(scale: float) -> list[Planar | Radial]:
    generator = torch.Generator().manual_seed(0)
    found: list[Planar | Radial] = []
    for _ in range(20):
        for layer in (Planar(3, generator=generator), Radial(3, generator=generator)):
            with torch.no_grad():
                for parameter in layer.double().parameters():
                    parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
            found.append(layer)
    return found


def points(n: int = 50) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.randn(n, 3, generator=generator, dtype=torch.float64)


def test_a_planar_layer_is_the_paper_s() -> None:
    """f(z) = z + u h(w.z + b), det = 1 + u.psi(z), psi = h'(w.z + b) w: eq. 10 to 12."""
    layer, z = layers(0.5)[0], points()
    assert isinstance(layer, Planar)
    _, _, u, inner = layer.push()
    x, log_det = layer(z)
    bend = z @ layer.normal + layer.offset
    torch.testing.assert_close(x, z + u * bend.tanh()[:, None])
    psi = (1 - bend.tanh().square())[:, None] * layer.normal
    torch.testing.assert_close(log_det, (1 + psi @ u).log())
    torch.testing.assert_close(inner, layer.normal @ u)


def test_a_radial_layer_is_the_paper_s() -> None:
    """f(z) = z + b h(a, r)(z - c), h = 1 / (a + r), and its determinant: eq. 14."""
    layer, z = layers(0.5)[1], points()
    assert isinstance(layer, Radial)
    _, a, b = layer.push()
    r = (z - layer.centre).norm(dim=1)
    x, log_det = layer(z)
    torch.testing.assert_close(x, z + (b / (a + r))[:, None] * (z - layer.centre))
    det = (1 + b / (a + r)) ** 2 * (1 + b / (a + r) - b * r / (a + r) ** 2)
    torch.testing.assert_close(log_det, det.log())


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0, 3.0, 30.0])
def test_layers_of_any_weights_are_invertible(scale: float) -> None:
    z = points()
    for layer in layers(scale):
        x, log_det = layer(z)
        back, back_log_det = layer.inverse(x)
        torch.testing.assert_close(back, z, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(back_log_det, -log_det, rtol=1e-5, atol=1e-5)
        if scale == 0.0:
            assert torch.equal(x, z)


def test_u_is_moved_along_w_alone_and_never_past_the_fold() -> None:
    for layer in layers(3.0):
        if isinstance(layer, Planar):
            _, _, u, inner = layer.push()
            assert inner > STEEPEST - 1e-9
            moved = u - layer.direction
            across = moved - layer.normal * (moved @ layer.normal) / layer.normal.square().sum()
            assert across.abs().max() < 1e-9


@pytest.mark.parametrize("inner", [STEEPEST, -0.5, 0.0, 1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_root_is_found_wherever_it_lies(inner: float, dtype: torch.dtype) -> None:
    right = torch.tensor([0.0, 1e-6, -1e-3, 0.1, -1.0, 7.0, -1e3, 1e6], dtype=dtype)
    a = solve_planar(right, torch.tensor(inner, dtype=dtype))
    close = 1e-12 if dtype == torch.float64 else 1e-5
    scale = max(1.0, abs(inner))
    torch.testing.assert_close(a + inner * a.tanh(), right, rtol=close, atol=close * scale)


def test_the_root_s_gradients_are_those_of_the_implicit_function() -> None:
    right = torch.tensor([0.3, -2.0], dtype=torch.float64, requires_grad=True)
    inner = torch.tensor(-0.8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(solve_planar, (right, inner))
    assert torch.autograd.gradgradcheck(solve_planar, (right, inner))


def test_a_far_point_spoils_no_gradient() -> None:
    layer = Radial(2, generator=torch.Generator().manual_seed(0))
    torch.nn.init.constant_(layer.log_reach, -5.0)
    x = torch.tensor([[1e6, 0.0], [1.0, 2.0]], requires_grad=True)
    z, log_det = layer.inverse(x)
    (z.sum() + log_det.sum()).backward()
    for each in (x, *layer.parameters()):
        assert each.grad is not None
        assert each.grad.isfinite().all()


def test_a_point_at_the_centre_has_a_likelihood() -> None:
    layer = Radial(3, generator=torch.Generator().manual_seed(0)).double()
    torch.nn.init.ones_(layer.strength)
    z = layer.centre.detach()[None].requires_grad_()
    x, log_det = layer.inverse(z)
    reach, push = (each.item() for each in layer.push()[1:])
    torch.testing.assert_close(x, z)
    assert math.isclose(log_det.item(), -3 * math.log1p(push / reach), rel_tol=1e-9)
    log_det.sum().backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
