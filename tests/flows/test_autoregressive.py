"""Masked autoregressive layers: what depends on what, and which direction is one pass."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from flowtrain.flows.autoregressive import Autoregressive, Layers, Reversed, iaf, maf, maf_spline
from flowtrain.flows.elementwise import Affine
from flowtrain.flows.flow import Flow, Standardize
from flowtrain.flows.linear import Permute

Randomize = Callable[[nn.Module, torch.Generator], None]
STACK: Layers = {"layers": 3, "hidden": 16, "depth": 2, "activation": "silu", "mixing": "random"}


def whitening(dim: int) -> Standardize:
    return Standardize(torch.ones(dim), torch.full((dim,), 2.0))


def passes(flow: Flow) -> list[int]:
    """Return a list that counts the calls of the first layer's network."""
    count = [0]
    layer = next(part for part in flow.modules() if isinstance(part, Autoregressive))
    layer.conditioner.register_forward_pre_hook(lambda *_: count.__setitem__(0, count[0] + 1))
    return count


@pytest.mark.parametrize("dim", [2, 3, 7])
@pytest.mark.parametrize("depth", [1, 3])
def test_a_coordinate_depends_on_all_before_it_and_on_nothing_else(
    dim: int, depth: int, randomize: Randomize
) -> None:
    layer = Autoregressive(dim, elementwise=Affine(3.0), hidden=32, depth=depth, activation="tanh")
    randomize(layer, torch.Generator().manual_seed(0))
    x = torch.randn(1, dim, generator=torch.Generator().manual_seed(1))

    def parameters(x: Tensor) -> Tensor:
        return layer.parameters_at(x).sum((0, 2))

    jacobian = torch.autograd.functional.jacobian(parameters, x)[:, 0]
    assert torch.equal(jacobian != 0, torch.ones(dim, dim).tril(-1) > 0)


@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("depth", [1, 2])
def test_fewer_units_than_columns_still_see_the_late_ones(
    depth: int, context_dim: int, randomize: Randomize
) -> None:
    layer = Autoregressive(
        21,
        elementwise=Affine(3.0),
        hidden=6,
        depth=depth,
        activation="tanh",
        context_dim=context_dim,
    )
    randomize(layer, torch.Generator().manual_seed(0))
    x, context = torch.zeros(1, 21), torch.zeros(1, context_dim) if context_dim else None

    def parameters(x: Tensor) -> Tensor:
        return layer.parameters_at(x, context).sum((0, 2))

    sees = torch.autograd.functional.jacobian(parameters, x)[:, 0] != 0
    assert not (sees & torch.ones(21, 21).triu().bool()).any()
    assert torch.equal(sees[-1], torch.arange(21) < 20)  # the last depends on every other


def test_a_new_layer_is_the_identity() -> None:
    layer = Autoregressive(4, elementwise=Affine(3.0), hidden=16, depth=2, activation="silu")
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    for x, log_det in (layer(z), layer.inverse(z)):
        assert torch.equal(x, z)
        assert torch.equal(log_det, torch.zeros(5))


def test_maf_has_a_likelihood_and_iaf_a_sample_in_one_pass() -> None:
    generator = torch.Generator().manual_seed(0)
    for build, to_data, to_base in ((maf, 5, 1), (iaf, 1, 5)):
        flow = build(whitening(5), log_scale_bound=2.0, generator=generator, **STACK)
        count = passes(flow)
        flow.sample(3)
        assert count == [to_data]
        count[0] = 0
        flow.log_prob(torch.zeros(3, 5))
        assert count == [to_base]


def test_orders_come_from_the_generator() -> None:
    def orders(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        flow = maf(whitening(6), log_scale_bound=2.0, generator=generator, **STACK)
        return [part.order.tolist() for part in flow.transforms if isinstance(part, Permute)]

    assert orders(0) == orders(0) != orders(1)


def test_a_mixing_that_is_unknown_is_refused() -> None:
    unit = Standardize(torch.zeros(2), torch.ones(2))
    stack: Layers = {**STACK, "mixing": "alternate"}
    with pytest.raises(ValueError, match=r"^mixing='alternate' is unknown; use reverse"):
        maf(unit, log_scale_bound=3.0, generator=torch.Generator(), **stack)


def test_iaf_is_maf_from_its_other_end(randomize: Randomize) -> None:
    generator = torch.Generator().manual_seed(0)
    flow = iaf(whitening(3), log_scale_bound=2.0, generator=generator, **STACK).double()
    randomize(flow, generator)
    z = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    layers = [layer.transform for layer in flow.transforms if isinstance(layer, Reversed)]
    same = Flow(reversed(layers), Standardize(torch.zeros(3), torch.ones(3)).double())
    x, log_det = flow(z)
    white, _ = flow.standardize.inverse(x)
    torch.testing.assert_close(same.inverse(z)[0], white)
    torch.testing.assert_close(same.inverse(z)[1] + 3 * torch.tensor(2.0).log(), log_det)


def test_a_single_column_is_bent_by_splines(randomize: Randomize) -> None:
    generator = torch.Generator().manual_seed(0)
    flow = maf_spline(whitening(1), bins=6, bound=3.0, generator=generator, **STACK).double()
    randomize(flow, generator)
    grid = torch.linspace(-40, 40, 40_001, dtype=torch.float64)[:, None]
    density = flow.log_prob(grid).exp()
    assert abs(torch.trapezoid(density, grid[:, 0]).item() - 1) < 1e-4
    moved = flow(torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None])[0]
    assert moved.diff(dim=0).diff(dim=0).abs().max() > 0.1  # or it is a straight line
