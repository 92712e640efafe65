"""Pools of points, drawn once from independent seeds and held on the training device."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from flowtrain.data.density import Density


@dataclass(frozen=True)
class Pool:
    """Points of a law: x, (n, d), on the device that trains."""

    x: Tensor
    density: Density

    @cached_property
    def log_p(self) -> Tensor:
        """The points' exact log-density in nats, (n,), in float64 on the CPU."""
        return self.density.log_prob(self.x.cpu().double())


def draw_pool(
    density: Density, size: int, seed: int, *, device: torch.device, dtype: torch.dtype
) -> Pool:
    """Draw `size` points; the seed alone decides them."""
    x = density.sample(size, torch.Generator().manual_seed(seed))
    return Pool(x.to(device=device, dtype=dtype), density)
