"""Small samples from a generator that follows its law only in large ones."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# scikit-learn puts its curve parameters on a fixed grid: at n = 256 moons have 0.007 nats more
# entropy than their law, from this size on nothing that can be measured.
SMALLEST_POOL = 100_000


def subset_of_pool(draw: Callable[[int, int], Any], n: int, generator: torch.Generator) -> Tensor:
    """Take a random subset, in random order, of a large pool: (n, 2) in float64.

    Args:
        draw: (size, seed) -> array (size, 2); size is even, so that two halves weigh the same.
        n: points wanted.
        generator: gives the seed and the subset.
    """
    size = max(n + n % 2, SMALLEST_POOL)
    seed = int(torch.randint(2**31, (), generator=generator))
    pool = torch.from_numpy(draw(size, seed))
    return pool[torch.randperm(size, generator=generator)[:n]]
