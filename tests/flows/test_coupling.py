"""Coupling stacks: what a coupling moves, and what mixes the halves."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from flowtrain.flows.coupling import Coupling, coupling_stack, glow, realnvp, spline
from flowtrain.flows.elementwise import Affine, RationalQuadratic
from flowtrain.flows.flow import Flow, Standardize
from flowtrain.flows.linear import LULinear, Permute


def build(dim: int, *, seed: int = 0, mixing: str = "random") -> Flow:
    return coupling_stack(
        Standardize(torch.ones(dim), torch.full((dim,), 2.0)),
        couplings=6,
        hidden=16,
        depth=2,
        activation="silu",
        elementwise=Affine(log_scale_bound=3.0),
        mixing=mixing,
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def coupling() -> Coupling:
    return Coupling(4, elementwise=Affine(3.0), hidden=16, depth=2, activation="silu")


def orders(flow: Flow) -> list[list[int]]:
    return [part.order.tolist() for part in flow.transforms if isinstance(part, Permute)]


def test_a_new_coupling_is_the_identity(coupling: Coupling) -> None:
    z = torch.randn(5, 4)
    x, log_det = coupling(z)
    assert torch.equal(x, z)
    assert torch.equal(log_det, torch.zeros(5))


def test_log_scale_is_bounded_for_weights_of_any_size(coupling: Coupling) -> None:
    with torch.no_grad():
        for parameter in coupling.parameters():
            parameter.copy_(1e3 * torch.randn(parameter.shape))
    z = torch.randn(100, 4)
    for x, log_det in (coupling(z), coupling.inverse(z)):
        assert x.isfinite().all()
        assert log_det.abs().max() <= 2 * 3.0  # two coordinates are scaled
    assert coupling(z)[1].abs().max() > 5.9


def test_one_coupling_can_stretch_by_its_bound(coupling: Coupling) -> None:
    with torch.no_grad():
        last = next(reversed(list(coupling.parameters())))
        last[1::2] = 100.0  # the bias of the raw log-scales
    z = torch.randn(5, 4)
    torch.testing.assert_close(coupling(z)[0][:, 2:], z[:, 2:] * math.exp(3.0))


def test_a_coupling_changes_the_second_half_alone(
    coupling: Coupling, randomize: Callable[[nn.Module, torch.Generator], None]
) -> None:
    randomize(coupling, torch.Generator().manual_seed(0))
    z = torch.randn(5, 4)
    x, _ = coupling(z)
    assert torch.equal(x[:, :2], z[:, :2])
    assert (x[:, 2:] != z[:, 2:]).all()


@pytest.mark.parametrize("dim", [2, 3, 5])
def test_random_permutations_always_mix_the_halves(dim: int) -> None:
    half = set(range(dim // 2))
    for seed in range(30):
        for order in orders(build(dim, seed=seed)):
            assert sorted(order) == list(range(dim))
            assert set(order[: dim // 2]) != half  # the identity would keep them


def test_random_permutations_come_from_the_generator() -> None:
    assert orders(build(5)) == orders(build(5))
    assert orders(build(5)) != orders(build(5, seed=1))


@pytest.mark.parametrize("dim", [2, 3, 4, 5])
def test_alternating_couplings_change_every_coordinate(dim: int) -> None:
    changed: set[int] = set()
    position = list(range(dim))  # which coordinate of z is at each place
    for order in orders(build(dim, mixing="alternate")):
        changed |= set(position[dim // 2 :])
        position = [position[place] for place in order]
    assert changed == set(range(dim))


def test_a_mixing_that_is_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^mixing='reverse' is unknown; use alternate"):
        build(2, mixing="reverse")


def test_learned_mixings_start_as_the_swap_of_the_halves() -> None:
    learned, swapped, z = build(3, mixing="lu"), build(3, mixing="alternate"), torch.randn(5, 3)
    assert sum(isinstance(part, LULinear) for part in learned.transforms) == 6
    torch.testing.assert_close(learned(z), swapped(z))


def test_permutations_are_in_the_state_dict() -> None:
    kept = [key for key in build(5).state_dict() if key.endswith(".order")]
    assert len(kept) == 6


def test_training_and_evaluation_agree_and_keep_no_statistics(
    randomize: Callable[[nn.Module, torch.Generator], None],
) -> None:
    flow, x = build(3).double(), torch.randn(50, 3).double()
    randomize(flow, torch.Generator().manual_seed(0))
    before = {name: buffer.clone() for name, buffer in flow.named_buffers()}
    trained = flow.train().log_prob(x)
    assert torch.equal(trained, flow.eval().log_prob(x))
    torch.testing.assert_close(trained[:1], flow.log_prob(x[:1]))  # no row depends on others
    assert all(torch.equal(buffer, before[name]) for name, buffer in flow.named_buffers())


def test_one_dimension_leaves_nothing_to_couple() -> None:
    with pytest.raises(ValueError, match=r"at least 2 dimensions, this has 1.*model=ffjord"):
        build(1)


@pytest.mark.parametrize("mixing", ["alternate", "random", "lu"])
def test_models_are_compositions_of_one_stack(mixing: str) -> None:
    whitening = Standardize(torch.ones(2), torch.ones(2))
    stack: dict[str, Any] = {"couplings": 3, "hidden": 4, "depth": 1, "activation": "tanh"}
    stack["generator"] = torch.Generator()
    composed = {
        "spline": spline(whitening, bins=5, bound=2.0, mixing=mixing, **stack),
        "realnvp": realnvp(whitening, log_scale_bound=1.5, mixing=mixing, **stack),
    }
    if mixing == "lu":
        composed["glow"] = glow(whitening, log_scale_bound=1.5, **stack)
    for name, flow in composed.items():
        couplings, mixings = list(flow.transforms)[::2], list(flow.transforms)[1::2]
        bends = RationalQuadratic(5, 2.0) if name == "spline" else Affine(1.5)
        assert [part.elementwise for part in couplings if isinstance(part, Coupling)] == [bends] * 3
        mixed = LULinear if mixing == "lu" else Permute
        assert [type(part) for part in mixings] == [mixed] * 3
