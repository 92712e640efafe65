"""The contract of every flow: two directions, and what follows from them.

Direction, stated once: ``z`` is base (t = 0) and ``x`` is data (t = 1). ``forward`` maps z to x,
``inverse`` maps x to z, and each returns the log-determinant of its own Jacobian.

A flow may be conditional, p(x | c): then its methods take the condition of each point, encoded as
numbers, as ``context``.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn

from flowtrain.flows.bases import Base, Normal

if TYPE_CHECKING:
    from flowtrain.flows.distribution import FlowDistribution
    from flowtrain.flows.whiten import Whiten


class Transform(nn.Module, ABC):
    """An invertible map of R^d. Everything fixed (masks, permutations, scales) is a buffer.

    Attributes:
        context_dim: how many numbers of a condition it depends on. Where there are some, its two
            methods take them as a second argument, (n, context_dim).

    >>> class Flip(Transform):
    ...     def forward(self, z):
    ...         return -z, z.new_zeros(len(z))
    ...     inverse = forward
    >>> Flip()(torch.tensor([[1.0, 2.0]]))
    (tensor([[-1., -2.]]), tensor([0.]))
    """

    context_dim: int = 0

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


class Encoder(Protocol):
    """What turns words and numbers into the context of a flow.

    >>> class Sign:
    ...     def encode(self, given):
    ...         return torch.tensor([1.0 if given["sign"] == "+" else -1.0])
    >>> encoder: Encoder = Sign()
    >>> encoder.encode({"sign": "+"})
    tensor([1.])
    """

    def encode(self, given: Mapping[str, Any]) -> Tensor:
        """Return the context of a value for each name, (c,), or of n values of each, (n, c)."""
        ...


class Flow(nn.Module):
    """A base distribution carried to data by a sequence of transforms, in nats.

    Points may be of any floating dtype, and what a method returns is of the same one. The
    transforms compute in the flow's own; the whitening, where large offsets would lose digits, in
    the finer of both. Points of another shape, kind or device are refused.

    Where transforms depend on a condition the flow is p(x | c), and every method needs `context`:
    a condition for each point, (n, context_dim), or one for all, (context_dim,). `given` fixes it.

    Args:
        transforms: the maps in whitened coordinates, in the order base -> data.
        standardize: the fixed map from whitened to data coordinates; it has the dimension d. It
            is a `Whiten` where the data are a table.
        base: what is carried; None is the standard normal law.

    Attributes:
        context_dim: numbers of a condition; 0 where there is none.
        condition: what turns a user's words into context, where the flow is of a run; else None.

    Raises:
        ValueError: transforms depend on conditions of different sizes; of the methods: context is
            missing, of another shape or device, or given to a flow without a condition.

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
        ordered = list(transforms)
        sizes = {transform.context_dim for transform in ordered} - {0}
        if len(sizes) > 1:
            raise ValueError(f"transforms depend on conditions of different sizes: {sorted(sizes)}")
        self.transforms = nn.ModuleList(ordered)
        self.standardize = standardize
        self.base = base or Normal(standardize.dim)
        self.context_dim = max(sizes, default=0)
        self.condition: Encoder | None = None

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
        """The type of the transforms' weights, and of the base points that are drawn."""
        return next(chain(self.transforms.parameters(), self.standardize.buffers())).dtype

    @property
    def points_dtype(self) -> torch.dtype:
        """The type that keeps all digits of the data: the whitening's; samples have it."""
        return next(self.standardize.buffers()).dtype

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map base to data: (n, d) -> x (n, d), log|det dx/dz| (n,)."""
        x = self.accept(z)
        given = self.accept_context(context, len(z))
        log_det = x.new_zeros(len(x))
        for transform in self.transforms:
            x, term = transform(x, given) if transform.context_dim else transform(x)
            log_det = log_det + term
        x, term = self.standardize(x.to(z.dtype))
        return x.to(z.dtype), (log_det + term).to(z.dtype)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map data to base: (n, d) -> z (n, d), log|det dz/dx| (n,)."""
        z, log_det = self.whiten(x)
        given = self.accept_context(context, len(x))
        for transform in reversed(self.transforms):
            backwards: Any = transform.inverse
            z, term = backwards(z, given) if transform.context_dim else backwards(z)
            log_det = log_det + term
        return z.to(x.dtype), log_det.to(x.dtype)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return log q(x), or log q(x | c), in nats, (n, d) -> (n,)."""
        z, log_det = self.inverse(x, context)
        return self.base.log_prob(z) + log_det

    @torch.no_grad()
    def sample(
        self, n: int, generator: torch.Generator | None = None, context: Tensor | None = None
    ) -> Tensor:
        """Draw n points, (n, d). Without a generator, torch's default one is used."""
        return self.to_data(self.sample_base(n, generator).to(self.points_dtype), context)

    @torch.no_grad()
    def sample_with_log_prob(
        self, n: int, generator: torch.Generator | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw the points of `sample`, (n, d), and their log q in nats, (n,), in one direction.

        log q is the base's at z less the log-determinant on the way: no inverse is taken.
        """
        z = self.sample_base(n, generator).to(self.points_dtype)
        x, log_det = self(z, context)
        return x, self.base.log_prob(z) - log_det

    def to_data(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Map base to data, (n, d) -> (n, d): `forward` without its log-determinant."""
        return self.forward(z, context)[0]

    def given(self, context: Tensor) -> "Flow":
        """Return p(x | c) of one condition, (context_dim,), as a flow without one, weights shared.

        Raises:
            ValueError: the flow has no condition, or one of another shape.

        >>> from flowtrain.flows.linear import ConditionalLinear
        >>> layer = ConditionalLinear(dim=2, context_dim=1)
        >>> flow = Flow([layer], Standardize(torch.zeros(2), torch.ones(2)))
        >>> flow.given(torch.ones(1)).log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
        """
        condition, transforms = self.one_context(context), cast(list[Transform], self.transforms)
        return Flow(
            (Given(each, condition) if each.context_dim else each for each in transforms),
            self.standardize,
            self.base,
        ).train(self.training)

    def sample_base(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points of the base, (n, d), on the generator's device and then moved to ours.

        Raises:
            TypeError: n is no whole number, or the generator is none of torch's.
            ValueError: n is negative.
        """
        if not hasattr(n, "__index__"):
            raise TypeError(f"n must be a whole number of points, got {n!r}")
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(
                f"generator must be a torch.Generator, got {generator!r}: "
                "try torch.Generator().manual_seed(0)"
            )
        if n < 0:
            raise ValueError(f"n must be 0 or more points, got {n}")
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

    def accept_context(self, context: Tensor | None, n: int) -> Tensor | None:
        """Return the conditions of n points, (n, context_dim), in the flow's dtype; or None.

        Args:
            context: (n, context_dim); or (context_dim,), that of all points; None for a flow
                without a condition.
            n: how many points.

        Raises:
            TypeError: it is no tensor of floating-point numbers.
            ValueError: it is missing, not expected, or of another shape or device.

        >>> from flowtrain import load
        >>> load(run_folder).log_prob(torch.zeros(5, 2), context=torch.zeros(5, 1))
        Traceback (most recent call last):
            ...
        ValueError: this flow has no condition: leave context out
        """
        if not self.context_dim:
            if context is not None:
                raise ValueError("this flow has no condition: leave context out")
            return None
        if context is None:
            raise ValueError(
                f"this flow is of p(x | c): context is needed, of shape ({n}, {self.context_dim})"
            )
        if not isinstance(context, Tensor) or not context.is_floating_point():
            got = context.dtype if isinstance(context, Tensor) else type(context).__name__
            raise TypeError(f"context must be a floating-point torch tensor, got {got}")
        # Compared one by one, as a tracer can follow it, and worded only where it is refused.
        one_for_all = context.dim() == 1 and context.shape[0] == self.context_dim
        if not one_for_all and (
            context.dim() != 2 or context.shape[0] != n or context.shape[1] != self.context_dim
        ):
            raise ValueError(
                f"context must have shape ({n}, {self.context_dim}), or ({self.context_dim},) for "
                f"all points alike, got {(*context.shape,)}"
            )
        if context.device != self.device:
            raise ValueError(
                f"the context is on {context.device}, the flow on {self.device}: "
                "try context.to(flow.device)"
            )
        return context.to(self.dtype).expand(n, -1)

    def one_context(self, context: Tensor) -> Tensor:
        """Return a single condition, (context_dim,), in the flow's dtype.

        Raises:
            TypeError, ValueError: as `accept_context`.
        """
        accepted = self.accept_context(context, 1)
        assert accepted is not None
        return accepted[0]

    def whiten(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map data to whitened coordinates, (n, d), in the flow's dtype, with its log-determinant.

        Raises:
            TypeError, ValueError: as `accept`.
        """
        self.accept(x)
        white, log_det = self.standardize.inverse(x)
        return white.to(self.dtype), log_det.to(self.dtype)

    def distribution(
        self, context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> "FlowDistribution":
        """Return the flow as a `torch.distributions.Distribution` over points (d,).

        Args:
            context: conditions, (*batch_shape, context_dim); None for a flow without one.
            generator: draws the samples; without one, torch's default generator does.
        """
        from flowtrain.flows.distribution import FlowDistribution

        return FlowDistribution(self, context=context, generator=generator)


class Given(Transform):
    """A conditional transform at one condition.

    Args:
        transform: that depends on a condition.
        context: the condition, (context_dim,).

    >>> from flowtrain.flows.linear import ConditionalLinear
    >>> Given(ConditionalLinear(dim=2, context_dim=3), torch.ones(3))(torch.ones(1, 2))[0].tolist()
    [[1.0, 1.0]]
    """

    context: Tensor

    def __init__(self, transform: Transform, context: Tensor) -> None:
        super().__init__()
        self.transform: Any = transform
        self.register_buffer("context", context)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        moved: tuple[Tensor, Tensor] = self.transform(z, self.context.expand(len(z), -1))
        return moved

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        moved: tuple[Tensor, Tensor] = self.transform.inverse(x, self.context.expand(len(x), -1))
        return moved
