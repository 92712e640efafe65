"""The gradient of all weights in one vector: zeroed, measured and clipped in one go."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Gradient:
    """The gradient of weights, each weight's `.grad` a view of one vector.

    A stack of 144 small weights takes 144 norms to clip one by one. Backward passes add to the
    views, so it must be zeroed here: `zero_grad` of a module or an optimizer would part them.

    Args:
        weights: of one dtype, on one device.

    Attributes:
        vector: all of it, (number of weights,).

    >>> layer = nn.Linear(2, 1)
    >>> gradient = Gradient(layer.parameters())
    >>> layer(torch.tensor([[3.0, 4.0]])).sum().backward()
    >>> gradient.vector  # of two weights and a bias
    tensor([3., 4., 1.])
    """

    def __init__(self, weights: Iterable[nn.Parameter]) -> None:
        weights = list(weights)
        self.vector = torch.zeros(sum(weight.numel() for weight in weights)).to(weights[0])
        for weight, part in zip(
            weights, self.vector.split([weight.numel() for weight in weights]), strict=True
        ):
            weight.grad = part.view_as(weight)

    def zero(self) -> None:
        """Set it to zero, before a backward pass."""
        self.vector.zero_()

    def clip(self, largest: float) -> Tensor:
        """Return its norm, (), and shorten it to a largest norm; 0 shortens nothing."""
        norm: Tensor = torch.linalg.vector_norm(self.vector)
        if largest:
            self.vector.mul_((largest / (norm + 1e-6)).clamp(max=1.0))
        return norm
