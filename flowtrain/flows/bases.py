"""Base distributions: the laws that a flow carries to the data."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

LOG_TWO_PI = math.log(2.0 * math.pi)


class Base(nn.Module, ABC):
    """A law on R^d in whitened coordinates. What it learns are its parameters.

    Args:
        dim: d.

    >>> class Uniform(Base):  # on [0, 1]^d
    ...     def log_prob(self, z):
    ...         inside = ((z >= 0) & (z <= 1)).all(-1)
    ...         return torch.where(inside, 0.0, -math.inf)
    ...     def sample(self, n, generator, *, dtype, device):
    ...         return torch.rand(n, self.dim, generator=generator, dtype=dtype, device=device)
    ...     def cdf(self, z):
    ...         return z.clamp(0, 1)
    >>> Uniform(2).log_prob(torch.tensor([[0.5, 0.5], [0.5, 1.5]]))
    tensor([0., -inf])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log-density in nats, (n, d) -> (n,)."""

    @abstractmethod
    def sample(
        self,
        n: int,
        generator: torch.Generator | None,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Tensor:
        """Draw n points, (n, d), differentiable in the parameters.

        Args:
            n: how many.
            generator: of all chance; None is torch's default one.
            dtype: of the points.
            device: of the generator, and of the points.
        """

    @abstractmethod
    def cdf(self, z: Tensor) -> Tensor:
        """Return P(Z_i <= z_i | z_1 .. z_{i-1}) of every coordinate, (n, d) -> (n, d).

        At points of the base these are independent and uniform on [0, 1] (Rosenblatt 1952).
        """


class Normal(Base):
    """The standard normal law.

    >>> Normal(2).log_prob(torch.zeros(1, 2))  # -log 2π
    tensor([-1.8379])
    """

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * (z.square().sum(-1) + self.dim * LOG_TWO_PI)

    def sample(
        self,
        n: int,
        generator: torch.Generator | None,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Tensor:
        return torch.randn(n, self.dim, generator=generator, dtype=dtype, device=device)

    def cdf(self, z: Tensor) -> Tensor:
        u: Tensor = torch.special.ndtr(z)
        return u
