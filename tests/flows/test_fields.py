"""Vector fields: their tangents, their time, their contract."""

import copy
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jvp

from flowtrain.config.model import FIELDS
from flowtrain.config.section import imported
from flowtrain.flows.check import check_field
from flowtrain.flows.fields import Fourier
from flowtrain.flows.smooth import SMOOTH

KINDS = [pytest.param(*kind, id="-".join(kind)) for kind in product(FIELDS, SMOOTH)]


def new(field: str, dim: int, *, depth: int = 3, activation: str = "tanh") -> nn.Module:
    """Return a field of the package as it is before training."""
    more: dict[str, Any] = {}
    if field == "fourier":
        more = {"features": 5, "scale": 1.0, "generator": torch.Generator().manual_seed(2)}
    module: nn.Module = imported(FIELDS[field])(
        dim, width=16, depth=depth, activation=activation, **more
    )
    return module


@pytest.fixture
def make(randomize: Callable[[nn.Module, torch.Generator], None]) -> Callable[..., nn.Module]:
    def build(field: str, activation: str = "tanh", dim: int = 3) -> nn.Module:
        module = new(field, dim, activation=activation)
        randomize(module, torch.Generator().manual_seed(0))
        return module.double()

    return build


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(("field", "activation"), KINDS)
def test_tangents_are_jacobian_vector_products(
    field: str, activation: str, make: Callable[..., nn.Module]
) -> None:
    module, t, z, tangents = make(field, activation), draw()[()], draw(5, 3), draw(4, 5, 3)
    _, found = module(t, z, tangents)
    for tangent, pushed in zip(tangents, found, strict=True):
        _, expected = jvp(lambda z: module(t, z, z.new_empty(0, 5, 3))[0], z, tangent)
        torch.testing.assert_close(pushed, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("field", "activation"), KINDS)
def test_velocity_does_not_depend_on_the_tangents(
    field: str, activation: str, make: Callable[..., nn.Module]
) -> None:
    module, t, z = make(field, activation), draw()[()], draw(5, 3)
    alone, none = module(t, z, z.new_empty(0, 5, 3))
    assert none.shape == (0, 5, 3)
    torch.testing.assert_close(alone, module(t, z, draw(2, 5, 3))[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize("field", FIELDS)
def test_a_new_field_is_at_rest(field: str) -> None:
    velocity, pushed = new(field, 2, depth=2)(
        torch.tensor(0.3), draw(5, 2).float(), draw(2, 5, 2).float()
    )
    assert not velocity.any()
    assert not pushed.any()


@pytest.mark.parametrize("field", FIELDS)
def test_time_is_embedded_once_and_moves_the_field(
    field: str, make: Callable[..., nn.Module]
) -> None:
    module, seen = make(field), []
    for part in module.modules():
        if isinstance(part, nn.Linear) and part.in_features == 1:
            part.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    z, tangents = draw(50, 3), draw(2, 50, 3)
    early, late = (module(torch.tensor(t, dtype=z.dtype), z, tangents)[0] for t in (0.1, 0.9))
    assert set(seen) == {(1,)}
    assert (early - late).abs().max() > 0.01


@pytest.mark.parametrize("field", FIELDS)
def test_rows_do_not_depend_on_each_other(field: str, make: Callable[..., nn.Module]) -> None:
    module, t, z, tangents = make(field), draw()[()], draw(5, 3), draw(2, 5, 3)
    velocity, pushed = module(t, z, tangents)
    one, one_pushed = module(t, z[2:3], tangents[:, 2:3])
    torch.testing.assert_close(velocity[2:3], one)
    torch.testing.assert_close(pushed[:, 2:3], one_pushed)


@pytest.mark.parametrize(("field", "activation"), KINDS)
def test_every_row_may_have_its_own_time(
    field: str, activation: str, make: Callable[..., nn.Module]
) -> None:
    module, times, z, tangents = make(field, activation), draw(5), draw(5, 3), draw(2, 5, 3)
    velocity, pushed = module(times, z, tangents)
    for row, t in enumerate(times):
        alone, alone_pushed = module(t, z[row : row + 1], tangents[:, row : row + 1])
        torch.testing.assert_close(velocity[row], alone[0])
        torch.testing.assert_close(pushed[:, row], alone_pushed[:, 0])


def test_waves_come_from_the_generator_and_are_saved_but_not_trained() -> None:
    def build(seed: int) -> Fourier:
        generator = torch.Generator().manual_seed(seed)
        return Fourier(
            3, width=8, depth=1, activation="silu", features=4000, scale=2.0, generator=generator
        )

    waves = build(0).waves
    assert torch.equal(build(0).waves, waves)
    assert not torch.equal(build(1).waves, waves)
    assert waves.std().item() == pytest.approx(2.0, rel=0.03)
    assert "waves" in build(0).state_dict()
    assert "waves" not in dict(build(0).named_parameters())


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize(("field", "activation"), KINDS)
def test_the_fields_of_the_package_keep_the_contract(field: str, activation: str, dim: int) -> None:
    module = new(field, dim, activation=activation)
    before, state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    check_field(module, dim)
    assert all(torch.equal(weight, before[key]) for key, weight in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
