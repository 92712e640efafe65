"""Fields of a user's own: what keeps the contract passes, and what breaks it is refused."""

import pytest
import torch
from torch import Tensor, nn

from flowtrain.flows.check import check_field


class Own(nn.Module):
    """A field of the user's own: f = tanh(W z + b) cos(t), right unless it is told otherwise."""

    def __init__(self, dim: int = 2) -> None:
        super().__init__()
        self.layer = nn.Linear(dim, dim)
        nn.init.zeros_(self.layer.weight)  # hides the tangents

    def forward(self, t: Tensor, z: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        speed = t.cos()[..., None]
        value = torch.tanh(self.layer(z))
        moved = (1 - value.square()) * nn.functional.linear(tangents, self.layer.weight)
        return self.told(value * speed, moved * speed)

    def told(self, velocity: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
        return velocity, moved


class Doubled(Own):
    def told(self, velocity: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
        return velocity, 2 * moved


class Still(Own):
    def told(self, velocity: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
        return velocity, 0 * moved


class Summed(Own):
    def told(self, velocity: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
        return velocity, moved.sum(0)


class Flat(Own):
    def told(self, velocity: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
        return velocity[:, 0], moved


class Infinite(Own):
    def told(self, velocity: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
        return velocity, moved / 0


class Unbounded(Own):
    def told(self, velocity: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
        return velocity * torch.nan, moved


class EarlyAlone(Own):
    """Right at one time for all rows, wrong where every row has its own."""

    def forward(self, t: Tensor, z: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        velocity, moved = super().forward(t, z, tangents)
        return velocity, moved if t.dim() == 0 else 2 * moved


def test_a_field_of_ones_own_that_keeps_the_contract_passes() -> None:
    check_field(Own(), 2)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (Doubled, r"tangents must be J @ tangents; autograd differs by \d"),
        (Still, r"tangents must be J @ tangents; autograd differs by \d"),
        (EarlyAlone, r"tangents must be J @ tangents; autograd differs by \d"),
        (Summed, r"tangents must have shape \(3, 5, 2\), got \(5, 2\)"),
        (Flat, r"velocity must have shape \(5, 2\), got \(5,\)"),
        (Infinite, "tangents must be finite"),
        (Unbounded, "velocity must be finite"),
    ],
)
def test_a_field_that_breaks_the_contract_is_refused(field: type[Own], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_field(field(), 2)
