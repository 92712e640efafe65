"""Linear transforms: fixed permutations, and learned maps in LU form (Glow, arXiv 1807.03039)."""

import torch
from torch import Tensor, nn

from flowtrain.flows.flow import Flow, Standardize, Transform
from flowtrain.flows.nets import zero_init
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
        """Return L without its diagonal of ones, and U, each (d, d)."""
        return self.packed.tril(-1), self.packed.triu(1) + self.packed.diagonal().exp().diag()

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = self.triangles()
        columns = (z - self.shift).index_select(-1, self.order).mT
        columns = torch.linalg.solve_triangular(lower, columns, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(upper, columns, upper=True).mT
        return x, -self.packed.trace().expand(len(z))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = self.triangles()
        weight = torch.addmm(upper, lower, upper).index_select(0, self.inverse_order)
        return nn.functional.linear(x, weight, self.shift), self.packed.trace().expand(len(x))


class ConditionalLinear(Transform):
    """The linear map z = L U x + c of `LULinear`, each of its numbers linear in a condition.

    So p(x | c) is a Gaussian of its own for every class of a one-hot condition; of a number its
    mean moves and its shape changes. It starts as the identity.

    Args:
        dim: d.
        context_dim: numbers of the condition.

    >>> layer = ConditionalLinear(dim=2, context_dim=1)
    >>> _ = torch.nn.init.ones_(layer.shift.bias)
    >>> layer.inverse(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 1))[0].tolist()
    [[2.0, 3.0]]
    """

    def __init__(self, dim: int, context_dim: int) -> None:
        super().__init__()
        self.context_dim = context_dim
        # L below the diagonal, U above it, its logarithm on it.
        self.packed = nn.Linear(context_dim, dim * dim)
        self.shift = nn.Linear(context_dim, dim)
        zero_init(self.packed, self.shift)

    def triangles(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return L and U, each (n, d, d), and log|det dz/dx|, (n,)."""
        packed = self.packed(context).unflatten(-1, (self.shift.out_features, -1))
        diagonal = packed.diagonal(dim1=-2, dim2=-1)
        lower = packed.tril(-1) + torch.eye(packed.shape[-1]).to(packed)
        return lower, packed.triu(1) + diagonal.exp().diag_embed(), diagonal.sum(-1)

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        lower, upper, log_det = self.triangles(context)
        columns = (z - self.shift(context))[..., None]
        columns = torch.linalg.solve_triangular(lower, columns, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, columns, upper=True)[..., 0], -log_det

    def inverse(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        lower, upper, log_det = self.triangles(context)
        return (lower @ upper @ x[..., None])[..., 0] + self.shift(context), log_det


def affine(
    standardize: Standardize | Whiten, *, generator: torch.Generator, context_dim: int = 0
) -> Flow:
    """Build x = A z + b: every Gaussian and nothing else, the baseline of all flows.

    Args:
        standardize: the fixed map to data coordinates; it has the dimension.
        generator: unused, as nothing is drawn; every builder of a flow takes it.
        context_dim: numbers of a condition that A and b follow.

    >>> from flowtrain.flows import Standardize
    >>> standardize = Standardize(mean=torch.zeros(3), std=torch.ones(3))
    >>> flow = affine(standardize, generator=torch.Generator())
    >>> sum(weight.numel() for weight in flow.parameters())  # d² + d
    12
    """
    dim = standardize.dim
    layer = ConditionalLinear(dim, context_dim) if context_dim else LULinear(torch.arange(dim))
    return Flow([layer], standardize)
