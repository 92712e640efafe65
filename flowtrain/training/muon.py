"""Muon on the matrices of linear layers, Adam on the other weights."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flowtrain.training.adam import Adam, by_weight, take_over
from flowtrain.training.weights import Weights

ITERATIONS = 5
# Of x -> a x + b x^3 + c x^5, whose fifth iterate takes (0.01, 1] to about 0.7 to 1.2.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
LENGTH = 0.2  # rms of an entry of the step, per unit of learning rate: Adam's (arXiv 2502.16982)


class Muon:
    """A step along U V^T for a momentum U S V^T, as far in every direction (Jordan et al. 2024).

    Nesterov's momentum, orthogonalised by Newton and Schulz's iteration and scaled to the length
    of Adam's steps (arXiv 2502.16982, eq. 4), so that a learning rate of Adam's does for both. The
    arithmetic is that of `torch.optim.Muon`, in the weights' own precision, with the matrices of a
    shape in one product: those of a stack of couplings are many and small.

    Args:
        weights: what is trained.
        lr: the learning rate; it may be changed between steps.
        betas: decay rates of Adam's moments: of biases, of layers with one input or output, and
            of what is no linear layer's.
        momentum: decay rate of the momentum.

    >>> layer = torch.nn.Linear(2, 2, bias=False)
    >>> weights = Weights(layer)
    >>> muon = Muon(weights, lr=0.1, betas=[0.9, 0.999], momentum=0.95)
    >>> before = layer.weight.clone()
    >>> layer(torch.tensor([[3.0, 0.0], [0.0, 0.1]])).diagonal().sum().backward()
    >>> layer.weight.grad.diagonal()
    tensor([3.0000, 0.1000])
    >>> muon.step()
    >>> (layer.weight - before).diagonal() < -0.01  # both have moved, about as far
    tensor([True, True])
    """

    def __init__(
        self, weights: Weights, *, lr: float, betas: Sequence[float], momentum: float
    ) -> None:
        self.weights, self.lr, self.momentum = weights, lr, momentum
        self.adam = Adam(weights, lr=lr, betas=betas)
        self.buffer = torch.zeros_like(weights.vector)
        self.shapes: dict[torch.Size, list[int]] = defaultdict(list)  # and which weights have them
        self.rest = torch.ones_like(weights.vector)  # zero for the entries of a matrix
        linear = {id(m.weight) for m in weights.module.modules() if isinstance(m, nn.Linear)}
        for position, (weight, rest) in enumerate(
            zip(weights.each, weights.parts(self.rest), strict=True)
        ):
            if id(weight) in linear and min(weight.shape) > 1:
                self.shapes[weight.shape].append(position)
                rest.zero_()

    @torch.no_grad()
    def step(self) -> None:
        """Move the weights by their gradient."""
        gradient = self.weights.gradient
        self.buffer.lerp_(gradient, 1 - self.momentum)
        ahead = self.weights.parts(gradient.lerp(self.buffer, self.momentum))
        gradient.mul_(self.rest)  # and so Adam, which has never seen another, leaves matrices alone
        self.adam.lr = self.lr
        self.adam.step()
        for shape, positions in self.shapes.items():
            length = -self.lr * LENGTH * max(shape) ** 0.5
            moves = orthogonal(torch.stack([ahead[n] for n in positions])).mul_(length)
            torch._foreach_add_([self.weights.each[n] for n in positions], [*moves])

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept of each weight, by its position."""
        vectors = {
            "exp_avg": self.adam.mean,
            "exp_avg_sq": self.adam.square,
            "momentum_buffer": self.buffer,
        }
        return by_weight(self.weights, self.adam.steps, vectors)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over what was kept of each weight; the settings stay this one's.

        Raises:
            ValueError: it is not what `state_dict` returns for weights of these shapes.
        """
        self.adam.steps = take_over(saved, self.state_dict())


def orthogonal(matrices: Tensor) -> Tensor:
    """Return U V^T of matrices U S V^T, (k, m, n), nearly: singular values about 0.7 to 1.2.

    >>> matrix = torch.diag(torch.tensor([3.0, 0.1]))[None]
    >>> orthogonal(matrix)[0].diagonal().round(decimals=1)
    tensor([0.7000, 1.1000])
    """
    a, b, c = COEFFICIENTS
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = wide / torch.linalg.matrix_norm(wide, keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    found: Tensor = x if wide is matrices else x.mT
    return found
