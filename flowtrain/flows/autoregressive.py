"""Autoregressive flows: every coordinate moves by a map that depends on those before it."""

from typing import Any, NotRequired, TypedDict, Unpack, cast

import torch
from torch import Tensor, nn

from flowtrain.flows.coupling import ACTIVATIONS
from flowtrain.flows.elementwise import Affine, Elementwise, RationalQuadratic
from flowtrain.flows.flow import Flow, Standardize, Transform
from flowtrain.flows.linear import LULinear, Permute
from flowtrain.flows.nets import scale_first_layer, zero_init
from flowtrain.flows.whiten import Whiten


class MaskedLinear(nn.Linear):
    """A linear layer some of whose weights are fixed at zero (MADE, arXiv 1502.03509, eq. 10).

    Args:
        mask: 1 where an output may depend on an input, else 0, (outputs, inputs).

    >>> layer = MaskedLinear(torch.tensor([[1.0, 0.0]]))
    >>> torch.equal(layer(torch.tensor([[1.0, 2.0]])), layer(torch.tensor([[1.0, 9.0]])))
    True
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        outputs, inputs = mask.shape
        super().__init__(inputs, outputs)
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.mask * self.weight, self.bias)


class Constant(nn.Module):
    """The conditioner of one coordinate alone: it has nothing to depend on.

    Args:
        outputs: how many numbers, the same for every row; zeros at first.

    >>> Constant(3)(torch.ones(5, 1)).shape
    torch.Size([5, 3])
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.bias.expand(len(x), -1)


class Autoregressive(Transform):
    """Move coordinate i by an elementwise map that depends on coordinates 1 to i - 1 of the data.

    x_i = g(z_i; h_i(x_1 .. x_{i-1}, c)) (MAF, arXiv 1705.07057, eq. 2 and 3), c a condition if
    there is one. `inverse`, the direction of training, is one pass of the masked network h;
    `forward` takes d of them. The last layer of h starts at zero: the identity.

    Args:
        dim: d, at least 1.
        elementwise: what it does to a coordinate.
        hidden: width of the conditioner h.
        depth: its hidden layers.
        activation: of the conditioner, a name of `ACTIVATIONS`.
        context_dim: numbers of a condition.

    >>> from flowtrain.flows.elementwise import Affine
    >>> layer = Autoregressive(3, elementwise=Affine(2.0), hidden=8, depth=1, activation="tanh")
    >>> layer.parameters_at(torch.zeros(5, 3)).shape
    torch.Size([5, 3, 2])
    >>> layer(torch.tensor([[1.0, 2.0, 3.0]]))[0].tolist()  # it has learned nothing yet
    [[1.0, 2.0, 3.0]]
    """

    def __init__(
        self,
        dim: int,
        *,
        elementwise: Elementwise,
        hidden: int,
        depth: int,
        activation: str,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        self.context_dim = context_dim
        self.elementwise = elementwise
        self.conditioner: nn.Module
        if dim == 1 and not context_dim:
            self.conditioner = Constant(elementwise.size)
            return
        # A unit of degree k depends on the first k coordinates; output i on units of degree < i.
        # A condition is of degree 0, as are the units that depend on it alone.
        lowest = 0 if context_dim else 1
        degrees = torch.cat([torch.arange(1, dim + 1), torch.zeros(context_dim, dtype=torch.int64)])
        layers: list[nn.Module] = []
        if hidden < dim - lowest:  # too few for every degree: some of all, the last among them
            above = torch.linspace(lowest, dim - 1, hidden).long()
        else:
            above = torch.arange(hidden) % (dim - lowest) + lowest
        for _ in range(depth):
            layers.append(MaskedLinear((above[:, None] >= degrees).float()))
            layers.append(ACTIVATIONS[activation]())
            degrees = above
        scale_first_layer(cast(nn.Linear, layers[0]))
        outputs = torch.arange(1, dim + 1).repeat_interleave(elementwise.size)
        last = MaskedLinear((outputs[:, None] > degrees).float())
        zero_init(last)
        self.conditioner = nn.Sequential(*layers, last)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = log_slope = torch.zeros_like(z)
        for _ in range(z.shape[-1]):  # each pass settles one more coordinate
            x, log_slope = self.elementwise.forward(z, self.parameters_at(x, context))
        return x, log_slope.sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_slope = self.elementwise.inverse(x, self.parameters_at(x, context))
        return z, log_slope.sum(-1)

    def parameters_at(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the parameters of the elementwise maps, (n, d, size)."""
        seen = x if context is None else torch.cat([x, context], -1)
        parameters: Tensor = self.conditioner(seen)
        return parameters.reshape(*x.shape, self.elementwise.size)


class Reversed(Transform):
    """Another transform read from its other end: its inverse maps base to data.

    >>> from flowtrain.flows.linear import Permute
    >>> Reversed(Permute(torch.tensor([1, 2, 0])))(torch.tensor([[10.0, 20.0, 30.0]]))[0].tolist()
    [[30.0, 10.0, 20.0]]
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.context_dim = transform.context_dim
        self.transform: Any = transform

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        condition = () if context is None else (context,)
        moved: tuple[Tensor, Tensor] = self.transform.inverse(z, *condition)
        return moved

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        condition = () if context is None else (context,)
        moved: tuple[Tensor, Tensor] = self.transform.forward(x, *condition)
        return moved


class Layers(TypedDict):
    """How many layers, their conditioners and orders, as `autoregressive_stack` has them.

    >>> Layers(layers=4, hidden=16, depth=2, activation="silu", mixing="reverse")["mixing"]
    'reverse'
    """

    layers: int
    hidden: int
    depth: int
    activation: str
    mixing: str
    context_dim: NotRequired[int]


def autoregressive_stack(
    standardize: Standardize | Whiten,
    *,
    layers: int,
    hidden: int,
    depth: int,
    activation: str,
    elementwise: Elementwise,
    mixing: str,
    generator: torch.Generator,
    context_dim: int = 0,
) -> list[Transform]:
    """Build autoregressive layers, each followed by another order of the coordinates.

    Args:
        standardize: the fixed map to data coordinates; it has the dimension.
        layers: how many.
        hidden: width of a conditioner.
        depth: hidden layers of a conditioner.
        activation: of a conditioner, a name of `ACTIVATIONS`.
        elementwise: what a layer does to a coordinate.
        mixing: "reverse" turns the order round, "random" permutes, "lu" is a learned linear map.
        generator: draws the permutations.
        context_dim: numbers of a condition that every conditioner sees.

    Raises:
        ValueError: the mixing is unknown.

    >>> from flowtrain.flows import Standardize
    >>> from flowtrain.flows.elementwise import Affine
    >>> transforms = autoregressive_stack(
    ...     Standardize(torch.zeros(3), torch.ones(3)), elementwise=Affine(2.0), mixing="reverse",
    ...     layers=2, hidden=8, depth=1, activation="tanh", generator=torch.Generator())
    >>> [type(transform).__name__ for transform in transforms]
    ['Autoregressive', 'Permute', 'Autoregressive', 'Permute']
    """
    dim = standardize.dim
    backwards = torch.arange(dim).flip(0)
    transforms: list[Transform] = []
    for _ in range(layers):
        transforms.append(
            Autoregressive(
                dim,
                elementwise=elementwise,
                hidden=hidden,
                depth=depth,
                activation=activation,
                context_dim=context_dim,
            )
        )
        match mixing:
            case "reverse":
                transforms.append(Permute(backwards))
            case "random":
                transforms.append(Permute(torch.randperm(dim, generator=generator)))
            case "lu":
                transforms.append(LULinear(backwards))
            case _:
                raise ValueError(f"mixing={mixing!r} is unknown; use reverse, random or lu")
    return transforms


def maf(
    standardize: Standardize | Whiten,
    *,
    log_scale_bound: float,
    generator: torch.Generator,
    **stack: Unpack[Layers],
) -> Flow:
    """Build a masked autoregressive flow, arXiv 1705.07057: one pass to a likelihood, d to sample.

    Args:
        standardize: the fixed map to data coordinates.
        log_scale_bound: a layer scales a coordinate by at most exp(+-this).
        generator: draws the permutations.
        stack: layers, hidden, depth, activation, mixing and context_dim, as
            `autoregressive_stack` has them.

    >>> from flowtrain.flows import Standardize
    >>> flow = maf(
    ...     Standardize(torch.zeros(2), torch.ones(2)), log_scale_bound=3.0, mixing="reverse",
    ...     layers=4, hidden=16, depth=2, activation="silu", generator=torch.Generator())
    >>> flow.sample(5).shape, flow.log_prob(torch.zeros(5, 2)).shape
    (torch.Size([5, 2]), torch.Size([5]))
    """
    elementwise = Affine(log_scale_bound)
    return Flow(
        autoregressive_stack(standardize, elementwise=elementwise, generator=generator, **stack),
        standardize,
    )


def maf_spline(
    standardize: Standardize | Whiten,
    *,
    bins: int,
    bound: float,
    generator: torch.Generator,
    **stack: Unpack[Layers],
) -> Flow:
    """Build a masked autoregressive flow of splines (RQ-NSF (AR) of arXiv 1906.04032).

    Args:
        standardize: the fixed map to data coordinates.
        bins: of each spline.
        bound: half the side of a spline's square, in whitened coordinates.
        generator: draws the permutations.
        stack: layers, hidden, depth, activation, mixing and context_dim, as
            `autoregressive_stack` has them.

    >>> from flowtrain.flows import Standardize
    >>> flow = maf_spline(  # of a single column: one spline after another
    ...     Standardize(torch.zeros(1), torch.ones(1)), bins=8, bound=3.0, mixing="lu",
    ...     layers=2, hidden=16, depth=2, activation="silu", generator=torch.Generator())
    >>> flow.sample(5).shape, flow.log_prob(torch.zeros(5, 1)).shape
    (torch.Size([5, 1]), torch.Size([5]))
    """
    elementwise = RationalQuadratic(bins, bound)
    return Flow(
        autoregressive_stack(standardize, elementwise=elementwise, generator=generator, **stack),
        standardize,
    )


def iaf(
    standardize: Standardize | Whiten,
    *,
    log_scale_bound: float,
    generator: torch.Generator,
    **stack: Unpack[Layers],
) -> Flow:
    """Build an inverse autoregressive flow, arXiv 1606.04934: one pass a sample, d a likelihood.

    x_i = (z_i - m_i(z_1 .. z_{i-1})) exp(-s_i(z_1 .. z_{i-1})): MAF's layers from their other end
    (arXiv 1705.07057, section 3.3). Arguments are those of `maf`.

    >>> from flowtrain.flows import Standardize
    >>> flow = iaf(
    ...     Standardize(torch.zeros(2), torch.ones(2)), log_scale_bound=3.0, mixing="reverse",
    ...     layers=4, hidden=16, depth=2, activation="silu", generator=torch.Generator())
    >>> flow.sample(5).shape, flow.log_prob(torch.zeros(5, 2)).shape
    (torch.Size([5, 2]), torch.Size([5]))
    """
    elementwise = Affine(log_scale_bound)
    layers = autoregressive_stack(
        standardize, elementwise=elementwise, generator=generator, **stack
    )
    return Flow([Reversed(layer) for layer in reversed(layers)], standardize)
