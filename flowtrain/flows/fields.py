"""Vector fields f(z, t) that carry tangents: velocity and Jacobian-vector products in one pass.

`field(t, z, tangents) -> (velocity, J tangents)`: z is (n, d), tangents (k, n, d), and t one time,
(), or each row's own, (n,). A field of p(x | c) takes the conditions as a fourth argument,
(n, context_dim), which its layers see beside t. Nothing needs autograd, so a divergence costs no
double backward and works under no_grad.
"""

import copy
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from flowtrain.flows.nets import scale_first_layer, zero_init
from flowtrain.flows.smooth import SMOOTH


def _activate(name: str, h: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Apply an activation to a value, (n, m), and its tangents, (k, n, m)."""
    if not len(v):  # a slope that nobody asks for would cost three times the value
        value: Tensor = getattr(nn.functional, name)(h)
        return value, v
    value, slope = SMOOTH[name](h)
    return value, v * slope


def _affine(weight: Tensor, bias: Tensor, h: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Apply an affine layer to a value, (n, in), and its tangents, (k, n, in).

    Two matmuls beat one over the joined rows: nothing is copied in either direction.
    """
    return nn.functional.linear(h, weight, bias), nn.functional.linear(v, weight) if len(v) else v


def moment_of(t: Tensor, context: Tensor | None) -> Tensor:
    """Return what a layer sees beside h: t, (1,) or (n, 1); with a condition both, (n, 1 + c).

    >>> moment_of(torch.tensor(0.5), context=torch.zeros(5, 2)).shape
    torch.Size([5, 3])
    """
    time = t[..., None]
    return time if context is None else torch.cat([time.expand(len(context), 1), context], -1)


class GatedLinear(nn.Module):
    """A layer gated and shifted by t: (W h + b) * sigmoid(g t + c) + s t (arXiv 1810.01367).

    A condition stands beside t, as in PointFlow (arXiv 1906.12320).

    Args:
        inputs: width of h and its tangents.
        outputs: width of what it returns.
        context_dim: numbers of a condition.

    >>> layer = GatedLinear(inputs=2, outputs=3)
    >>> h, v = layer(torch.tensor([0.5]), torch.zeros(5, 2), torch.zeros(1, 5, 2))
    >>> h.shape, v.shape
    (torch.Size([5, 3]), torch.Size([1, 5, 3]))
    """

    def __init__(self, inputs: int, outputs: int, context_dim: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.gate = nn.Linear(1 + context_dim, outputs)
        self.shift = nn.Linear(1 + context_dim, outputs, bias=False)

    def forward(self, moment: Tensor, h: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Map a value, (n, in), and its tangents, (k, n, in), at a `moment_of` a field."""
        gate, shift = torch.sigmoid(self.gate(moment)), self.shift(moment)
        weight, bias = self.linear.weight, self.linear.bias
        if moment.dim() == 1:  # to scale a matrix is cheaper than to scale rows
            return _affine(gate[:, None] * weight, gate * bias + shift, h, v)
        h, v = _affine(weight, bias, h, v)
        return gate * h + shift, gate * v if len(v) else v


class ConcatSquash(nn.Module):
    """A network every layer of which is gated and shifted by t.

    Args:
        dim: d.
        width: units of a hidden layer.
        depth: hidden layers.
        activation: a name of `SMOOTH`.
        context_dim: numbers of a condition.

    >>> field = ConcatSquash(2, width=16, depth=2, activation="tanh")
    >>> velocity, tangents = field(torch.tensor(0.5), torch.ones(5, 2), torch.ones(1, 5, 2))
    >>> velocity.shape, tangents.shape
    (torch.Size([5, 2]), torch.Size([1, 5, 2]))
    """

    def __init__(
        self, dim: int, *, width: int, depth: int, activation: str, context_dim: int = 0
    ) -> None:
        super().__init__()
        self.activation = activation
        self.layers = _gated_layers([dim, *[width] * depth, dim], context_dim)
        scale_first_layer(cast(GatedLinear, self.layers[0]).linear)

    def forward(
        self, t: Tensor, z: Tensor, tangents: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return _through(self.layers, self.activation, moment_of(t, context), z, tangents)


class Fourier(nn.Module):
    """`ConcatSquash` of the position and of random waves of it, for data with fine structure.

    The layers see (z, sin W z, cos W z), the rows of W drawn once from N(0, scale^2 I)
    (arXiv 2006.10739, eq. 5). W is a buffer: it is saved, and not trained. The waves are of the
    position alone; high-frequency features of t would make the ODE stiff.

    Args:
        dim: d.
        width: units of a hidden layer.
        depth: hidden layers.
        activation: a name of `SMOOTH`.
        features: how many waves.
        scale: of W, in radians per whitened unit; larger resolves finer structure.
        generator: draws W.
        context_dim: numbers of a condition.

    >>> field = Fourier(2, width=16, depth=2, activation="silu", features=8, scale=3.0,
    ...     generator=torch.Generator().manual_seed(0))
    >>> velocity, tangents = field(torch.tensor(0.5), torch.ones(5, 2), torch.ones(1, 5, 2))
    >>> velocity.shape, tangents.shape
    (torch.Size([5, 2]), torch.Size([1, 5, 2]))
    """

    waves: Tensor

    def __init__(
        self,
        dim: int,
        *,
        width: int,
        depth: int,
        activation: str,
        features: int,
        scale: float,
        generator: torch.Generator,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.register_buffer("waves", scale * torch.randn(features, dim, generator=generator))
        self.layers = _gated_layers([dim + 2 * features, *[width] * depth, dim], context_dim)
        # The position is seen as `ConcatSquash` sees it, the waves beside it: it starts smooth.
        first = cast(GatedLinear, self.layers[0]).linear
        alone = nn.Linear(dim, width)
        scale_first_layer(alone)
        with torch.no_grad():
            first.weight[:, :dim] = alone.weight
            first.bias.copy_(alone.bias)

    def forward(
        self, t: Tensor, z: Tensor, tangents: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        angle = nn.functional.linear(z, self.waves)
        sine, cosine = angle.sin(), angle.cos()
        h, v = torch.cat([z, sine, cosine], -1), tangents
        if len(v):
            turning = nn.functional.linear(tangents, self.waves)
            v = torch.cat([tangents, cosine * turning, -sine * turning], -1)
        return _through(self.layers, self.activation, moment_of(t, context), h, v)


def _gated_layers(sizes: list[int], context_dim: int) -> nn.ModuleList:
    """Build gated layers between these widths; the last one starts at rest."""
    layers = nn.ModuleList(GatedLinear(a, b, context_dim) for a, b in pairwise(sizes))
    last = cast(GatedLinear, layers[-1])
    zero_init(last.linear, last.shift)
    return layers


def _through(
    layers: nn.ModuleList, activation: str, moment: Tensor, h: Tensor, v: Tensor
) -> tuple[Tensor, Tensor]:
    """Map a value, (n, in), and its tangents, (k, n, in), through gated layers."""
    for index, layer in enumerate(layers):
        if index:
            h, v = _activate(activation, h, v)
        h, v = layer(moment, h, v)
    return h, v


class GivenField(nn.Module):
    """A conditional field at one condition.

    Args:
        field: that takes conditions.
        context: the condition, (context_dim,).

    >>> field = TimeMLP(2, width=8, depth=1, activation="silu", context_dim=1)
    >>> given = GivenField(field, torch.ones(1))
    >>> given(torch.tensor(0.5), torch.ones(5, 2), torch.ones(1, 5, 2))[0].shape
    torch.Size([5, 2])
    """

    context: Tensor

    def __init__(self, field: nn.Module, context: Tensor) -> None:
        super().__init__()
        self.field = field
        self.register_buffer("context", context)

    def __deepcopy__(self, memo: dict[int, Any]) -> "GivenField":
        return GivenField(copy.deepcopy(self.field, memo), self.context.detach().clone())

    def forward(self, t: Tensor, z: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        moved: tuple[Tensor, Tensor] = self.field(t, z, tangents, self.context.expand(len(z), -1))
        return moved


class TimeMLP(nn.Module):
    """A plain network of z whose first layer is shifted by a small network's embedding of t.

    The embedding is computed once per evaluation. It is smooth in t by design: high-frequency
    features of t make the ODE stiff.

    Args:
        dim: d.
        width: units of a hidden layer.
        depth: hidden layers.
        activation: a name of `SMOOTH`.
        context_dim: numbers of a condition.

    >>> field = TimeMLP(2, width=16, depth=2, activation="silu")
    >>> times = torch.linspace(0, 1, 5)  # each row's own
    >>> velocity, tangents = field(times, torch.ones(5, 2), torch.ones(1, 5, 2))
    >>> velocity.shape, tangents.shape
    (torch.Size([5, 2]), torch.Size([1, 5, 2]))
    """

    def __init__(
        self, dim: int, *, width: int, depth: int, activation: str, context_dim: int = 0
    ) -> None:
        super().__init__()
        self.activation = activation
        sizes = [dim, *[width] * depth, dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.embedding = nn.Sequential(
            nn.Linear(1 + context_dim, width), nn.Tanh(), nn.Linear(width, sizes[1], bias=False)
        )
        scale_first_layer(cast(nn.Linear, self.layers[0]))
        zero_init(self.layers[-1])

    def forward(
        self, t: Tensor, z: Tensor, tangents: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        first, *rest = cast(list[nn.Linear], list(self.layers))
        h, v = _affine(first.weight, first.bias, z, tangents)
        h = h + self.embedding(moment_of(t, context))
        for layer in rest:
            h, v = _activate(self.activation, h, v)
            h, v = _affine(layer.weight, layer.bias, h, v)
        return h, v
