"""Coupling flows: one stack, of which RealNVP, Glow and neural spline flows are compositions."""

from typing import cast

import torch
from torch import Tensor, nn

from flowtrain.errors import ConfigError
from flowtrain.flows.elementwise import Elementwise
from flowtrain.flows.flow import Flow, Standardize, Transform, widen
from flowtrain.flows.linear import LULinear, Permute

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}


class Coupling(Transform):
    """Move the second half of the coordinates by elementwise maps that depend on the first.

    x_b = g(z_b; h(z_a)), x_a = z_a (arXiv 1410.8516, eq. 6). The last layer of the conditioner h
    starts at zero: the identity.
    """

    def __init__(
        self, dim: int, *, elementwise: Elementwise, hidden: int, depth: int, activation: str
    ) -> None:
        super().__init__()
        self.elementwise = elementwise
        self.split = [dim // 2, dim - dim // 2]
        given, changed = self.split
        layers: list[nn.Module] = []
        for width in [given] + [hidden] * (depth - 1):
            layers += [nn.Linear(width, hidden), ACTIVATIONS[activation]()]
        widen(cast(nn.Linear, layers[0]))
        last = nn.Linear(hidden, changed * elementwise.size)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.conditioner = nn.Sequential(*layers, last)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        given, changed = z.split(self.split, dim=-1)
        moved, log_slope = self.elementwise.forward(changed, self.parameters_at(given))
        return torch.cat([given, moved], dim=-1), log_slope.sum(-1)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        given, changed = x.split(self.split, dim=-1)
        moved, log_slope = self.elementwise.inverse(changed, self.parameters_at(given))
        return torch.cat([given, moved], dim=-1), log_slope.sum(-1)

    def parameters_at(self, given: Tensor) -> Tensor:
        """Return the parameters of the elementwise maps, (n, dim - dim // 2, size)."""
        parameters: Tensor = self.conditioner(given)
        return parameters.reshape(len(given), self.split[1], self.elementwise.size)


def coupling_stack(
    standardize: Standardize,
    *,
    couplings: int,
    hidden: int,
    depth: int,
    activation: str,
    elementwise: Elementwise,
    mixing: str,
    generator: torch.Generator,
) -> Flow:
    """Build couplings, each followed by a mixing of the coordinates, in whitened coordinates.

    Args:
        standardize: the last transform.
        couplings: how many.
        hidden: width of a conditioner.
        depth: hidden layers of a conditioner.
        activation: of a conditioner, a name of `ACTIVATIONS`.
        elementwise: what a coupling does to a coordinate.
        mixing: "alternate" swaps the halves, "random" permutes, "lu" is a learned linear map.
        generator: draws the permutations.

    Raises:
        ConfigError: for data of fewer than two dimensions, which leave nothing to couple.
    """
    dim = len(standardize.mean)
    if dim < 2:
        raise ConfigError(
            f"model: a coupling flow needs data of at least 2 dimensions, this has {dim}; "
            "use model=ffjord or model=affine"
        )
    transforms: list[Transform] = []
    for _ in range(couplings):
        transforms.append(
            Coupling(
                dim, elementwise=elementwise, hidden=hidden, depth=depth, activation=activation
            )
        )
        match mixing:
            case "alternate":
                transforms.append(Permute(torch.arange(dim).roll(dim // 2)))
            case "random":
                transforms.append(Permute(_mixing_order(dim, generator)))
            case "lu":
                transforms.append(LULinear(torch.arange(dim).roll(dim // 2)))
    return Flow([*transforms, standardize], dim=dim)


def _mixing_order(dim: int, generator: torch.Generator) -> Tensor:
    half = dim // 2
    order = torch.arange(dim)
    while order[:half].max() < half:  # in 2D every other draw would leave the halves unmixed
        order = torch.randperm(dim, generator=generator)
    return order
