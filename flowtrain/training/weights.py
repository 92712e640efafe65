"""The weights of a flow in one vector, their gradient in another: one call does for all."""

import torch
from torch import Tensor, nn

LINE = 64  # bytes of a line of the cache, at which every weight begins, as torch's own do


class Weights:
    """The weights of a module, each of them and its `.grad` a view of a vector.

    A stack of 144 small weights takes 144 norms to clip, and 144 updates to step, one by one.
    Backward passes add to the views, so the gradient must be zeroed here: `zero_grad` of a module
    or an optimizer would part them, and so would `to` another device.

    Args:
        module: its weights are of one dtype, on one device.

    Attributes:
        module: as given.
        each: the weights, in the module's order.
        vector: of all, (number of weights and of zeros between them,).
        gradient: laid out alike.

    >>> layer = nn.Linear(2, 1)
    >>> weights = Weights(layer)
    >>> layer(torch.tensor([[3.0, 4.0]])).sum().backward()
    >>> weights.clip(0.0)  # (3, 4) of the weights and 1 of the bias
    tensor(5.0990)
    >>> weights.vector.add_(weights.gradient, alpha=-1.0).shape  # a step of gradient descent
    torch.Size([32])
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.each = list(module.parameters())
        line = LINE // self.each[0].element_size()
        self.sizes = [-(-weight.numel() // line) * line for weight in self.each]
        self.vector = self.each[0].detach().new_zeros(sum(self.sizes))
        self.gradient = torch.zeros_like(self.vector)
        for weight, own, slope in zip(
            self.each, self.parts(self.vector), self.parts(self.gradient), strict=True
        ):
            own.copy_(weight.detach())
            weight.data, weight.grad = own, slope

    def parts(self, vector: Tensor) -> list[Tensor]:
        """Return views of a vector laid out as the weights', each of its weight's shape.

        Args:
            vector: (..., length of the weights' own); the first axes are kept.
        """
        return [
            part[..., : weight.numel()].view((*vector.shape[:-1], *weight.shape))
            for part, weight in zip(vector.split(self.sizes, dim=-1), self.each, strict=True)
        ]

    def zero_gradient(self) -> None:
        """Set the gradient to zero, before a backward pass."""
        self.gradient.zero_()

    def clip(self, largest: float) -> Tensor:
        """Return the gradient's norm, (), and shorten it to a largest norm; 0 shortens nothing."""
        norm: Tensor = torch.linalg.vector_norm(self.gradient)
        if largest:
            self.gradient.mul_((largest / (norm + 1e-6)).clamp(max=1.0))
        return norm
