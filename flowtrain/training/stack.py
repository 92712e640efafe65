"""Flows of one architecture as one program: the losses and gradients of all from one pass."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from flowtrain.training.weights import Weights


class Stack:
    """The weights of R flows, stacked: a pass costs fewer and larger products than R passes.

    A step of a small flow is hundreds of operations, each over sooner than the next is launched.
    `vmap` makes of every operation one for all flows. Nothing random happens inside: what a loss
    needs is drawn before, for each flow by its own generator.

    Args:
        weights: of each flow. The flows differ in numbers alone.

    >>> layers = [nn.Linear(2, 1), nn.Linear(2, 1)]
    >>> weights = [Weights(layer) for layer in layers]
    >>> x = torch.tensor([[[3.0, 4.0]], [[6.0, 8.0]]])  # a batch of one point for each
    >>> Stack(weights).backward(lambda layer, x: layer(x).mean(), x).shape
    torch.Size([2])
    >>> [layer.weight.grad.tolist() for layer in layers]
    [[[3.0, 4.0]], [[6.0, 8.0]]]
    """

    def __init__(self, weights: Sequence[Weights]) -> None:
        self.weights = list(weights)
        self.vectors = torch.stack([each.vector for each in weights])
        self.gradients = torch.zeros_like(self.vectors)
        names = [name for name, _ in weights[0].module.named_parameters()]
        parts = [part.detach().requires_grad_() for part in weights[0].parts(self.vectors)]
        self.parameters = dict(zip(names, parts, strict=True))
        self.slopes = weights[0].parts(self.gradients)
        self.buffers: dict[str, Tensor] = {}
        self.stacked: dict[str, int | None] = {}  # the axis of the flows; None where all agree
        for name, first in weights[0].module.named_buffers():
            each = [dict(one.module.named_buffers())[name] for one in weights]
            alike = all(torch.equal(first, other) for other in each)
            self.buffers[name] = first if alike else torch.stack(each)
            self.stacked[name] = None if alike else 0

    def backward(self, loss: Callable[..., Tensor], *batches: Tensor) -> Tensor:
        """Return the loss of each flow, (R,), and leave its gradient where its weights keep it.

        Args:
            loss: of a flow and its part of each batch, (); it draws nothing.
            batches: each (R, ...).
        """
        with torch.no_grad():
            for own, each in zip(self.vectors, self.weights, strict=True):
                own.copy_(each.vector)
        one = _Loss(self.weights[0].module, loss)

        def of_one(
            parameters: dict[str, Tensor], buffers: dict[str, Tensor], *batch: Tensor
        ) -> Tensor:
            named = {f"flow.{name}": tensor for name, tensor in (parameters | buffers).items()}
            value: Tensor = functional_call(one, named, batch)
            return value

        axes = (0, self.stacked, *[0] * len(batches))
        losses: Tensor = vmap(of_one, in_dims=axes)(self.parameters, self.buffers, *batches)
        found = torch.autograd.grad(
            losses.sum(), list(self.parameters.values()), materialize_grads=True
        )
        torch._foreach_copy_(self.slopes, found)
        for each, slopes in zip(self.weights, self.gradients, strict=True):
            each.gradient.copy_(slopes)
        return losses.detach()


class _Loss(nn.Module):
    """A loss as a module, which `functional_call` needs to lend its flow other weights."""

    def __init__(self, flow: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.flow, self.loss = flow, loss

    def forward(self, *batch: Tensor) -> Tensor:
        return self.loss(self.flow, *batch)
