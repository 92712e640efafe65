"""Adam and AdamW on one vector of all weights."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flowtrain.training.weights import Weights

EPSILON = 1e-8  # beside the root of the second moment


class Adam:
    """Adam (arXiv 1412.6980, algorithm 1), its weight decay decoupled (arXiv 1711.05101).

    The arithmetic is that of `torch.optim.Adam` and `AdamW`, and so is the layout of what is kept.
    Those import torch's compiler, a second before the first step, and collect every weight anew
    in each: the update of RealNVP's 144 weights takes them ten times as long.

    Args:
        weights: what is trained.
        lr: the learning rate; it may be changed between steps.
        betas: decay rates of the two moments.
        weight_decay: per unit of learning rate.

    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> weights = Weights(layer)
    >>> adam, before = Adam(weights, lr=0.1, betas=[0.9, 0.999]), layer.weight.clone()
    >>> layer(torch.tensor([[3.0, -4.0]])).backward()
    >>> adam.step()  # the first one is the learning rate long, in every direction
    >>> layer.weight - before
    tensor([[-0.1000,  0.1000]], grad_fn=<SubBackward0>)
    """

    def __init__(
        self,
        weights: Weights,
        *,
        lr: float,
        betas: Sequence[float],
        weight_decay: float = 0.0,
    ) -> None:
        self.weights, self.lr, self.betas, self.weight_decay = weights, lr, betas, weight_decay
        self.steps = 0
        self.mean = torch.zeros_like(weights.vector)  # of the gradient
        self.square = torch.zeros_like(weights.vector)  # the mean of its square

    @torch.no_grad()
    def step(self) -> None:
        """Move the weights by their gradient."""
        (first, second), gradient = self.betas, self.weights.gradient
        self.steps += 1
        self.mean.lerp_(gradient, 1 - first)
        self.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        scale = self.square.sqrt().div_(math.sqrt(1 - second**self.steps)).add_(EPSILON)
        if self.weight_decay:
            self.weights.vector.mul_(1 - self.lr * self.weight_decay)
        self.weights.vector.addcdiv_(self.mean, scale, value=-self.lr / (1 - first**self.steps))

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept of each weight, by its position."""
        return by_weight(self.weights, self.steps, self._kept())

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over what was kept of each weight; the settings stay this one's.

        Raises:
            ValueError: it is not what `state_dict` returns for weights of these shapes.
        """
        self.steps = take_over(saved, self.state_dict())

    def _kept(self) -> dict[str, Tensor]:
        return {"exp_avg": self.mean, "exp_avg_sq": self.square}


def by_weight(weights: Weights, steps: int, vectors: dict[str, Tensor]) -> dict[str, Any]:
    """Return vectors laid out as the weights', by name, as an optimizer of torch's keeps them."""
    parts = {name: weights.parts(vector) for name, vector in vectors.items()}
    count = torch.tensor(float(steps))
    kept = [{"step": count} | {name: each[n] for name, each in parts.items()}
            for n in range(len(weights.each))]  # fmt: skip
    return {"state": dict(enumerate(kept))}


def take_over(saved: dict[str, Any], own: dict[str, Any]) -> int:
    """Copy what was kept of each weight into an optimizer's own; return after how many steps.

    Raises:
        ValueError: something else was kept, or of other weights.
    """
    kept = saved.get("state")
    if kept == {}:  # release 0.1's, before the first step
        return 0
    if not (isinstance(kept, dict) and kept.keys() == own["state"].keys()):
        raise ValueError("it is not of these weights")
    for position, values in own["state"].items():
        found = kept[position]
        if not (isinstance(found, dict) and found.keys() == values.keys()):
            raise ValueError(f"of weight {position} something else is kept")
        for name, value in values.items():
            other = found[name]
            tensor = isinstance(other, torch.Tensor) and other.is_floating_point()
            if not tensor or other.shape != value.shape:
                raise ValueError(f"{name} of weight {position} has another shape")
            value.copy_(other)
    steps = float(kept[0]["step"])
    if not (steps >= 0 and steps.is_integer()):
        raise ValueError(f"there can be no {steps:g} steps")
    return int(steps)
