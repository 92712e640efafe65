"""Flows of the library zuko as ours: the same training, the same exact figures."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from flowtrain.flows.coupling import ACTIVATIONS
from flowtrain.flows.flow import Flow, Standardize, Transform
from flowtrain.flows.whiten import Whiten

CLASSES = {
    "nice": "NICE", "maf": "MAF", "nsf": "NSF", "naf": "NAF", "unaf": "UNAF", "sospf": "SOSPF",
    "bpf": "BPF", "gf": "GF",
}  # fmt: skip


class FromZuko(Transform):
    """A lazy transform of zuko, which maps data to base, read from its other end.

    Maps that zuko inverts by bisection (those of naf, unaf, sospf, bpf and gf) are inverted on
    [-10, 10] in whitened coordinates, bpf's on [-5, 5], to 1e-6. A base point that leads further
    is cut off there, which the inverse error of the report shows.

    Args:
        lazy: of zuko.
        context_dim: numbers of its condition, which zuko calls a context too.

    >>> import zuko
    >>> spline = FromZuko(zuko.flows.NSF(2, transforms=2).transform)
    >>> x, log_det = spline(torch.zeros(3, 2))
    >>> x.shape, log_det.shape, torch.allclose(spline.inverse(x)[0], torch.zeros(3, 2), atol=1e-5)
    (torch.Size([3, 2]), torch.Size([3]), True)
    """

    def __init__(self, lazy: torch.nn.Module, context_dim: int = 0) -> None:
        super().__init__()
        self.lazy = lazy
        self.context_dim = context_dim

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if not len(z):  # zuko cannot reshape them
            return z, z.new_zeros(0)
        x, log_det = self.lazy(context).inv.call_and_ladj(z)
        return x, log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if not len(x):
            return x, x.new_zeros(0)
        z, log_det = self.lazy(context).call_and_ladj(x)
        return z, log_det


def zuko(
    standardize: Standardize | Whiten,
    *,
    flow: str,
    transforms: int,
    arguments: Mapping[str, Any],
    generator: torch.Generator,
    context_dim: int = 0,
) -> Flow:
    """Build a flow of zuko on whitened coordinates.

    Args:
        standardize: the fixed map to data coordinates; it has the dimension.
        flow: a name of `CLASSES`.
        transforms: how many.
        arguments: others of zuko's class, by its names; an activation by its name in `ACTIVATIONS`.
        generator: not used: zuko draws its weights from torch's own.
        context_dim: numbers of a condition.

    Raises:
        ValueError: zuko refuses an argument, or there is no such activation.

    >>> flow = zuko(
    ...     Standardize(torch.zeros(2), torch.ones(2)), flow="bpf", transforms=2,
    ...     arguments={"degree": 8, "activation": "silu"}, generator=torch.Generator())
    >>> flow.sample(5).shape, flow.log_prob(torch.zeros(5, 2)).shape
    (torch.Size([5, 2]), torch.Size([5]))
    """
    import zuko.flows

    arguments = dict(arguments)
    if "activation" in arguments:
        name = arguments["activation"]
        if name not in ACTIVATIONS:
            raise ValueError(f"no activation {name!r}; choose from {', '.join(ACTIVATIONS)}")
        arguments["activation"] = ACTIVATIONS[name]
    try:
        made = getattr(zuko.flows, CLASSES[flow])(
            standardize.dim, context_dim, transforms=transforms, **arguments
        )
    except TypeError as error:
        raise ValueError(f"{flow} of zuko: {error}") from None
    return Flow([FromZuko(made.transform, context_dim)], standardize)
