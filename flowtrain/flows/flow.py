"""The contract of every flow: two directions, and what follows from them.

Direction, stated once: ``z`` is base (t = 0) and ``x`` is data (t = 1). ``forward`` maps z to x,
``inverse`` maps x to z, and each returns the log-determinant of its own Jacobian.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from flowtrain.flows.bases import Base, Normal

if TYPE_CHECKING:
    from flowtrain.flows.distribution import FlowDistribution
    from flowtrain.flows.whiten import Whiten


class Transform(nn.Module, ABC):
    """An invertible map of R^d. Everything fixed (masks, permutations, scales) is a buffer.

    >>> class Flip(Transform):
    ...     def forward(self, z):
    ...         return -z, z.new_zeros(len(z))
    ...     inverse = forward
    >>> Flip()(torch.tensor([[1.0, 2.0]]))
    (tensor([[-1., -2.]]), tensor([0.]))
    """

    @abstractmethod
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map base to data: (n, d) -> x (n, d), log|det dx/dz| (n,)."""

    @abstractmethod
    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map data to base: (n, d) -> z (n, d), log|det dz/dx| (n,)."""


class Standardize(Transform):
    """The fixed affine map x = mean + std * z, fitted on the training set.

    It lets the transforms of a flow learn in whitened coordinates while every log_prob and every
    sample stays in the data's own.

    Args:
        mean: of the training points, (d,).
        std: of the training points, (d,), positive.

    >>> standardize = Standardize(mean=torch.tensor([1.0, 2.0]), std=torch.tensor([1.0, 2.0]))
    >>> x, log_det = standardize(torch.ones(1, 2))
    >>> x, log_det  # log 1 + log 2
    (tensor([[2., 4.]]), tensor([0.6931]))
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone())  # a caller may pass one tensor twice
        self.register_buffer("std", std.clone())

    @property
    def dim(self) -> int:
        """The number of coordinates, d."""
        return len(self.mean)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean + self.std * z, self.std.log().sum().expand(len(z))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x - self.mean) / self.std, -self.std.log().sum().expand(len(x))


class Flow(nn.Module):
    """A base distribution carried to data by a sequence of transforms, in nats.

    Points may be of any floating dtype, and what a method returns is of the same one. The
    transforms compute in the flow's own; the whitening, where large offsets would lose digits, in
    the finer of both. Points of another shape, kind or device are refused.

    Args:
        transforms: the maps in whitened coordinates, in the order base -> data.
        standardize: the fixed map from whitened to data coordinates; it has the dimension d. It
            is a `Whiten` where the data are a table.
        base: what is carried; None is the standard normal law.

    >>> from flowtrain.flows.linear import Permute
    >>> standardize = Standardize(mean=torch.ones(2), std=torch.full((2,), 0.5))
    >>> flow = Flow([Permute(torch.tensor([1, 0]))], standardize)
    >>> x = flow.sample(4)
    >>> torch.allclose(flow(flow.inverse(x)[0])[0], x, atol=1e-6)
    True
    >>> flow.log_prob(torch.ones(1, 2))  # at the mean: -log 2π - 2 log 0.5
    tensor([-0.4516])
    """

    def __init__(
        self,
        transforms: Iterable[Transform],
        standardize: "Standardize | Whiten",
        base: Base | None = None,
    ) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)
        self.standardize = standardize
        self.base = base or Normal(standardize.dim)

    @property
    def dim(self) -> int:
        """The dimension d of z and x."""
        return self.standardize.dim

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.standardize.buffers()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights, and of the base points that are drawn."""
        return next(chain(self.parameters(), self.standardize.buffers())).dtype

    @property
    def points_dtype(self) -> torch.dtype:
        """The type that keeps all digits of the data: the whitening's; samples have it."""
        return next(self.standardize.buffers()).dtype

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map base to data: (n, d) -> x (n, d), log|det dx/dz| (n,)."""
        x = self.accept(z)
        log_det = x.new_zeros(len(x))
        for transform in self.transforms:
            x, term = transform(x)
            log_det = log_det + term
        x, term = self.standardize(x.to(z.dtype))
        return x.to(z.dtype), (log_det + term).to(z.dtype)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map data to base: (n, d) -> z (n, d), log|det dz/dx| (n,)."""
        z, log_det = self.whiten(x)
        for transform in reversed(self.transforms):
            z, term = transform.inverse(z)  # type: ignore[operator]
            log_det = log_det + term
        return z.to(x.dtype), log_det.to(x.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log q(x) in nats, (n, d) -> (n,)."""
        z, log_det = self.inverse(x)
        return self.base.log_prob(z) + log_det

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points, (n, d). Without a generator, torch's default one is used."""
        return self.to_data(self.sample_base(n, generator).to(self.points_dtype))

    @torch.no_grad()
    def sample_with_log_prob(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw the points of `sample`, (n, d), and their log q in nats, (n,), in one direction.

        log q is the base's at z less the log-determinant on the way: no inverse is taken.
        """
        z = self.sample_base(n, generator).to(self.points_dtype)
        x, log_det = self(z)
        return x, self.base.log_prob(z) - log_det

    def to_data(self, z: Tensor) -> Tensor:
        """Map base to data, (n, d) -> (n, d): `forward` without its log-determinant."""
        return self.forward(z)[0]

    def sample_base(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points of the base, (n, d), on the generator's device and then moved to ours."""
        device = self.device if generator is None else generator.device
        z = self.base.sample(n, generator, dtype=self.dtype, device=device)
        return z.to(self.device)

    def accept(self, points: Tensor) -> Tensor:
        """Return points (n, d) in the flow's dtype.

        Raises:
            TypeError: they are no tensor of floating-point numbers.
            ValueError: their shape or device is another.

        >>> from flowtrain import load
        >>> load(run_folder).log_prob(torch.zeros(2))
        Traceback (most recent call last):
            ...
        ValueError: points must have shape (n, 2), got (2,): for a single one, x[None]
        """
        if not isinstance(points, Tensor):
            kind = f"{type(points).__module__}.{type(points).__name__}"
            raise TypeError(f"points must be a torch tensor, got {kind}: try torch.as_tensor(x)")
        if not points.is_floating_point():
            raise TypeError(f"points must be floating-point, got {points.dtype}: try x.double()")
        if points.dim() != 2 or points.shape[1] != self.dim:
            hint = ": for a single one, x[None]" if points.shape == (self.dim,) else ""
            raise ValueError(
                f"points must have shape (n, {self.dim}), got {(*points.shape,)}{hint}"
            )
        if points.device != self.device:
            raise ValueError(
                f"the points are on {points.device}, the flow on {self.device}: "
                "try x.to(flow.device)"
            )
        return points.to(self.dtype)

    def whiten(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map data to whitened coordinates, (n, d), in the flow's dtype, with its log-determinant.

        Raises:
            TypeError, ValueError: as `accept`.
        """
        self.accept(x)
        white, log_det = self.standardize.inverse(x)
        return white.to(self.dtype), log_det.to(self.dtype)

    def distribution(self, generator: torch.Generator | None = None) -> "FlowDistribution":
        """Return the flow as a `torch.distributions.Distribution` over points (d,)."""
        from flowtrain.flows.distribution import FlowDistribution

        return FlowDistribution(self, generator=generator)
