"""The mixture of several flows' densities, in equal parts, as a flow."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowtrain.flows.bases import Base
from flowtrain.flows.flow import Flow, Standardize


class Ensemble(Base):
    """The law q = sum_r q_r / R of R flows, in data coordinates.

    Of two models of one law, their mean is never worse than they are on average: by Jensen's
    inequality -log q <= -sum_r log q_r / R at every point, so KL(p | q) is at most the mean KL.

    Args:
        flows: of the same data, without a condition.

    >>> from flowtrain import load
    >>> flow = load(run_folder)
    >>> x = flow.sample(5)
    >>> torch.allclose(Ensemble([flow, flow]).log_prob(x), flow.log_prob(x))
    True
    """

    def __init__(self, flows: Sequence[Flow]) -> None:
        super().__init__(flows[0].dim)
        self.flows = nn.ModuleList(flows)

    def log_prob(self, z: Tensor) -> Tensor:
        each = torch.stack([self.of(number).log_prob(z) for number in range(len(self.flows))])
        return each.logsumexp(0) - math.log(len(each))

    def sample(
        self,
        n: int,
        generator: torch.Generator | None,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Tensor:
        """Draw n points, (n, d): each of a flow that is drawn for it. No gradient passes."""
        chosen = torch.randint(len(self.flows), (n,), generator=generator, device=device)
        points = torch.empty(n, self.dim, dtype=dtype, device=device)
        for number in range(len(self.flows)):
            own = chosen == number
            drawn = self.of(number).sample(int(own.sum()), generator)
            points[own] = drawn.to(device, dtype)
        return points

    def cdf(self, z: Tensor) -> Tensor:
        """Refuse: the conditional laws of a mixture of flows have no closed form.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("the conditional laws of a mixture of flows are not known")

    def of(self, number: int) -> Flow:
        """Return one of the flows."""
        flow = self.flows[number]
        assert isinstance(flow, Flow)
        return flow


def mixture(flows: Sequence[Flow]) -> Flow:
    """Return the mixture of flows as one: the identity between it and the data.

    >>> from flowtrain import load
    >>> flow = mixture([load(run_folder, "best"), load(run_folder, "last")])
    >>> flow.sample(5).shape, flow.log_prob(torch.zeros(5, 2)).shape
    (torch.Size([5, 2]), torch.Size([5]))
    """
    first = flows[0]
    one = torch.ones(first.dim, dtype=first.points_dtype, device=first.device)
    return Flow([], Standardize(0 * one, one), Ensemble(flows))
