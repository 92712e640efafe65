"""Pools of points, drawn or dealt once from independent seeds, held on the training device."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from flowtrain.data.density import Density


@dataclass(frozen=True)
class Pool:
    """Points to train on or to evaluate by.

    Args:
        x: (n, d), on the device that trains.
        density: the law that they were drawn from; None where nobody knows it.
        columns: names of a table's d columns.
        levels: that each value had before it was dequantised; None for others.
    """

    x: Tensor
    density: Density | None = None
    columns: tuple[str, ...] = ()
    levels: int | None = None

    @cached_property
    def log_p(self) -> Tensor:
        """The points' exact log-density in nats, (n,), in float64 on the CPU."""
        assert self.density is not None
        return self.density.log_prob(self.x.cpu().double())


def draw_pool(
    density: Density, size: int, seed: int, *, device: torch.device, dtype: torch.dtype
) -> Pool:
    """Draw `size` points; the seed alone decides them."""
    x = density.sample(size, torch.Generator().manual_seed(seed))
    return Pool(x.to(device=device, dtype=dtype), density)
