"""A vector field held to the contract, before it is trained: one of the user's own may break it."""

import copy

import torch
from torch import Tensor, nn


def check_field(field: nn.Module, dim: int, context_dim: int = 0) -> None:
    """Hold a field to the contract, at random weights, points, times and conditions.

    Args:
        field: the field; it is copied, not changed.
        dim: d.
        context_dim: numbers of a condition; 0 where there is none.

    Raises:
        ValueError: a wrong shape, a value that is not finite, or tangents that autograd denies.

    >>> from flowtrain.flows.fields import TimeMLP
    >>> check_field(TimeMLP(2, width=8, depth=1, activation="silu"), dim=2)
    >>> class Sum(torch.nn.Module):
    ...     def forward(self, t, z, tangents):
    ...         return z.sum(-1), tangents
    >>> check_field(Sum(), dim=2)
    Traceback (most recent call last):
        ...
    ValueError: the field's velocity must have shape (5, 2), got (5,)
    """
    generator = torch.Generator().manual_seed(0)
    field = copy.deepcopy(field)
    with torch.no_grad():
        for weight in field.parameters():  # last layers start at zero, and hide their tangents
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    n, k = 5, 3
    z, tangents = (torch.randn(*shape, generator=generator) for shape in ((n, dim), (k, n, dim)))
    given = (torch.randn(n, context_dim, generator=generator),) if context_dim else ()
    for t in (torch.tensor(0.3), torch.rand(n, generator=generator)):
        velocity, moved = field(t, z, tangents, *given)
        for name, value, shape in (
            ("velocity", velocity, (n, dim)),
            ("tangents", moved, (k, n, dim)),
        ):
            if value.shape != shape:
                raise ValueError(
                    f"the field's {name} must have shape {shape}, got {(*value.shape,)}"
                )
            if not value.isfinite().all():
                raise ValueError(f"the field's {name} must be finite")
        for tangent, found in zip(tangents, moved, strict=True):
            # Not torch.func's forward mode: its first use imports what warns of a deprecation.
            truth: Tensor = torch.autograd.functional.jvp(
                lambda z, t=t: field(t, z, z.new_empty(0, *z.shape), *given)[0], z, tangent
            )[1]
            if not torch.allclose(found, truth, rtol=1e-3, atol=1e-4):
                off = (found - truth).abs().max().item()
                raise ValueError(
                    f"the field's tangents must be J @ tangents; autograd differs by {off:.3g}"
                )
