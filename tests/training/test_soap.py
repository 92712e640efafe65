"""SOAP: the library's steps on our weights, what is kept between them, and what is refused."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from flowtrain.config import optimizer as section
from flowtrain.errors import ConfigError
from flowtrain.training.adam import Adam
from flowtrain.training.weights import Weights

BETAS, LR = (0.9, 0.95), 0.01


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 4)
        self.other = nn.Parameter(torch.tensor(0.5))  # the tail of a Student base


@pytest.fixture
def soap() -> Callable[..., Any]:
    pytest.importorskip("pytorch_optimizer")
    from flowtrain.training.soap import Soap

    def make(weights: Weights, **changes: Any) -> Soap:
        settings: dict[str, Any] = {"lr": LR, "betas": BETAS, "basis_every": 3} | changes
        return Soap(weights, **settings)

    return make


def fill(weights: Weights, seed: int) -> None:
    """Set a gradient at random."""
    weights.gradient.copy_(
        torch.randn(weights.gradient.shape, generator=torch.Generator().manual_seed(seed))
    )


def test_a_quadratic_with_turned_axes_is_minimised(soap: Callable[..., Any]) -> None:
    target = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    skew = torch.randn(6, 6, generator=torch.Generator().manual_seed(2))
    layer = nn.Linear(6, 4)
    optimizer = soap(Weights(layer), lr=0.05)
    losses = []
    for _ in range(200):
        optimizer.weights.zero_gradient()
        loss = ((layer.weight - target) @ skew).square().sum() + layer.bias.square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == losses[1]  # the first gradient chooses the bases
    assert losses[-1] < 1e-2 * losses[0]


def test_vectors_move_as_by_adam(soap: Callable[..., Any]) -> None:
    ours, theirs = Weights(Network()), Weights(Network())
    optimizer, adam = soap(ours), Adam(theirs, lr=LR, betas=BETAS)
    fill(ours, 0)
    optimizer.step()
    for seed in range(5):
        fill(ours, seed)
        fill(theirs, seed)
        optimizer.step()
        adam.step()
    for name in ("first.bias", "last.bias", "other"):
        ours_now, theirs_now = (w.module.get_parameter(name) for w in (ours, theirs))
        torch.testing.assert_close(ours_now, theirs_now, rtol=1e-4, atol=1e-5)


def test_what_is_kept_goes_on_to_the_same_bits(soap: Callable[..., Any]) -> None:
    straight, parted = (soap(Weights(Network())) for _ in range(2))
    for seed in range(4):
        for each in (straight, parted):
            fill(each.weights, seed)
            each.step()
    resumed = soap(Weights(copy.deepcopy(parted.weights.module)), lr=0.5, basis_every=3)
    resumed.load_state_dict(copy.deepcopy(parted.state_dict()))
    resumed.lr = LR
    for seed in range(4, 9):
        for each in (straight, resumed):
            fill(each.weights, seed)
            each.step()
    for one, other in zip(straight.weights.each, resumed.weights.each, strict=True):
        assert torch.equal(one, other)


def test_nothing_is_kept_before_the_first_step(soap: Callable[..., Any]) -> None:
    optimizer = soap(Weights(Network()))
    assert optimizer.state_dict() == {"state": {}}
    optimizer.load_state_dict({"state": {}})


def test_what_another_optimizer_kept_is_refused(soap: Callable[..., Any]) -> None:
    weights = Weights(Network())
    with pytest.raises(ValueError, match="something else is kept"):
        soap(weights).load_state_dict(Adam(weights, lr=LR, betas=BETAS).state_dict())
    other = soap(Weights(nn.Linear(2, 2)))
    fill(other.weights, 0)
    other.step()
    with pytest.raises(ValueError, match="not of these weights"):
        soap(weights).load_state_dict(other.state_dict())


def test_it_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowtrain.config.section.find_spec", lambda _: None)
    chosen = section.Soap(name="soap", lr=LR, betas=[*BETAS], basis_every=10)
    with pytest.raises(ConfigError, match=r"pip install 'flowtrain\[optim\]'"):
        chosen.build(Weights(Network()))
