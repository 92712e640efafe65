"""Vector fields f(z, t) that carry tangents: velocity and Jacobian-vector products in one pass.

`field(t, z, tangents) -> (velocity, J tangents)`: z is (n, d), tangents (k, n, d), and t one time,
(), or each row's own, (n,). A field of p(x | c) takes the conditions as a fourth argument,
(n, context_dim), which its layers see beside t. Nothing needs autograd, so a divergence costs no
double backward and works under no_grad.
"""

import copy
import math
from collections.abc import Callable
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from flowtrain.flows.nets import scale_first_layer, zero_init

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
    return value, gate + value * (1 - gate)


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
    >>> check_field(GivenField(field, torch.ones(1)), dim=2)
    """

    context: Tensor

    def __init__(self, field: nn.Module, context: Tensor) -> None:
        super().__init__()
        self.field = field
        self.register_buffer("context", context)

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


def check_field(field: nn.Module, dim: int, context_dim: int = 0) -> None:
    """Hold a field to the contract, at random weights, points, times and conditions.

    Args:
        field: the field; it is copied, not changed.
        dim: d.
        context_dim: numbers of a condition; 0 where there is none.

    Raises:
        ValueError: a wrong shape, a value that is not finite, or tangents that autograd denies.

    >>> check_field(TimeMLP(2, width=8, depth=1, activation="silu"), dim=2)
    >>> class Sum(torch.nn.Module):
    ...     def forward(self, t, z, tangents):
    ...         return z.sum(-1), tangents
    >>> check_field(Sum(), dim=2)
    Traceback (most recent call last):
        ...
    ValueError: the field's velocity must have shape (5, 2), got (5,)
    """
    generator = torch.Generator().manual_seed(0)
    field = copy.deepcopy(field)
    with torch.no_grad():
        for weight in field.parameters():  # last layers start at zero, and hide their tangents
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    n, k = 5, 3
    z, tangents = (torch.randn(*shape, generator=generator) for shape in ((n, dim), (k, n, dim)))
    given = (torch.randn(n, context_dim, generator=generator),) if context_dim else ()
    for t in (torch.tensor(0.3), torch.rand(n, generator=generator)):
        velocity, moved = field(t, z, tangents, *given)
        for name, value, shape in (
            ("velocity", velocity, (n, dim)),
            ("tangents", moved, (k, n, dim)),
        ):
            if value.shape != shape:
                raise ValueError(
                    f"the field's {name} must have shape {shape}, got {(*value.shape,)}"
                )
            if not value.isfinite().all():
                raise ValueError(f"the field's {name} must be finite")
        for tangent, found in zip(tangents, moved, strict=True):
            # Not torch.func's forward mode: its first use imports what warns of a deprecation.
            truth: Tensor = torch.autograd.functional.jvp(
                lambda z, t=t: field(t, z, z.new_empty(0, *z.shape), *given)[0], z, tangent
            )[1]
            if not torch.allclose(found, truth, rtol=1e-3, atol=1e-4):
                off = (found - truth).abs().max().item()
                raise ValueError(
                    f"the field's tangents must be J @ tangents; autograd differs by {off:.3g}"
                )
