"""A density turned about the origin."""

import torch
from torch import Tensor

from flowtrain.densities.density import Density, box_around


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Turn points (n, 2) about the origin, counterclockwise, by one angle or (n,) of them.

    >>> x = rotate(torch.tensor([[1.0, 0.0]]), torch.tensor(torch.pi / 2))
    >>> torch.allclose(x, torch.tensor([[0.0, 1.0]]), atol=1e-6)
    True
    """
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * x[:, 0] - sin * x[:, 1], sin * x[:, 0] + cos * x[:, 1]], 1)


class Rotated(Density):
    """Another density, turned counterclockwise about the origin; its entropy is the same.

    Args:
        density: that is turned.
        angle: in radians.

    >>> from flowtrain.densities import Checkerboard
    >>> board = Checkerboard(squares=4, side=2.0)
    >>> turned = Rotated(board, 0.5)
    >>> nodes, weights = turned.quadrature(120)
    >>> round(float(weights @ turned.log_prob(nodes).exp()), 6), turned.entropy == board.entropy
    (1.0, True)
    """

    def __init__(self, density: Density, angle: float) -> None:
        self.density = density
        self.angle = torch.tensor(angle, dtype=torch.float64)
        corners = torch.cartesian_prod(*torch.stack(density.window, 1))
        super().__init__(
            window=box_around(rotate(corners, self.angle), 0.0), resolution=density.resolution
        )

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return rotate(self.density.sample(n, generator), self.angle)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.density.log_prob(rotate(x, -self.angle.to(x)))

    @property
    def entropy(self) -> float:
        return self.density.entropy

    def quadrature(self, points: int = 256) -> tuple[Tensor, Tensor]:
        """Nodes (m, 2) and weights (m,) of the density's own rule, turned with it."""
        nodes, weights = self.density.quadrature(points)
        return rotate(nodes, self.angle), weights
