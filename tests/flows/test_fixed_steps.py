"""Steps of our own against torchdiffeq's, and the orders that the literature gives them."""

import math

import pytest
import torch
from torch import Tensor
from torchdiffeq import odeint

from flowtrain.config.methods import METHODS
from flowtrain.flows.fixed_steps import count_steps, integrate
from flowtrain.progress import listening

ORDERS = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}


def field(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([torch.sin(3 * t) - y[:, 1] * y[:, 0], y[:, 0] + t.square()], -1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (1.0, 0.0), (0.2, 0.9)])
def test_steps_and_gradients_are_torchdiffeq_s(method: str, start: float, end: float) -> None:
    y = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    own, other = y.clone().requires_grad_(), y.clone().requires_grad_()
    found = integrate(field, own, start, end, method=method, step_size=0.13)
    times = torch.tensor([start, end], dtype=torch.float64)
    step = (end - start) / count_steps(end - start, 0.13)
    grid = torch.linspace(start, end, round((end - start) / step) + 1, dtype=torch.float64)
    expected = odeint(
        field, other, times, method=method, options={"grid_constructor": lambda *_: grid}
    )[-1]
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(own.grad, other.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_half_the_step_is_an_error_smaller_by_the_order(method: str) -> None:
    def error(step_size: float) -> float:
        end = integrate(
            lambda t, y: y * torch.cos(t), torch.ones(1, 1, dtype=torch.float64), 0.0, 1.0,
            method=method, step_size=step_size,
        )  # fmt: skip
        return abs(end.item() - math.exp(math.sin(1.0)))

    assert math.log2(error(0.1) / error(0.05)) == pytest.approx(ORDERS[method], abs=0.35)


@pytest.mark.parametrize("method", METHODS)
def test_no_time_lies_outside_and_progress_ends_at_the_end(method: str) -> None:
    asked: list[float] = []
    told: list[float] = []

    def rest(t: Tensor, y: Tensor) -> Tensor:
        asked.append(t.item())
        return torch.zeros_like(y)

    with listening(lambda what, fraction, _: told.append(fraction)):
        integrate(rest, torch.zeros(1, 1), 1.0, 0.0, method=method, step_size=0.07)
    assert 0.0 <= min(asked) <= max(asked) <= 1.0
    assert asked[0] == 1.0
    assert told == sorted(told)
    assert (len(told), told[-1]) == (15, 1.0)
