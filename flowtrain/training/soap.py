"""SOAP, by pytorch_optimizer: Adam in the directions in which gradients have varied."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flowtrain.training.adam import take_over
from flowtrain.training.weights import Weights

BOTH = ("exp_avg", "exp_avg_sq")
SIDES = {"GG": "covariance", "Q": "basis"}  # of a matrix's rows and of its columns


class Soap:
    """Adam in the eigenbasis of Shampoo's preconditioner (arXiv 2409.11321, algorithm 3).

    Of every matrix the covariances of its gradient's rows and columns are kept; their eigenvectors
    turn the gradient before Adam's step, and the step back. Vectors move as by Adam. The first
    gradient chooses the bases and moves nothing.

    Args:
        weights: what is trained.
        lr: the learning rate; it may be changed between steps.
        betas: decay rates of Adam's two moments; the second is the covariances', too.
        basis_every: steps from one set of eigenvectors to the next.

    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> soap = Soap(Weights(layer), lr=0.1, betas=[0.9, 0.99])
    >>> before = layer.weight.detach().clone()
    >>> layer(torch.tensor([[3.0, -4.0]])).backward()
    >>> soap.step()
    >>> torch.equal(layer.weight, before)
    True
    >>> soap.step()
    >>> (layer.weight - before).norm() > 0.05
    tensor(True)
    """

    def __init__(
        self, weights: Weights, *, lr: float, betas: Sequence[float], basis_every: int = 10
    ) -> None:
        from pytorch_optimizer import SOAP  # an extra

        self.weights, self.lr = weights, lr
        first, second = betas
        self.soap = SOAP(
            weights.each,
            lr=lr,
            betas=(first, second),
            weight_decay=0.0,
            precondition_frequency=basis_every,
        )

    def step(self) -> None:
        """Move the weights by their gradient."""
        (group,) = self.soap.param_groups
        group["lr"] = self.lr
        self.soap.step()

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept of each weight, by its position; nothing before the first step."""
        (group,) = self.soap.param_groups
        kept = {}
        for position, weight in enumerate(self.weights.each):
            if state := self.soap.state.get(weight):
                kept[position] = {
                    "step": torch.tensor(float(group["step"])),
                    **{key: state[key] for key in BOTH},
                    **{
                        f"{name}_{side}": state[key][side]
                        for key, name in SIDES.items()
                        for side in _turned(weight)
                    },
                }
        return {"state": kept}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over what was kept of each weight; the settings stay this one's.

        Raises:
            ValueError: it is not what `state_dict` returns for weights of these shapes.
        """
        shapes = {n: _empty(weight.detach()) for n, weight in enumerate(self.weights.each)}
        steps = take_over(saved, {"state": shapes})
        if not steps:
            return
        (group,) = self.soap.param_groups
        group["step"] = steps
        for position, weight in enumerate(self.weights.each):
            # Laid out in memory as they were: products of other strides differ in their last bits.
            kept = {
                key: value.to(weight, copy=True) for key, value in saved["state"][position].items()
            }
            self.soap.state[weight] = {
                **{key: kept[key] for key in BOTH},
                **{key: _sides(kept, name, weight) for key, name in SIDES.items()},
                "precondition_frequency": group["precondition_frequency"],
                "shampoo_beta": group["betas"][1],
            }


def _empty(weight: Tensor) -> dict[str, Tensor]:
    """Return what is kept of a weight, not yet filled in."""
    kept = {"step": torch.zeros(()), **{key: torch.zeros_like(weight) for key in BOTH}}
    for name in SIDES.values():
        for side in _turned(weight):
            kept[f"{name}_{side}"] = weight.new_zeros(weight.shape[side], weight.shape[side])
    return kept


def _turned(weight: Tensor) -> range:
    """Return the axes of a weight whose directions are turned: all but a vector's."""
    return range(weight.dim() if weight.dim() > 1 else 0)


def _sides(kept: dict[str, Tensor], name: str, weight: Tensor) -> list[Any]:
    """Return the matrices of all axes as SOAP keeps them: a list, of an empty one for a vector."""
    return [kept[f"{name}_{side}"] for side in _turned(weight)] or [[]] * weight.dim()
