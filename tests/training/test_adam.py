"""Adam and AdamW, held to torch's."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flowtrain.training.adam import Adam
from flowtrain.training.weights import Weights

STEPS, BETAS, LR = 12, (0.8, 0.95), 0.02


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2, bias=False)).double()


def losses(module: nn.Module) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    batches = torch.randn(STEPS, 7, 3, generator=generator, dtype=torch.float64)
    return [module(batch).square().sum() for batch in batches]


def stepped(adam: Adam, module: nn.Module, steps: slice) -> None:
    """Take these of the steps, the rate falling."""
    for number in range(STEPS)[steps]:
        adam.weights.zero_gradient()
        losses(module)[number].backward()
        adam.lr = LR / (1 + number)
        adam.step()


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_steps_are_those_of_torch(decay: float) -> None:
    module, plain = network(), network()
    adam = Adam(Weights(module), lr=1.0, betas=BETAS, weight_decay=decay)
    stepped(adam, module, slice(None))
    kind = torch.optim.AdamW if decay else torch.optim.Adam
    theirs = kind(plain.parameters(), lr=LR, betas=BETAS, weight_decay=decay)
    for number in range(STEPS):
        theirs.zero_grad()
        losses(plain)[number].backward()
        theirs.param_groups[0]["lr"] = LR / (1 + number)
        theirs.step()
    for weight, other in zip(module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-12, atol=1e-14)
    kept = theirs.state_dict()["state"]
    torch.testing.assert_close(adam.state_dict()["state"], kept, rtol=1e-12, atol=1e-14,
                               check_dtype=False)  # fmt: skip
    other_adam = Adam(Weights(network()), lr=1.0, betas=BETAS)
    other_adam.load_state_dict(theirs.state_dict())  # as a checkpoint of release 0.1 holds it
    assert other_adam.steps == STEPS
    torch.testing.assert_close(other_adam.square, adam.square, rtol=1e-12, atol=1e-14)


def test_what_is_kept_goes_on_bit_for_bit() -> None:
    straight, halves = network(), network()
    stepped(Adam(Weights(straight), lr=1.0, betas=BETAS), straight, slice(None))
    first = Adam(Weights(halves), lr=1.0, betas=BETAS)
    stepped(first, halves, slice(5))
    second = Adam(first.weights, lr=1.0, betas=BETAS)
    second.load_state_dict(first.state_dict())
    stepped(second, halves, slice(5, None))
    for weight, other in zip(halves.parameters(), straight.parameters(), strict=True):
        assert torch.equal(weight, other)


@pytest.mark.parametrize(
    ("value", "refusal"),
    [
        (None, "not of these weights"),
        ({0: {}}, "not of these weights"),
        ({n: {} for n in range(3)}, "something else is kept"),
        ({n: dict.fromkeys(("step", "exp_avg", "exp_avg_sq"), 1.0) for n in range(3)}, "shape"),
    ],
)
def test_what_is_kept_of_other_weights_is_refused(value: Any, refusal: str) -> None:
    adam = Adam(Weights(network()), lr=1.0, betas=BETAS)
    with pytest.raises(ValueError, match=refusal):
        adam.load_state_dict({"state": value})


@pytest.mark.parametrize("steps", [-1.0, 0.5, float("nan"), float("inf")])
def test_a_count_of_steps_is_whole(steps: float) -> None:
    adam = Adam(Weights(network()), lr=1.0, betas=BETAS)
    saved = adam.state_dict()
    saved["state"][0]["step"] = torch.tensor(steps)
    with pytest.raises(ValueError, match="there can be no"):
        adam.load_state_dict(saved)
