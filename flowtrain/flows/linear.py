"""Linear transforms: fixed permutations, and learned maps in LU form (Glow, arXiv 1807.03039)."""

import torch
from torch import Tensor, nn

from flowtrain.flows.flow import Flow, Standardize, Transform
from flowtrain.flows.whiten import Whiten


class Permute(Transform):
    """Reorder the coordinates by a fixed permutation, kept as a buffer.

    Args:
        order: which coordinate of z each one of x is, (d,) integers.

    >>> x, log_det = Permute(torch.tensor([2, 0, 1]))(torch.tensor([[10.0, 20.0, 30.0]]))
    >>> x, log_det
    (tensor([[30., 10., 20.]]), tensor([0.]))
    """

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


class LULinear(Transform):
    """A learned linear map with a shift: z = P L U x + c, its determinant read off a diagonal.

    L is unit lower triangular, U upper triangular with diagonal exp(s) > 0, and P a fixed
    permutation (arXiv 1807.03039, eq. 10 and 11, the signs of the diagonal left to P). As there,
    the product maps data to base, the direction of training; samples solve the triangles. It
    starts as P alone, `Permute(order)`.

    Args:
        order: that of P, (d,) integers.

    >>> layer = LULinear(torch.tensor([1, 0]))
    >>> x, log_det = layer(torch.tensor([[1.0, 2.0]]))
    >>> x.tolist()  # a permutation before it has learned
    [[2.0, 1.0]]
    >>> layer.inverse(x)[0].tolist()
    [[1.0, 2.0]]
    """

    order: Tensor
    inverse_order: Tensor

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        self.register_buffer("order", order)
        self.register_buffer("inverse_order", order.argsort())
        # L below the diagonal, U above it, s on it.
        self.packed = nn.Parameter(torch.zeros(len(order), len(order)))
        self.shift = nn.Parameter(torch.zeros(len(order)))

    def triangles(self) -> tuple[Tensor, Tensor]:
        """Return L and U, each (d, d)."""
        scale = self.packed.diagonal().exp()
        return self.packed.tril(-1) + torch.ones_like(scale).diag(), self.packed.triu(
            1
        ) + scale.diag()

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = self.triangles()
        columns = (z - self.shift).index_select(-1, self.order).mT
        columns = torch.linalg.solve_triangular(lower, columns, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(upper, columns, upper=True).mT
        return x, -self.packed.trace().expand(len(z))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = self.triangles()
        weight = (lower @ upper).index_select(0, self.inverse_order)
        return nn.functional.linear(x, weight, self.shift), self.packed.trace().expand(len(x))


def affine(standardize: Standardize | Whiten, *, generator: torch.Generator) -> Flow:
    """Build x = A z + b: every Gaussian and nothing else, the baseline of all flows.

    Args:
        standardize: the fixed map to data coordinates; it has the dimension.
        generator: unused, as nothing is drawn; every builder of a flow takes it.

    >>> from flowtrain.flows import Standardize
    >>> standardize = Standardize(mean=torch.zeros(3), std=torch.ones(3))
    >>> flow = affine(standardize, generator=torch.Generator())
    >>> sum(weight.numel() for weight in flow.parameters())  # d² + d
    12
    """
    return Flow([LULinear(torch.arange(standardize.dim))], standardize)
