"""A flow as a `torch.distributions.Distribution`, for code that speaks that language."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from flowtrain.flows.flow import Flow


class FlowDistribution(Distribution):
    """The distribution of a flow's samples: an event is a point (d,), in data coordinates.

    Gradients reach the weights through both `rsample` and `log_prob`. Batches, by `expand`, are
    independent draws of the one distribution; a batch of conditions is one of p(x | c) each.

    Args:
        flow: the model; its weights are shared, not copied.
        context: conditions, (*batch_shape, context_dim); None for a flow without one.
        generator: draws the samples; without one, torch's default generator does.
        batch_shape: of independent draws that count as one batch; a condition is repeated.
        validate_args: check the shape and the values given to `log_prob`; None is torch's default.

    Raises:
        TypeError, ValueError: context, as `Flow.accept_context`.

    >>> from flowtrain import load
    >>> distribution = FlowDistribution(load(run_folder))  # or load(run_folder).distribution()
    >>> x = distribution.sample((4, 3))
    >>> x.shape, distribution.log_prob(x).shape
    (torch.Size([4, 3, 2]), torch.Size([4, 3]))
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        flow: Flow,
        *,
        context: Tensor | None = None,
        generator: torch.Generator | None = None,
        batch_shape: _size = (),
        validate_args: bool | None = None,
    ) -> None:
        self.flow = flow
        self.context = context
        self.generator = generator
        shape = torch.Size(batch_shape)
        if context is not None:
            shape = torch.broadcast_shapes(shape, context.shape[:-1])
        self._condition(shape)  # refused here, not at the first draw
        super().__init__(shape, torch.Size([flow.dim]), validate_args)

    def expand(self, batch_shape: _size, _instance: Any = None) -> "FlowDistribution":
        """Return the distribution of a batch of independent draws."""
        return FlowDistribution(
            self.flow,
            context=self.context,
            generator=self.generator,
            batch_shape=batch_shape,
            validate_args=self._validate_args,
        )

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """Draw points, (*sample_shape, *batch_shape, d), differentiable in the flow's weights."""
        shape = self._extended_shape(sample_shape)
        z = self.flow.sample_base(math.prod(shape[:-1]), self.generator)
        x = self.flow.to_data(z.to(self.flow.points_dtype), self._condition(shape[:-1]))
        return x.reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log q in nats, (..., d) -> (...), broadcast against the batch shape.

        Raises:
            ValueError: arguments are validated, and the shape does not fit or a value is NaN.
        """
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape, self.batch_shape + self.event_shape)
        rows = value.expand(shape).reshape(-1, self.flow.dim)
        return self.flow.log_prob(rows, self._condition(shape[:-1])).reshape(shape[:-1])

    def _condition(self, shape: _size) -> Tensor | None:
        """Return the condition of each event of a batch, (n, context_dim)."""
        rows = self.context
        if rows is not None and rows.dim() > 1:
            rows = rows.expand(*shape, -1).reshape(math.prod(shape), -1)
        return self.flow.accept_context(rows, math.prod(shape))
