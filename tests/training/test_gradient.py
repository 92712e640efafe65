"""One vector for all gradients."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from flowtrain.config.schema import Config
from flowtrain.runs.folder import RunFolder
from flowtrain.training.gradient import Gradient
from flowtrain.training.run import build_run


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2, bias=False)).double()


def backward(module: nn.Module) -> None:
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    module(x).square().sum().backward()


def test_backward_passes_fill_the_vector_in_place() -> None:
    module, plain = network(), network()
    gradient = Gradient(module.parameters())
    for _ in range(2):
        gradient.zero()
        backward(module)
    backward(plain)
    expected = [weight.grad.ravel() for weight in plain.parameters()]  # type: ignore[union-attr]
    assert torch.equal(gradient.vector, torch.cat(expected))
    backward(module)
    assert torch.equal(gradient.vector, 2 * torch.cat(expected))


@pytest.mark.parametrize("largest", [0.0, 0.5, 1e9])
def test_it_is_clipped_as_torch_does(largest: float) -> None:
    module, plain = network(), network()
    gradient = Gradient(module.parameters())
    backward(module)
    backward(plain)
    norm = gradient.clip(largest)
    expected = nn.utils.clip_grad_norm_(plain.parameters(), largest or float("inf"))
    torch.testing.assert_close(norm, expected, rtol=1e-12, atol=0)
    for weight, other in zip(module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, other.grad, rtol=1e-12, atol=0)


@pytest.mark.parametrize("solver", ["dopri5", "rk4"])
@pytest.mark.parametrize("adjoint", ["true", "false"])
def test_an_ode_fills_it_too(tiny: Callable[..., Config], solver: str, adjoint: str) -> None:
    config = tiny(f"solver={solver}", f"solver.adjoint={adjoint}", model="ffjord")
    run = build_run(config, RunFolder(Path("unused")))
    loss, _ = run.phases[0].objective(run.state.flow, run.splits.train.x[:8], run.state.generator)
    loss.backward()
    parts = [weight.grad.ravel() for weight in run.state.flow.parameters()]  # type: ignore[union-attr]
    assert torch.equal(run.gradient.vector, torch.cat(parts))
    assert run.gradient.vector.any()
