"""Coupling flows: RealNVP (arXiv 1605.08803), a stack of affine couplings and permutations."""

from typing import cast

import torch
from torch import Tensor, nn

from flowtrain.errors import ConfigError
from flowtrain.flows.flow import Flow, Standardize, Transform, widen


class Permute(Transform):
    """Reorder the coordinates by a fixed permutation, kept as a buffer."""

    order: Tensor
    inverse_order: Tensor

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        self.register_buffer("order", order)
        self.register_buffer("inverse_order", order.argsort())

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z.index_select(-1, self.order), z.new_zeros(len(z))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.index_select(-1, self.inverse_order), x.new_zeros(len(x))


class AffineCoupling(Transform):
    """Scale and shift the second half of the coordinates by functions of the first.

    x_b = z_b * exp(s(z_a)) + m(z_a), x_a = z_a (arXiv 1605.08803, eq. 7 and 8). The log-scale is
    bounded smoothly and symmetrically, s = bound * tanh(raw / bound), so that exp(s) can neither
    overflow nor vanish. The last layer of the conditioner starts at zero: the identity.
    """

    def __init__(
        self, dim: int, *, hidden: int, depth: int, activation: type[nn.Module], bound: float
    ) -> None:
        super().__init__()
        self.split = [dim // 2, dim - dim // 2]
        self.bound = bound
        given, changed = self.split
        layers: list[nn.Module] = []
        for width in [given] + [hidden] * (depth - 1):
            layers += [nn.Linear(width, hidden), activation()]
        widen(cast(nn.Linear, layers[0]))
        last = nn.Linear(hidden, 2 * changed)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.conditioner = nn.Sequential(*layers, last)

    def parameters_of(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """Return the shift and the bounded log-scale, each (n, dim - dim // 2)."""
        shift, raw = self.conditioner(given).chunk(2, dim=-1)
        return shift, self.bound * torch.tanh(raw / self.bound)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        given, changed = z.split(self.split, dim=-1)
        shift, log_scale = self.parameters_of(given)
        x = torch.cat([given, changed * log_scale.exp() + shift], dim=-1)
        return x, log_scale.sum(-1)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        given, changed = x.split(self.split, dim=-1)
        shift, log_scale = self.parameters_of(given)
        z = torch.cat([given, (changed - shift) * (-log_scale).exp()], dim=-1)
        return z, -log_scale.sum(-1)


ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}


def realnvp(
    standardize: Standardize,
    *,
    couplings: int,
    hidden: int,
    depth: int,
    activation: str,
    log_scale_bound: float,
    permutation: str,
    generator: torch.Generator,
) -> Flow:
    """Build RealNVP: affine couplings, each followed by a permutation, in whitened coordinates.

    Raises:
        ConfigError: for data of fewer than two dimensions, which leave nothing to couple.
    """
    dim = len(standardize.mean)
    if dim < 2:
        raise ConfigError(
            f"model: a coupling flow needs data of at least 2 dimensions, this has {dim}; "
            "use model=ffjord"
        )
    transforms: list[Transform] = []
    for _ in range(couplings):
        coupling = AffineCoupling(
            dim,
            hidden=hidden,
            depth=depth,
            activation=ACTIVATIONS[activation],
            bound=log_scale_bound,
        )
        transforms += [coupling, Permute(_order(dim, permutation, generator))]
    return Flow([*transforms, standardize], dim=dim)


def _order(dim: int, permutation: str, generator: torch.Generator) -> Tensor:
    if permutation == "alternate":
        return torch.arange(dim).roll(dim // 2)
    half = dim // 2
    order = torch.arange(dim)
    while order[:half].max() < half:  # in 2D every other draw would leave the halves unmixed
        order = torch.randperm(dim, generator=generator)
    return order
