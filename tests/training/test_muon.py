"""Muon, held to torch's, and what it leaves to Adam."""

import copy

import pytest
import torch
from torch import nn

from flowtrain.training.adam import Adam
from flowtrain.training.muon import Muon, orthogonal
from flowtrain.training.weights import Weights

BETAS, LR, STEPS = (0.9, 0.999), 0.02, 10


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(1, 6), nn.Linear(6, 6), nn.Linear(6, 4)
        self.other = nn.Parameter(torch.randn(4, 4))  # a matrix, but no layer's


def fill(weights: Weights, generator: torch.Generator) -> None:
    """Set a gradient at random."""
    for part in weights.parts(weights.gradient):
        part.copy_(torch.randn(part.shape, generator=generator))


def test_the_steps_are_those_of_torch() -> None:
    network, theirs = Network(), Network()
    muon = Muon(Weights(network), lr=LR, betas=BETAS, momentum=0.95)
    matrices = [theirs.second.weight, theirs.last.weight]
    rest = [w for w in theirs.parameters() if all(w is not each for each in matrices)]
    others = (
        torch.optim.Muon(matrices, lr=LR, weight_decay=0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.Adam(rest, lr=LR, betas=BETAS),
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        before = copy.deepcopy(theirs)
        fill(muon.weights, generator)
        for weight, other in zip(network.parameters(), theirs.parameters(), strict=True):
            assert weight.grad is not None
            other.grad = weight.grad.clone()
        for step in (muon.step, *(other.step for other in others)):
            step()
        for name, weight in network.named_parameters():
            other, began = theirs.get_parameter(name), before.get_parameter(name)
            moved = (other - began).abs().max().item()
            assert moved > 1e-3
            torch.testing.assert_close(weight, other, rtol=0, atol=0.1 * moved)  # in bfloat16
        theirs.load_state_dict(network.state_dict())


def test_what_is_no_matrix_of_a_layer_moves_as_by_adam() -> None:
    network = Network()
    muon = Muon(Weights(network), lr=LR, betas=BETAS, momentum=0.95)
    others = [network.first.weight, network.second.bias, network.other]
    before = [other.detach().clone() for other in others]
    fill(muon.weights, torch.Generator().manual_seed(0))
    slopes = [other.grad.clone() for other in others if other.grad is not None]
    muon.step()
    for other, began, slope in zip(others, before, slopes, strict=True):
        torch.testing.assert_close(other, began - LR * slope / (slope.abs() + 1e-8))


@pytest.mark.parametrize("shape", [(3, 6, 48), (2, 48, 6), (4, 16, 16)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = orthogonal(matrices)
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    values = (u.mT @ found @ vh.mT).diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(u * values[:, None] @ vh, found, rtol=0, atol=1e-10)
    well = s > 0.02 * s[:, :1]
    assert ((values > 0.5) & (values < 1.3))[well].all()
    assert torch.equal(orthogonal(torch.zeros(2, 3, 3)), torch.zeros(2, 3, 3))


def test_what_adam_kept_is_refused() -> None:
    weights = Weights(Network())
    kept = Adam(weights, lr=LR, betas=BETAS).state_dict()
    with pytest.raises(ValueError, match="something else is kept"):
        Muon(weights, lr=LR, betas=BETAS, momentum=0.95).load_state_dict(kept)
