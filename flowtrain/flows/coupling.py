"""Coupling flows: one stack, of which RealNVP, Glow and neural spline flows are compositions."""

from typing import NotRequired, TypedDict, Unpack, cast

import torch
from torch import Tensor, nn

from flowtrain.flows.elementwise import Affine, Elementwise, RationalQuadratic
from flowtrain.flows.flow import Flow, Standardize, Transform
from flowtrain.flows.linear import LULinear, Permute
from flowtrain.flows.nets import scale_first_layer, zero_init
from flowtrain.flows.whiten import Whiten

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}


class Coupling(Transform):
    """Move the second half of the coordinates by elementwise maps that depend on the first.

    x_b = g(z_b; h(z_a, c)), x_a = z_a (arXiv 1410.8516, eq. 6), c a condition if there is one. The
    last layer of the conditioner h starts at zero: the identity.

    Args:
        dim: d; the first d // 2 coordinates are given, the others move.
        elementwise: what it does to a coordinate.
        hidden: width of the conditioner.
        depth: its hidden layers.
        activation: of the conditioner, a name of `ACTIVATIONS`.
        context_dim: numbers of a condition.

    >>> from flowtrain.flows.elementwise import Affine
    >>> coupling = Coupling(3, elementwise=Affine(2.0), hidden=8, depth=1, activation="tanh")
    >>> coupling.parameters_at(torch.zeros(5, 1)).shape
    torch.Size([5, 2, 2])
    >>> coupling(torch.tensor([[1.0, 2.0, 3.0]]))[0].tolist()  # it has learned nothing yet
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
        self.split = [dim // 2, dim - dim // 2]
        given, changed = self.split
        layers: list[nn.Module] = []
        for width in [given + context_dim] + [hidden] * (depth - 1):
            layers += [nn.Linear(width, hidden), ACTIVATIONS[activation]()]
        scale_first_layer(cast(nn.Linear, layers[0]))
        last = nn.Linear(hidden, changed * elementwise.size)
        zero_init(last)
        self.conditioner = nn.Sequential(*layers, last)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        given, changed = z.split(self.split, dim=-1)
        moved, log_slope = self.elementwise.forward(changed, self.parameters_at(given, context))
        return torch.cat([given, moved], dim=-1), log_slope.sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        given, changed = x.split(self.split, dim=-1)
        moved, log_slope = self.elementwise.inverse(changed, self.parameters_at(given, context))
        return torch.cat([given, moved], dim=-1), log_slope.sum(-1)

    def parameters_at(self, given: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the parameters of the elementwise maps, (n, dim - dim // 2, size)."""
        seen = given if context is None else torch.cat([given, context], -1)
        parameters: Tensor = self.conditioner(seen)
        return parameters.reshape(len(given), self.split[1], self.elementwise.size)


class Couplings(TypedDict):
    """How many couplings, and the conditioner of each, as `coupling_stack` has them.

    >>> Couplings(couplings=4, hidden=16, depth=2, activation="silu")["hidden"]
    16
    """

    couplings: int
    hidden: int
    depth: int
    activation: str
    context_dim: NotRequired[int]


class MixedCouplings(Couplings):
    """Couplings, and what mixes the coordinates between them.

    >>> MixedCouplings(couplings=4, hidden=16, depth=2, activation="silu", mixing="lu")["mixing"]
    'lu'
    """

    mixing: str


def coupling_stack(
    standardize: Standardize | Whiten,
    *,
    couplings: int,
    hidden: int,
    depth: int,
    activation: str,
    elementwise: Elementwise,
    mixing: str,
    generator: torch.Generator,
    context_dim: int = 0,
) -> Flow:
    """Build couplings, each followed by a mixing of the coordinates, in whitened coordinates.

    Args:
        standardize: the fixed map to data coordinates; it has the dimension.
        couplings: how many.
        hidden: width of a conditioner.
        depth: hidden layers of a conditioner.
        activation: of a conditioner, a name of `ACTIVATIONS`.
        elementwise: what a coupling does to a coordinate.
        mixing: "alternate" swaps the halves, "random" permutes, "lu" is a learned linear map.
        generator: draws the permutations.
        context_dim: numbers of a condition that every conditioner sees.

    Raises:
        ValueError: the data have fewer than two dimensions, which leave nothing to couple; or the
            mixing is unknown.

    >>> from flowtrain.flows import Standardize
    >>> from flowtrain.flows.elementwise import Affine
    >>> flow = coupling_stack(
    ...     Standardize(torch.zeros(2), torch.ones(2)), elementwise=Affine(2.0), mixing="lu",
    ...     couplings=2, hidden=8, depth=1, activation="tanh", generator=torch.Generator())
    >>> [type(transform).__name__ for transform in flow.transforms]
    ['Coupling', 'LULinear', 'Coupling', 'LULinear']
    """
    dim = standardize.dim
    if dim < 2:
        raise ValueError(
            f"a coupling flow needs data of at least 2 dimensions, this has {dim}; "
            "use model=maf_spline, model=affine or model=ffjord"
        )
    transforms: list[Transform] = []
    for _ in range(couplings):
        transforms.append(
            Coupling(
                dim,
                elementwise=elementwise,
                hidden=hidden,
                depth=depth,
                activation=activation,
                context_dim=context_dim,
            )
        )
        swapped = torch.arange(dim).roll(dim // 2)
        match mixing:
            case "alternate":
                transforms.append(Permute(swapped))
            case "random":
                transforms.append(Permute(_mixing_order(dim, generator)))
            case "lu":
                transforms.append(LULinear(swapped))
            case _:
                raise ValueError(f"mixing={mixing!r} is unknown; use alternate, random or lu")
    return Flow(transforms, standardize)


def realnvp(
    standardize: Standardize | Whiten,
    *,
    log_scale_bound: float,
    generator: torch.Generator,
    **stack: Unpack[MixedCouplings],
) -> Flow:
    """Build RealNVP, arXiv 1605.08803: affine couplings between fixed permutations.

    Args:
        standardize: the fixed map to data coordinates.
        log_scale_bound: a coupling scales a coordinate by at most exp(+-this).
        generator: draws the permutations.
        stack: couplings, hidden, depth, activation, mixing and context_dim, as `coupling_stack`
            has them.

    Raises:
        ValueError: the data have fewer than two dimensions.

    >>> from flowtrain.flows import Standardize
    >>> flow = realnvp(
    ...     Standardize(torch.zeros(2), torch.ones(2)), log_scale_bound=3.0, mixing="alternate",
    ...     couplings=4, hidden=16, depth=2, activation="silu", generator=torch.Generator())
    >>> flow.sample(5).shape, flow.log_prob(torch.zeros(5, 2)).shape
    (torch.Size([5, 2]), torch.Size([5]))
    """
    return coupling_stack(
        standardize, elementwise=Affine(log_scale_bound), generator=generator, **stack
    )


def glow(
    standardize: Standardize | Whiten,
    *,
    log_scale_bound: float,
    generator: torch.Generator,
    **stack: Unpack[Couplings],
) -> Flow:
    """Build Glow's stack, arXiv 1807.03039: affine couplings between learned linear maps.

    Arguments and errors are those of `realnvp`, but for `mixing`, which is "lu".

    >>> from flowtrain.flows import Standardize
    >>> flow = glow(
    ...     Standardize(torch.zeros(2), torch.ones(2)), log_scale_bound=3.0,
    ...     couplings=4, hidden=16, depth=2, activation="silu", generator=torch.Generator())
    >>> x = flow.sample(5)
    >>> torch.allclose(flow(flow.inverse(x)[0])[0], x, atol=1e-5)
    True
    """
    return realnvp(
        standardize, log_scale_bound=log_scale_bound, mixing="lu", generator=generator, **stack
    )


def spline(
    standardize: Standardize | Whiten,
    *,
    bins: int,
    bound: float,
    generator: torch.Generator,
    **stack: Unpack[MixedCouplings],
) -> Flow:
    """Build a neural spline flow, arXiv 1906.04032: rational-quadratic spline couplings.

    Args:
        standardize: the fixed map to data coordinates.
        bins: of each spline.
        bound: half the side of a spline's square, in whitened coordinates.
        generator: draws the permutations.
        stack: couplings, hidden, depth, activation, mixing and context_dim, as `coupling_stack`
            has them.

    Raises:
        ValueError: the data have fewer than two dimensions.

    >>> from flowtrain.flows import Standardize
    >>> flow = spline(
    ...     Standardize(torch.zeros(2), torch.ones(2)), bins=8, bound=3.0, mixing="lu",
    ...     couplings=4, hidden=16, depth=2, activation="silu", generator=torch.Generator())
    >>> flow.sample(5).shape, flow.log_prob(torch.zeros(5, 2)).shape
    (torch.Size([5, 2]), torch.Size([5]))
    """
    return coupling_stack(
        standardize, elementwise=RationalQuadratic(bins, bound), generator=generator, **stack
    )


def _mixing_order(dim: int, generator: torch.Generator) -> Tensor:
    half = dim // 2
    order = torch.arange(dim)
    while order[:half].max() < half:  # in 2D every other draw would leave the halves unmixed
        order = torch.randperm(dim, generator=generator)
    return order
