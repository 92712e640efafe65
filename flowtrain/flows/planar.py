"""Planar and radial flows (Rezende and Mohamed, arXiv 1505.05770), inverted exactly."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowtrain.flows.flow import Flow, Standardize, Transform
from flowtrain.flows.nets import zero_init
from flowtrain.flows.whiten import Whiten
from flowtrain.roots import rising_root

SMALLEST = 1e-3  # least slope of a layer along its direction: a steeper fold has no inverse
WIDTH = 32  # hidden units of the network by which a layer's numbers follow a condition


class Following(nn.Module):
    """The numbers of a layer at each condition, as the paper amortises them (section 4.2 there).

    A network with one hidden layer says how far they are from those of the layer itself: 0 at
    first.

    Args:
        context_dim: numbers of a condition.
        count: numbers of the layer.

    >>> normal, offset = Following(context_dim=1, count=3)(
    ...     [torch.ones(2), torch.zeros(1)], torch.zeros(4, 1))
    >>> normal.shape, offset.shape
    (torch.Size([4, 2]), torch.Size([4, 1]))
    """

    def __init__(self, context_dim: int, count: int) -> None:
        super().__init__()
        last = nn.Linear(WIDTH, count)
        zero_init(last)
        self.network = nn.Sequential(nn.Linear(context_dim, WIDTH), nn.SiLU(), last)

    def forward(self, own: Sequence[Tensor], context: Tensor) -> list[Tensor]:
        """Return the numbers (k,) of a layer at n conditions, (n, k) each."""
        moves = self.network(context).split([len(each) for each in own], -1)
        return [each + move for each, move in zip(own, moves, strict=True)]


class Planar(Transform):
    """Push points along u by how far they lie beyond a plane: x = z + u tanh(w.z + b).

    It is invertible for w.u > -1 (appendix A.1 there); u is moved along w so that 1 + w.u is
    `SMALLEST` or more, and u = 0 stays where it is: the identity, at which a layer starts.
    The inverse, which the paper does without, is a root search in one dimension: a = w.z + b
    solves a + (w.u) tanh(a) = w.x + b, and z = x - u tanh(a).

    Args:
        dim: d.
        context_dim: numbers of a condition that w, b and u follow.
        generator: draws w and b, which say where the plane lies.

    >>> layer = Planar(2, generator=torch.Generator().manual_seed(0))
    >>> _ = torch.nn.init.ones_(layer.direction)
    >>> z = torch.tensor([[0.5, -1.0]])
    >>> x, log_det = layer(z)
    >>> torch.allclose(layer.inverse(x)[0], z, atol=1e-6)
    True
    """

    def __init__(self, dim: int, *, context_dim: int = 0, generator: torch.Generator) -> None:
        super().__init__()
        self.context_dim = context_dim
        self.normal = nn.Parameter(torch.randn(dim, generator=generator))
        self.offset = nn.Parameter(torch.randn(1, generator=generator))
        self.direction = nn.Parameter(torch.zeros(dim))
        self.following = Following(context_dim, 2 * dim + 1) if context_dim else None

    def push(self, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return w, b, u moved to where the layer is invertible, and w.u.

        They are (d,), (), (d,) and (), or (n, d), (n,), (n, d) and (n,) at n conditions.
        """
        normal, offset, direction = _at(
            (self.normal, self.offset, self.direction), self.following, context
        )
        inner = (normal * direction).sum(-1)
        allowed = _above_minus_one(inner)
        along = normal / normal.square().sum(-1, keepdim=True).clamp(min=1e-12)
        moved = direction + (allowed - inner)[..., None] * along
        return normal, offset.squeeze(-1), moved, allowed

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        normal, offset, u, inner = self.push(context)
        bent = torch.tanh((z * normal).sum(-1) + offset)
        return z + u * bent[:, None], torch.log1p(inner * (1 - bent.square()))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        normal, offset, u, inner = self.push(context)
        bent = torch.tanh(solve_planar((x * normal).sum(-1) + offset, inner))
        return x - u * bent[:, None], -torch.log1p(inner * (1 - bent.square()))


def solve_planar(right: Tensor, inner: Tensor) -> Tensor:
    """Solve a + inner * tanh(a) = right for a, from where it must lie.

    The root is found without a graph; two last steps of Newton's method carry its first and second
    derivatives, by the implicit function theorem.

    Args:
        right: (n,).
        inner: above -1, so that the left side increases; one for all, or (n,).

    >>> inner = torch.tensor(-0.9)
    >>> a = solve_planar(torch.tensor([0.01, 3.0]), inner)
    >>> torch.round(a + inner * a.tanh(), decimals=4)
    tensor([0.0100, 3.0000])
    """
    with torch.no_grad():

        def excess(a: Tensor) -> tuple[Tensor, Tensor]:
            bent = torch.tanh(a)
            return a + inner * bent - right, 1 + inner * (1 - bent.square())

        a = rising_root(excess, right - inner.abs(), right + inner.abs())
    for _ in range(2):
        bent = torch.tanh(a)
        a = a - (a + inner * bent - right) / (1 + inner * (1 - bent.square()))
    return a


class Radial(Transform):
    """Push points away from a centre, or towards it: x = z + b (z - c) / (a + |z - c|).

    It is invertible for b > -a (appendix A.2 there), and starts as the identity, b = 0. The
    distance |z - c| of a given |x - c| is the positive root of a quadratic.

    Args:
        dim: d.
        context_dim: numbers of a condition that a, b and c follow.
        generator: draws the centre c.

    >>> layer = Radial(2, generator=torch.Generator().manual_seed(0))
    >>> _ = torch.nn.init.ones_(layer.strength)
    >>> z = torch.tensor([[0.5, -1.0]])
    >>> x, log_det = layer(z)
    >>> torch.allclose(layer.inverse(x)[0], z, atol=1e-6)
    True
    """

    def __init__(self, dim: int, *, context_dim: int = 0, generator: torch.Generator) -> None:
        super().__init__()
        self.context_dim = context_dim
        self.centre = nn.Parameter(torch.randn(dim, generator=generator))
        self.log_reach = nn.Parameter(torch.zeros(1))
        self.strength = nn.Parameter(torch.zeros(1))
        self.following = Following(context_dim, dim + 2) if context_dim else None

    def push(self, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return c, a > 0 and b > -a: (d,), () and (), or (n, d), (n,) and (n,)."""
        centre, log_reach, strength = _at(
            (self.centre, self.log_reach, self.strength), self.following, context
        )
        reach = log_reach.squeeze(-1).exp()
        return centre, reach, reach * _above_minus_one(strength.squeeze(-1))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        centre, reach, push = self.push(context)
        away = z - centre
        far = reach + torch.linalg.vector_norm(away, dim=-1)
        return z + away * (push / far)[:, None], _radial_log_det(reach, push, far, z.shape[-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        centre, reach, push = self.push(context)
        away = x - centre
        distance = torch.linalg.vector_norm(away, dim=-1)
        half = (distance - reach - push) / 2
        # r + b r / (a + r) = |x - c|; a cancelling sum is replaced by its conjugate.
        root = (half.square() + reach * distance).sqrt()
        beyond = half > 0
        apart = torch.where(beyond, 1.0, root - half)  # no 0 to divide by, for the gradient's sake
        before = torch.where(beyond, half + root, reach * distance / apart)
        far = reach + before
        z = centre + away / (1 + push / far)[:, None]
        return z, -_radial_log_det(reach, push, far, x.shape[-1])


def _radial_log_det(reach: Tensor, push: Tensor, far: Tensor, dim: int) -> Tensor:
    around = torch.log1p(push / far)
    return (dim - 1) * around + torch.log1p(push * reach / far.square())


def _at(
    own: Sequence[Tensor], following: Following | None, context: Tensor | None
) -> Sequence[Tensor]:
    """Return a layer's own numbers, (k,) each, or those at its conditions, (n, k) each."""
    return own if following is None or context is None else following(own, context)


def _above_minus_one(free: Tensor) -> Tensor:
    """Map a free number to one above -1 + SMALLEST, smoothly, and 0 to 0."""
    one = math.log(math.expm1(1 - SMALLEST))  # softplus of it is 1 - SMALLEST
    return nn.functional.softplus(free + one) - (1 - SMALLEST)


def planar(
    standardize: Standardize | Whiten,
    *,
    layers: int,
    generator: torch.Generator,
    context_dim: int = 0,
) -> Flow:
    """Build a stack of planar layers in whitened coordinates.

    Args:
        standardize: the fixed map to data coordinates; it has the dimension.
        layers: how many.
        generator: draws where the planes lie.
        context_dim: numbers of a condition that every layer follows.

    >>> from flowtrain.flows import Standardize
    >>> standardize = Standardize(torch.zeros(2), torch.ones(2))
    >>> flow = planar(standardize, layers=8, generator=torch.Generator().manual_seed(0))
    >>> flow.log_prob(torch.zeros(1, 2))  # it has learned nothing yet
    tensor([-1.8379], grad_fn=<AddBackward0>)
    """
    dim = standardize.dim
    stack = [Planar(dim, context_dim=context_dim, generator=generator) for _ in range(layers)]
    return Flow(stack, standardize)


def radial(
    standardize: Standardize | Whiten,
    *,
    layers: int,
    generator: torch.Generator,
    context_dim: int = 0,
) -> Flow:
    """Build a stack of radial layers in whitened coordinates.

    Args:
        standardize: the fixed map to data coordinates; it has the dimension.
        layers: how many.
        generator: draws the centres.
        context_dim: numbers of a condition that every layer follows.

    >>> from flowtrain.flows import Standardize
    >>> standardize = Standardize(torch.zeros(2), torch.ones(2))
    >>> flow = radial(standardize, layers=8, generator=torch.Generator().manual_seed(0))
    >>> flow.log_prob(torch.zeros(1, 2))  # it has learned nothing yet
    tensor([-1.8379], grad_fn=<AddBackward0>)
    """
    dim = standardize.dim
    stack = [Radial(dim, context_dim=context_dim, generator=generator) for _ in range(layers)]
    return Flow(stack, standardize)
