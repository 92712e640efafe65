"""What training minimises: (flow, batch, generator) -> loss, and the scalars worth a curve."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from flowtrain.config.own_code import in_one_line
from flowtrain.config.solver import Solver
from flowtrain.errors import ConfigError
from flowtrain.flows.cnf import Divergence
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.flow import Flow

# A function, called only when its scalars are logged, and after the backward pass: an adjoint
# solve counts its evaluations there.
Scalars = Callable[[], dict[str, float]]


class Objective(Protocol):
    """A loss of a flow on a batch of points (n, d), and what else is worth a curve.

    Returns a scalar to minimise and a function without arguments that gives scalars by tag; `dict`
    gives none.
    """

    def __call__(
        self, flow: Flow, x: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Scalars]: ...


@dataclass(frozen=True)
class MaximumLikelihood:
    """Maximum likelihood; of a continuous flow with penalties on its path (arXiv 2002.02798).

    loss = NLL + kinetic * int E|f|^2 dt + jacobian * int E|df/dz|^2_F dt. A penalty of weight
    zero is not integrated. A discrete flow has its NLL alone.

    Args:
        solver: of training, for a continuous flow; None is the flow's own.
        divergence: of training, for a continuous flow; None is the flow's own.
        kinetic: weight of the kinetic energy.
        jacobian: weight of the Jacobian's squared Frobenius norm.

    >>> from flowtrain import load
    >>> flow, generator = load(ffjord_folder), torch.Generator().manual_seed(0)
    >>> loss, scalars = MaximumLikelihood(kinetic=0.01)(flow, flow.sample(8), generator)
    >>> loss.shape, sorted(scalars())[:3]
    (torch.Size([]), ['nfe/backward', 'nfe/forward', 'nll/batch'])
    """

    solver: Solver | None = None
    divergence: Divergence | None = None
    kinetic: float = 0.0
    jacobian: float = 0.0

    def __call__(self, flow: Flow, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Scalars]:
        if not isinstance(flow, ContinuousFlow):
            nll = -flow.log_prob(x).mean()
            return nll, lambda: {"nll/batch": nll.item()}
        found = flow.likelihood(
            x,
            generator,
            solver=self.solver,
            divergence=self.divergence,
            kinetic=self.kinetic > 0,
            jacobian=self.jacobian > 0,
        )
        loss = -found.log_prob.mean()
        logged = {"nll/batch": loss.detach()}
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


@dataclass(frozen=True)
class FlowMatching:
    """Regression of a continuous flow's velocity on given paths, arXiv 2210.02747: solves no ODE.

    loss = E |f(t, z_t) - dz_t/dt|^2 in whitened coordinates, where z_t = a_t x + b_t z goes from a
    base point z to a data point x.

    Args:
        coupling: which z belongs to which x: "independent", or "optimal_transport", the pairing
            of the batch with the least total square distance (arXiv 2302.00482).
        path: "linear", a = t, b = 1 - t; or "variance_preserving", a = sin(pi t / 2),
            b = cos(pi t / 2), whose flow is a diffusion model's probability-flow ODE.
        times: of the batch: "uniform" draws, "stratified" ones, one in each of n equal slices, or
            "logit_normal" draws, which prefer the middle (arXiv 2403.03206).

    >>> from flowtrain import load
    >>> flow, generator = load(ffjord_folder), torch.Generator().manual_seed(0)
    >>> objective = FlowMatching(coupling="optimal_transport", path="linear", times="stratified")
    >>> loss, _ = objective(flow, flow.sample(8), generator)
    >>> loss.shape, loss.item() > 0
    (torch.Size([]), True)
    """

    coupling: str
    path: str
    times: str

    def __call__(self, flow: Flow, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Scalars]:
        assert isinstance(flow, ContinuousFlow)
        data, _ = flow.standardize.inverse(x)
        kind: dict[str, Any] = {"generator": generator, "dtype": x.dtype, "device": x.device}
        base = torch.randn(x.shape, **kind)
        if self.coupling == "optimal_transport":
            base = base[_assignment(data, base)]
        t = self.draw_times(len(x), kind)
        a, b, da, db = (each[:, None] for each in self.coefficients(t))
        residual = flow.velocity(t, a * data + b * base) - (da * data + db * base)
        return residual.square().sum(-1).mean(), dict

    def draw_times(self, n: int, kind: dict[str, Any]) -> Tensor:
        """Draw n times in (0, 1), with a generator, dtype and device."""
        match self.times:
            case "logit_normal":
                return torch.sigmoid(torch.randn(n, **kind))
            case "stratified":  # rows are in random order already
                slices = torch.arange(n, dtype=kind["dtype"], device=kind["device"])
                return (slices + torch.rand(n, **kind)) / n
        return torch.rand(n, **kind)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return a, b of the path z_t = a x + b z and their derivatives, each like t."""
        if self.path == "linear":
            return t, 1 - t, torch.ones_like(t), -torch.ones_like(t)
        quarter = math.pi / 2
        a, b = torch.sin(quarter * t), torch.cos(quarter * t)
        return a, b, quarter * b, -quarter * a


def _assignment(data: Tensor, base: Tensor) -> Tensor:
    """Return the base point that belongs to each data point, (n,), on the device of both."""
    from scipy.optimize import linear_sum_assignment  # 0.2 s that other objectives need not wait

    cost = torch.cdist(data, base).square().cpu().numpy()
    return torch.from_numpy(linear_sum_assignment(cost)[1]).to(data.device)


def check_objective(objective: object, flow: Flow) -> None:
    """Hold an objective of the user's own to the contract, on a few points near the data.

    Args:
        objective: what is to be an `Objective`.
        flow: that it would train.

    Raises:
        ConfigError: it cannot be called, or what it returns is no loss that can be minimised.

    >>> from flowtrain import load
    >>> check_objective(MaximumLikelihood(), load(run_folder))
    >>> check_objective(lambda flow, x, generator: (x.mean(), dict), load(run_folder))
    Traceback (most recent call last):
        ...
    flowtrain.errors.ConfigError: objective: the loss has no gradient: it must depend on the weights
    """
    generator = torch.Generator(flow.device).manual_seed(0)
    x = flow.standardize(flow.sample_base(8, generator))[0]
    try:
        loss, scalars = objective(flow, x, generator)  # type: ignore[operator]
        logged = scalars()
    except Exception as error:
        raise ConfigError(f"objective: {in_one_line(error)}") from error
    if not (isinstance(loss, Tensor) and loss.shape == () and loss.isfinite()):
        got = loss
        if isinstance(loss, Tensor):
            got = f"the shape {(*loss.shape,)}" if loss.shape else loss.item()
        raise ConfigError(f"objective: the loss must be a finite scalar tensor, got {got}")
    if not loss.requires_grad:
        raise ConfigError("objective: the loss has no gradient: it must depend on the weights")
    if not (isinstance(logged, dict) and all(isinstance(v, int | float) for v in logged.values())):
        raise ConfigError(f"objective: scalars() must give numbers by tag, got {logged!r}")
