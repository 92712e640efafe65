"""What training minimises: (flow, batch, generator) -> loss, and the scalars worth a curve."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from flowtrain.flows import ContinuousFlow, Flow

# Read only when they are logged, and after the backward pass, which may add to them.
Scalars = Callable[[], dict[str, float]]


class Objective(Protocol):
    """A loss of a flow on a batch of points, (n, d)."""

    def __call__(
        self, flow: Flow, x: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Scalars]: ...


def maximum_likelihood(flow: Flow, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Scalars]:
    """Return the mean negative log-likelihood, in nats."""
    return -flow.log_prob(x).mean(), dict


@dataclass(frozen=True)
class RegularizedLikelihood:
    """Maximum likelihood of a continuous flow, with penalties on its path (arXiv 2002.02798).

    loss = NLL + kinetic * int E|f|^2 dt + jacobian * int E|df/dz|^2_F dt. A penalty of weight
    zero is not integrated.
    """

    kinetic: float
    jacobian: float

    def __call__(self, flow: Flow, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Scalars]:
        assert isinstance(flow, ContinuousFlow)
        found = flow.likelihood(x, generator, kinetic=self.kinetic > 0, jacobian=self.jacobian > 0)
        loss = -found.log_prob.mean()
        logged: dict[str, float | Tensor] = {}
        for name, weight in (("kinetic", self.kinetic), ("jacobian", self.jacobian)):
            penalty: Tensor | None = getattr(found, name)
            if penalty is not None:
                mean = penalty.mean()
                loss = loss + weight * mean
                logged[f"regularization/{name}"] = mean.detach()
                logged[f"regularization/{name}_weighted"] = weight * mean.detach()

        def scalars() -> dict[str, float]:
            return {
                "nfe/forward": found.evaluations.forward,
                "nfe/backward": found.evaluations.backward,
                **{tag: float(value) for tag, value in logged.items()},
            }

        return loss, scalars
