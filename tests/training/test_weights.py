"""One vector for all weights, and one for their gradient."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flowtrain.config.schema import Config
from flowtrain.runs.folder import RunFolder
from flowtrain.training.run import build_run
from flowtrain.training.weights import LINE, Weights


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2, bias=False)).double()


def backward(module: nn.Module) -> None:
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    module(x).square().sum().backward()


def slopes(module: nn.Module) -> list[Tensor]:
    return [weight.grad for weight in module.parameters() if weight.grad is not None]


def test_the_weights_keep_their_values_in_views_of_one_vector() -> None:
    module, plain = network(), network()
    weights = Weights(module)
    for weight, part, other in zip(
        module.parameters(), weights.parts(weights.vector), plain.parameters(), strict=True
    ):
        assert torch.equal(weight, other)
        assert weight.data_ptr() == part.data_ptr()
        assert (weight.data_ptr() - weights.vector.data_ptr()) % LINE == 0
    weights.vector.mul_(2)
    assert torch.equal(next(module.parameters()), 2 * next(plain.parameters()))


def test_a_copy_of_the_module_has_weights_of_its_own() -> None:
    module = network()
    weights = Weights(module)
    copied = copy.deepcopy(module)
    weights.vector.zero_()
    assert all(weight.any() for weight in copied.parameters())


def test_backward_passes_fill_the_gradient_in_place() -> None:
    module, plain = network(), network()
    weights = Weights(module)
    for _ in range(2):
        weights.zero_gradient()
        backward(module)
    backward(plain)
    for found, expected in zip(weights.parts(weights.gradient), slopes(plain), strict=True):
        assert torch.equal(found, expected)
    backward(module)
    for found, expected in zip(weights.parts(weights.gradient), slopes(plain), strict=True):
        assert torch.equal(found, 2 * expected)


@pytest.mark.parametrize("largest", [0.0, 0.5, 1e9])
def test_the_gradient_is_clipped_as_torch_does(largest: float) -> None:
    module, plain = network(), network()
    weights = Weights(module)
    backward(module)
    backward(plain)
    norm = weights.clip(largest)
    expected = nn.utils.clip_grad_norm_(plain.parameters(), largest or float("inf"))
    torch.testing.assert_close(norm, expected, rtol=1e-12, atol=0)
    for found, other in zip(slopes(module), slopes(plain), strict=True):
        torch.testing.assert_close(found, other, rtol=1e-12, atol=0)


@pytest.mark.parametrize("solver", ["dopri5", "rk4"])
@pytest.mark.parametrize("adjoint", ["true", "false"])
def test_an_ode_fills_it_too(tiny: Callable[..., Config], solver: str, adjoint: str) -> None:
    config = tiny(f"solver={solver}", f"solver.adjoint={adjoint}", model="ffjord")
    run = build_run(config, RunFolder(Path("unused")))
    loss, _ = run.phases[0].objective(run.state.flow, run.splits.train.x[:8], run.state.generator)
    loss.backward()
    parts = run.weights.parts(run.weights.gradient)
    for found, slope in zip(parts, slopes(run.state.flow), strict=True):
        assert found.data_ptr() == slope.data_ptr()
    assert sum(part.any() for part in parts) > 1


def test_a_weight_may_be_a_single_number() -> None:
    module = nn.ParameterList([torch.tensor(0.5), torch.ones(2, 3)])
    weights = Weights(module)
    (module[0] * module[1]).sum().backward()
    assert [part.shape for part in weights.parts(weights.gradient)] == [(), (2, 3)]
    assert module[0].grad == 6
