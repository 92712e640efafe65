"""Vector fields f(z, t) that carry tangents: velocity and Jacobian-vector products in one pass.

`field(t, z, tangents) -> (velocity, J tangents)`: z is (n, d), tangents (k, n, d), and t one time,
(), or each row's own, (n,). Nothing needs autograd, so a divergence costs no double backward and
works under no_grad.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from flowtrain.flows.flow import widen

# A smooth activation: values a -> (activation, its slope). A kink would cost the ODE its order.
Activation = Callable[[Tensor], tuple[Tensor, Tensor]]


def tanh(a: Tensor) -> tuple[Tensor, Tensor]:
    value = torch.tanh(a)
    return value, 1 - value * value


def softplus(a: Tensor) -> tuple[Tensor, Tensor]:
    return nn.functional.softplus(a), torch.sigmoid(a)


def silu(a: Tensor) -> tuple[Tensor, Tensor]:
    gate = torch.sigmoid(a)
    value = a * gate
    return value, gate + value * (1 - gate)


def gelu(a: Tensor) -> tuple[Tensor, Tensor]:
    mass = 0.5 * (1 + torch.erf(a / math.sqrt(2)))
    return a * mass, mass + a * torch.exp(-0.5 * a * a) / math.sqrt(2 * math.pi)


ACTIVATIONS: dict[str, Activation] = {
    "tanh": tanh,
    "softplus": softplus,
    "silu": silu,
    "gelu": gelu,
}


def _activate(name: str, h: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Apply an activation to a value, (n, m), and its tangents, (k, n, m)."""
    if not len(v):  # a slope that nobody asks for would cost three times the value
        value: Tensor = getattr(nn.functional, name)(h)
        return value, v
    value, slope = ACTIVATIONS[name](h)
    return value, v * slope


def _affine(weight: Tensor, bias: Tensor, h: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Apply an affine layer to a value, (n, in), and its tangents, (k, n, in).

    Two matmuls beat one over the joined rows: nothing is copied in either direction.
    """
    return nn.functional.linear(h, weight, bias), nn.functional.linear(v, weight) if len(v) else v


class GatedLinear(nn.Module):
    """A layer gated and shifted by t: (W h + b) * sigmoid(g t + c) + s t (arXiv 1810.01367)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.gate = nn.Linear(1, outputs)
        self.shift = nn.Linear(1, outputs, bias=False)

    def forward(self, t: Tensor, h: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Map a value, (n, in), and its tangents, (k, n, in)."""
        time = t[..., None]
        gate, shift = torch.sigmoid(self.gate(time)), self.shift(time)
        weight, bias = self.linear.weight, self.linear.bias
        if t.dim() == 0:  # to scale a matrix is cheaper than to scale rows
            return _affine(gate[:, None] * weight, gate * bias + shift, h, v)
        h, v = _affine(weight, bias, h, v)
        return gate * h + shift, gate * v if len(v) else v


class ConcatSquash(nn.Module):
    """A network every layer of which is gated and shifted by t."""

    def __init__(self, dim: int, *, width: int, depth: int, activation: str) -> None:
        super().__init__()
        self.activation = activation
        sizes = [dim, *[width] * depth, dim]
        self.layers = nn.ModuleList(GatedLinear(a, b) for a, b in pairwise(sizes))
        widen(cast(GatedLinear, self.layers[0]).linear)
        _rest(cast(GatedLinear, self.layers[-1]).linear, cast(GatedLinear, self.layers[-1]).shift)

    def forward(self, t: Tensor, z: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        h, v = z, tangents
        for index, layer in enumerate(self.layers):
            if index:
                h, v = _activate(self.activation, h, v)
            h, v = layer(t, h, v)
        return h, v


class TimeMLP(nn.Module):
    """A plain network of z whose first layer is shifted by a small network's embedding of t.

    The embedding is computed once per evaluation. It is smooth in t by design: high-frequency
    features of t make the ODE stiff.
    """

    def __init__(self, dim: int, *, width: int, depth: int, activation: str) -> None:
        super().__init__()
        self.activation = activation
        sizes = [dim, *[width] * depth, dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.embedding = nn.Sequential(
            nn.Linear(1, width), nn.Tanh(), nn.Linear(width, sizes[1], bias=False)
        )
        widen(cast(nn.Linear, self.layers[0]))
        _rest(self.layers[-1])

    def forward(self, t: Tensor, z: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        first, *rest = cast(list[nn.Linear], list(self.layers))
        h, v = _affine(first.weight, first.bias, z, tangents)
        h = h + self.embedding(t[..., None])
        for layer in rest:
            h, v = _activate(self.activation, h, v)
            h, v = _affine(layer.weight, layer.bias, h, v)
        return h, v


def _rest(*layers: nn.Module) -> None:
    """Start a field at rest: its last layer is zero, the flow the identity."""
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)


FIELDS: dict[str, Callable[..., nn.Module]] = {"concatsquash": ConcatSquash, "time_mlp": TimeMLP}
