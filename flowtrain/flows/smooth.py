"""Smooth activations with their slopes: what a field needs to carry tangents."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

# A smooth activation: values a -> (activation, its slope). A kink would cost the ODE its order.
Activation = Callable[[Tensor], tuple[Tensor, Tensor]]


def tanh(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return tanh a and its slope, each of the shape of a.

    >>> tanh(torch.zeros(1))
    (tensor([0.]), tensor([1.]))
    """
    value = torch.tanh(a)
    return value, 1 - value * value


def softplus(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return log(1 + exp a) and its slope, each of the shape of a.

    >>> softplus(torch.zeros(1))
    (tensor([0.6931]), tensor([0.5000]))
    """
    return nn.functional.softplus(a), torch.sigmoid(a)


def silu(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return a / (1 + exp -a) and its slope, each of the shape of a.

    >>> silu(torch.zeros(1))
    (tensor([0.]), tensor([0.5000]))
    """
    gate = torch.sigmoid(a)
    value = a * gate
    # gate + value (1 - gate), in one operation
    return value, torch.lerp(value, value.new_ones(()), gate)


def gelu(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return a Φ(a), Φ the standard normal's distribution function, and its slope, each like a.

    >>> gelu(torch.zeros(1))
    (tensor([0.]), tensor([0.5000]))
    """
    mass = 0.5 * (1 + torch.erf(a / math.sqrt(2)))
    return a * mass, mass + a * torch.exp(-0.5 * a * a) / math.sqrt(2 * math.pi)


SMOOTH: dict[str, Activation] = {
    "tanh": tanh,
    "softplus": softplus,
    "silu": silu,
    "gelu": gelu,
}
