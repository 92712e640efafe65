"""What a tracer can follow and any runtime run: constants solved beforehand, steps fixed."""

import torch
from torch import Tensor, nn

from flowtrain.config.methods import METHODS
from flowtrain.flows.fixed_steps import moved
from flowtrain.flows.flow import Flow, Transform
from flowtrain.flows.linear import LULinear
from flowtrain.flows.whiten import Whiten


def make_traceable(flow: Flow) -> None:
    """Replace the parts of a flow, in place, that solve linear systems at every call.

    >>> from flowtrain.flows.flow import Standardize
    >>> from flowtrain.flows.linear import affine
    >>> flow = affine(Standardize(torch.zeros(2), torch.ones(2)), generator=torch.Generator())
    >>> make_traceable(flow)
    >>> type(flow.transforms[0]).__name__
    'FixedLinear'
    """
    for name, layer in list(flow.named_modules()):
        if isinstance(layer, LULinear):
            parent, _, key = name.rpartition(".")
            setattr(flow.get_submodule(parent), key, FixedLinear(layer))
    if isinstance(flow.standardize, Whiten):
        flow.standardize = FixedWhiten(flow.standardize)  # type: ignore[assignment]


class FixedLinear(Transform):
    """The map of an `LULinear` whose triangles are multiplied and solved in float64, for good.

    Args:
        layer: the learned map.

    >>> layer = FixedLinear(LULinear(torch.tensor([1, 0])))
    >>> layer(torch.tensor([[1.0, 2.0]]))[0].tolist()
    [[2.0, 1.0]]
    """

    weight: Tensor
    inverse_weight: Tensor
    shift: Tensor
    log_det: Tensor

    @torch.no_grad()
    def __init__(self, layer: LULinear) -> None:
        super().__init__()
        lower, upper = (triangle.double() for triangle in layer.triangles())
        weight = torch.addmm(upper, lower, upper).index_select(0, layer.inverse_order)
        dtype = layer.packed.dtype
        for name, value in (
            ("weight", weight), ("inverse_weight", weight.inverse()), ("shift", layer.shift),
            ("log_det", layer.packed.double().trace()),
        ):  # fmt: skip
            # Parameters, by which a flow knows the dtype it computes in.
            self.register_parameter(name, nn.Parameter(value.to(dtype), requires_grad=False))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x = nn.functional.linear(z - self.shift, self.inverse_weight)
        return x, -self.log_det.expand(len(z))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return nn.functional.linear(x, self.weight, self.shift), self.log_det.expand(len(x))


class FixedWhiten(Transform):
    """The map of a `Whiten`, its matrix inverted, by functions that runtimes have in float64.

    Args:
        whiten: the fitted map.

    >>> x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> whiten = Whiten.fit(x.exp(), bend=True)
    >>> fixed = FixedWhiten(whiten)
    >>> torch.allclose(fixed.inverse(x)[0], whiten.inverse(x)[0], rtol=0, atol=1e-12)
    True
    """

    offset: Tensor
    scale: Tensor
    bent: Tensor
    shift: Tensor
    spread: Tensor
    matrix: Tensor
    inverse_matrix: Tensor
    log_det: Tensor

    def __init__(self, whiten: Whiten) -> None:
        super().__init__()
        for name, value in whiten.named_buffers():
            self.register_buffer(name, value.clone())
        self.register_buffer("inverse_matrix", whiten.matrix.inverse())
        scales = whiten.scale.log() + whiten.spread.log()
        self.register_buffer("log_det", torch.linalg.slogdet(whiten.matrix)[1] - scales.sum())

    @property
    def dim(self) -> int:
        """The number of columns, d."""
        return len(self.offset)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        u = self.shift + self.spread * (z.double() @ self.inverse_matrix.mT)
        bends = torch.where(self.bent, u, 0.0)
        y = torch.where(self.bent, (bends.exp() - (-bends).exp()) / 2, u)
        return self.offset + self.scale * y, -self._log_det(y)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = (x.double() - self.offset) / self.scale
        # asinh |y| = log1p(|y| + y² / (1 + √(1 + y²))), without the difference of large numbers
        far = y.abs()
        root = (1 + y * y).sqrt()
        bends = torch.sign(y) * torch.log1p(far + y * y / (1 + root))
        u = torch.where(self.bent, bends, y)
        return ((u - self.shift) / self.spread) @ self.matrix.mT, self._log_det(y)

    def _log_det(self, y: Tensor) -> Tensor:
        """Return log|det dz/dx| at y, (n, d) -> (n,)."""
        bends = torch.where(self.bent, 0.5 * torch.log(1 + y * y), 0.0)
        log_det: Tensor = self.log_det - bends.sum(-1)
        return log_det


class RungeKutta(Transform):
    """A continuous transform solved in equal steps of rk4, the method of `solver=rk4`.

    Nothing in it depends on values, so that it can be traced. The trace of the Jacobian is exact.

    Args:
        field: the vector field, with tangents.
        dim: d.
        steps: from base to data.
        context_dim: numbers of a condition, which the field then takes.

    >>> from flowtrain import load
    >>> flow, z = load(ffjord_folder), torch.ones(1, 2)
    >>> solved = RungeKutta(flow.cnf.field, dim=2, steps=16)(z)
    >>> torch.allclose(solved[0], flow.cnf(z)[0], atol=1e-4)
    True
    """

    def __init__(self, field: nn.Module, *, dim: int, steps: int, context_dim: int = 0) -> None:
        super().__init__()
        self.field, self.dim, self.steps = field, dim, steps
        self.context_dim = context_dim

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._solve(z, 0.0, 1.0, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._solve(x, 1.0, 0.0, context)

    def _solve(
        self, z: Tensor, start: float, end: float, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        given = () if context is None else (context,)
        basis = torch.eye(self.dim, dtype=z.dtype, device=z.device)[:, None]
        basis = basis.expand(self.dim, z.shape[0], self.dim)

        def rate(t: float, state: Tensor) -> Tensor:
            time = torch.full((), t, dtype=z.dtype, device=z.device)
            velocity, tangents = self.field(time, state[:, : self.dim], basis, *given)
            return torch.cat([velocity, (basis * tangents).sum((0, 2))[:, None]], -1)

        stages, weights = METHODS["rk4"]
        state = torch.cat([z, z.new_zeros(z.shape[0], 1)], -1)
        step = (end - start) / self.steps
        for number in range(self.steps):
            slopes: list[Tensor] = []
            for at, before in stages:
                t = start + (number + at) * step
                slopes.append(rate(t, moved(state, before, slopes, step)))
            state = moved(state, weights, slopes, step)
        return state[:, : self.dim], state[:, self.dim]
