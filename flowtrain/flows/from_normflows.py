"""Flows of the library normflows as ours: the same training, the same exact figures."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from flowtrain.flows.flow import Flow, Standardize, Transform
from flowtrain.flows.whiten import Whiten

CONTRACTIONS, NEWTON = 30, 4  # steps of an inverse: the first come near, the others make it exact
POWER_ITERATIONS = 5  # of the estimate of a matrix's norm, after each step of training


class FromNormflows(Transform):
    """A layer of normflows: its directions are ours.

    Args:
        layer: of normflows, with an inverse.
        context_dim: numbers of its condition, which normflows calls a context too.

    >>> from normflows.flows import Permute
    >>> FromNormflows(Permute(2, mode="swap"))(torch.tensor([[1.0, 2.0]]))
    (tensor([[2., 1.]]), tensor([0.]))
    """

    def __init__(self, layer: nn.Module, context_dim: int = 0) -> None:
        super().__init__()
        self.layer = layer
        self.context_dim = context_dim

    def forward(self, z: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        if not len(z):  # splines of normflows cannot reshape them
            return z, z.new_zeros(0)
        x, log_det = self.layer(z, *context)
        return x, log_det.expand(len(z))

    def inverse(self, x: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        if not len(x):
            return x, x.new_zeros(0)
        z, log_det = self.layer.inverse(x, *context)  # type: ignore[operator]
        return z, log_det.expand(len(x))


class Backwards(nn.Module):
    """A layer of normflows that maps data to base; normflows' own `Reverse` takes no condition.

    Args:
        flow: the layer.

    >>> from normflows.flows import MaskedAffineAutoregressive
    >>> x, log_det = Backwards(MaskedAffineAutoregressive(2, 8))(torch.zeros(3, 2))
    >>> x.shape, log_det.shape
    (torch.Size([3, 2]), torch.Size([3]))
    """

    def __init__(self, flow: Any) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.flow.inverse(z, context)
        return found

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.flow(x, context)
        return found


class Residual(Transform):
    """A residual block z = x + g(x) (arXiv 1906.02735) of a Lipschitz network of normflows.

    normflows' own block estimates the log-determinant by a random series; here it is exact, from
    the Jacobian by d backward passes. Its inverse is x = z - g(x) to a fixed point, which stops at
    1e-3 there; here steps of Newton's method follow, the last of which carries the gradients.

    g has a Lipschitz constant below one as long as the norms of its matrices are known: power
    iterations follow them whenever a gradient arrives.

    Args:
        network: g, a `normflows.nets.LipschitzMLP`.

    >>> from normflows.nets import LipschitzMLP
    >>> block = Residual(LipschitzMLP([2, 8, 2], init_zeros=False))
    >>> z = torch.ones(3, 2)
    >>> torch.allclose(block.inverse(block(z)[0])[0], z, atol=1e-5)
    True
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        for layer in network.modules():
            if hasattr(layer, "compute_weight"):
                _follow_norm(layer)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            x = z
            for _ in range(CONTRACTIONS):
                x = z - self.network(x)
            for _ in range(NEWTON - 1):
                x = self._newton(x, z)
        x = self._newton(x, z)
        return x, -self._push(x)[1].slogdet().logabsdet

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, jacobian = self._push(x)
        return z, jacobian.slogdet().logabsdet

    def _newton(self, x: Tensor, z: Tensor) -> Tensor:
        """Return a step of Newton's method from x, (n, d), towards the x that leads to z."""
        found, jacobian = self._push(x.detach())
        step: Tensor = torch.linalg.solve(jacobian.detach(), found - z)
        return x.detach() - step

    def _push(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return x + g(x), (n, d), and its Jacobian, (n, d, d)."""
        recording = torch.is_grad_enabled()
        with torch.enable_grad():
            if not (recording and x.requires_grad):
                x = x.detach().requires_grad_()
            z = x + self.network(x)
            rows = [
                torch.autograd.grad(column.sum(), x, retain_graph=True, create_graph=recording)[0]
                for column in z.unbind(-1)
            ]
        jacobian = torch.stack(rows, 1)
        return (z, jacobian) if recording else (z.detach(), jacobian.detach())


def _follow_norm(layer: Any) -> None:
    """Bring the estimate of a matrix's norm up to date after each step of training.

    Its vectors are replaced, not changed: a graph may still need the old ones.
    """

    def follow(weight: Tensor) -> None:
        layer.u, layer.v = layer.u.clone(), layer.v.clone()
        layer.compute_weight(update=True, n_iterations=POWER_ITERATIONS)

    layer.weight.register_post_accumulate_grad_hook(follow)


def normflows(
    standardize: Standardize | Whiten,
    *,
    flow: str,
    transforms: int,
    hidden: int,
    depth: int,
    arguments: Mapping[str, Any],
    generator: torch.Generator,
    context_dim: int = 0,
) -> Flow:
    """Build a flow of normflows on whitened coordinates, stacked as its examples are.

    Args:
        standardize: the fixed map to data coordinates; it has the dimension.
        flow: "residual", "realnvp", "nsf", "maf" or "nsf_ar".
        transforms: how many.
        hidden: width of a transform's network.
        depth: its hidden layers, or residual blocks.
        arguments: others of the transform, by the names of normflows' class.
        generator: not used: normflows draws its weights from torch's own.
        context_dim: numbers of a condition, which not all flows of normflows take.

    Raises:
        ValueError: the flow is unknown, normflows refuses an argument, the data have one dimension,
            in which only "residual" is made, or the flow takes no condition.

    >>> flow = normflows(
    ...     Standardize(torch.zeros(2), torch.ones(2)), flow="nsf", transforms=2, hidden=8,
    ...     depth=1, arguments={"num_bins": 4}, generator=torch.Generator())
    >>> flow.sample(5).shape, flow.log_prob(torch.zeros(5, 2)).shape
    (torch.Size([5, 2]), torch.Size([5]))
    """
    from normflows import flows
    from normflows.nets import MLP, LipschitzMLP

    dim = standardize.dim
    if dim < 2 and flow != "residual":
        raise ValueError(f"{flow} of normflows needs two dimensions, the data have {dim}")
    widths = [hidden] * depth
    given = {"num_context_channels": context_dim} if context_dim else {}

    def transform(index: int) -> Transform:
        match flow:
            case "residual":
                settings = {"lipschitz_const": 0.9, **arguments}
                return Residual(LipschitzMLP([dim, *widths, dim], **settings))
            case "realnvp":
                network = MLP([dim - dim // 2, *widths, 2 * (dim // 2)], init_zeros=True)
                return FromNormflows(flows.AffineCouplingBlock(network, **arguments))
            case "nsf":
                settings = {"reverse_mask": index % 2 == 1, **given, **arguments}
                spline = flows.CoupledRationalQuadraticSpline(dim, depth, hidden, **settings)
                return FromNormflows(spline, context_dim)
            case "nsf_ar":
                settings = {**given, **arguments}
                spline = flows.AutoregressiveRationalQuadraticSpline(dim, depth, hidden, **settings)
                return FromNormflows(spline, context_dim)
            case "maf":  # it is given as a map from data to base
                settings = {"context_features": context_dim or None, **arguments}
                layer = flows.MaskedAffineAutoregressive(dim, hidden, num_blocks=depth, **settings)
                return FromNormflows(Backwards(layer), context_dim)
            case _:
                raise ValueError(f"{flow!r} is no flow of normflows that is known here")

    layers: list[Transform] = []
    try:
        for index in range(transforms):
            layers.append(transform(index))
            if flow != "residual":
                layers.append(FromNormflows(flows.LULinearPermute(dim)))
    except TypeError as error:
        raise ValueError(f"{flow} of normflows: {error}") from None
    built = Flow(layers, standardize)
    if built.context_dim != context_dim:
        raise ValueError(f"{flow} of normflows learns no p(x | c)")
    return built
