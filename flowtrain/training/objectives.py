"""What training minimises: (flow, batch, generator) -> loss, and the scalars worth a curve."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from flowtrain.config.own_code import in_one_line
from flowtrain.config.solver import Solver
from flowtrain.densities.conditional import Conditional, log_prob_under
from flowtrain.densities.density import Density
from flowtrain.errors import ConfigError
from flowtrain.flows.bases import Normal
from flowtrain.flows.cnf import Divergence
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.flow import Flow

# A function, called only when its scalars are logged, and after the backward pass: an adjoint
# solve counts its evaluations there.
Scalars = Callable[[], dict[str, float]]


class Objective(Protocol):
    """A loss of a flow on a batch of points (n, d), and what else is worth a curve.

    Conditions of the points, (n, c), are a fourth argument where the data have some. Returns a
    scalar to minimise and a function without arguments that gives scalars by tag; `dict` gives
    none.
    """

    def __call__(
        self, flow: Flow, x: Tensor, generator: torch.Generator, context: Tensor | None = None
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

    def __call__(
        self, flow: Flow, x: Tensor, generator: torch.Generator, context: Tensor | None = None
    ) -> tuple[Tensor, Scalars]:
        if not isinstance(flow, ContinuousFlow):
            nll = self.loss(flow, x, context)
            return nll, self.scalars(nll)
        found = flow.likelihood(
            x,
            generator,
            context=context,
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

    def draw(self, flow: Flow, x: Tensor, generator: torch.Generator) -> tuple[()]:
        """Return all that is random of a batch beside its points: nothing."""
        return ()

    def loss(self, flow: Flow, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the NLL of a batch in nats, (): all that is minimised of a discrete flow."""
        return -flow.log_prob(x, context).mean()

    def scalars(self, loss: Tensor) -> Scalars:
        """Return what is worth a curve of a discrete flow: its loss is the NLL."""
        return lambda: {"nll/batch": loss.item()}


@dataclass(frozen=True)
class ReverseKL:
    """KL(model | data) at the flow's own samples: variational inference, arXiv 1505.05770, eq. 15.

    loss = E log q(x) - log p(x), x = flow(z): log Z - ELBO where p = exp(-U) / Z. The batch of
    data says how many samples, and at which conditions, and nothing else: the target is known by
    its log-density alone. A Gaussian base is covered by a shifted Sobol sequence (arXiv
    1807.01604): the gradient is as unbiased as that of independent samples, and less noisy.

    The gradient has a part that is zero on average, that of log q by its weights at given points.
    "path" leaves it out (arXiv 1703.09194, eq. 7): its noise is zero where q = p, at the cost of
    an inverse each step. Far from p it holds the slope of log q, which has no bound where a flow
    is steep: splines lose a part of the target there, and may never find it again.

    **Annealing.** For the first part of the run the target is p^beta r^(1 - beta), beta from 0 to
    1, where r is the Gaussian of the whitening, at which a flow begins: the geometric bridge of
    annealed importance sampling (Neal 2001). A mode that p separates by a desert can still be
    reached while the bridge is broad.

    Args:
        density: p, which must be positive wherever the flow may go.
        gradient: "total" or "path".
        annealing: the part of the run in which beta grows; 0 leaves p as it is.
        solver: of training, for a continuous flow; None is the flow's own.
        beta: of the bridge.

    >>> from flowtrain import load
    >>> from flowtrain.densities import Banana
    >>> flow, generator = load(run_folder), torch.Generator().manual_seed(0)
    >>> objective = ReverseKL(Banana(spread=1.0, noise=0.3, curvature=0.5), gradient="path")
    >>> loss, _ = objective(flow, flow.sample(8), generator)
    >>> loss.shape, loss.item() > 0
    (torch.Size([]), True)
    """

    density: Density | Conditional
    gradient: str
    annealing: float = 0.0
    solver: Solver | None = None
    beta: float = 1.0

    def at(self, done: float) -> "ReverseKL":
        """Return the objective as it is after a fraction of the run."""
        return self if done >= self.annealing else replace(self, beta=done / self.annealing)

    def __call__(
        self, flow: Flow, x: Tensor, generator: torch.Generator, context: Tensor | None = None
    ) -> tuple[Tensor, Scalars]:
        if self.solver is not None and isinstance(flow, ContinuousFlow):
            flow = flow.with_solver(self.solver)
        z = flow.base.sample_evenly(len(x), generator, dtype=flow.dtype, device=generator.device)
        z = z.to(flow.device)
        samples, log_det = flow(z, context)
        if self.gradient == "path":
            with _frozen(flow):
                log_q = flow.log_prob(samples, context)
        else:
            log_q = flow.base.log_prob(z) - log_det
        log_p = log_prob_under(self.density, samples, context)
        kl = (log_q - log_p).mean()

        def scalars() -> dict[str, float]:
            if isinstance(self.density, Density) and not self.density.normalized:
                return {"elbo/batch": -kl.item()}
            return {"kl_reverse/batch": kl.item()}

        if self.beta == 1:
            return kl, scalars
        white, log_det = flow.whiten(samples)
        start = Normal(flow.dim).log_prob(white) + log_det
        loss = (log_q - torch.lerp(start, log_p, self.beta)).mean()
        return loss, lambda: {**scalars(), "annealing/beta": self.beta}


@contextmanager
def _frozen(flow: Flow) -> Iterator[None]:
    """Record no gradient of a flow's weights, only of what passes through it."""
    weights = [weight for weight in flow.parameters() if weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


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
    given = (x.new_zeros(8, flow.context_dim),) if flow.context_dim else ()
    try:
        found = objective(flow, x, generator, *given)  # type: ignore[operator]
    except Exception as error:
        raise ConfigError(f"objective: {in_one_line(error)}") from error
    several = isinstance(found, tuple | list)
    if not (several and len(found) == 2 and callable(found[1])):
        what = f"({', '.join(map(_kind, found))})" if several else _kind(found)
        raise ConfigError(
            "objective: it must return (loss, function of the scalars to log), "
            f"got {what}; a function of no scalars is dict"
        )
    loss, scalars = found
    try:
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


def _kind(value: object) -> str:
    return type(value).__name__
