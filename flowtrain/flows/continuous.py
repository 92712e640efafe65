"""Continuous flows, FFJORD among them (arXiv 1810.01367), and what only they can do."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from flowtrain.config.model import EXACT_EVALUATION_UP_TO
from flowtrain.config.solver import Solver
from flowtrain.flows.bases import Base
from flowtrain.flows.cnf import CNF, Divergence, choose_divergence
from flowtrain.flows.fields import GivenField
from flowtrain.flows.flow import Flow, Standardize
from flowtrain.flows.ode import Evaluations
from flowtrain.flows.whiten import Whiten

SCALE = 3.0  # of the waves: rings by flow matching, 3,400 steps: KL 0.10, without waves above 0.5


@dataclass(frozen=True)
class Likelihood:
    """A continuous flow's likelihood, and what the same solve integrated beside it.

    Attributes:
        log_prob: in nats, (n,).
        kinetic: the integral of |f|^2 along each path, (n,); None where nobody asked for it.
        jacobian: the integral of |df/dz|^2_F along each path, (n,), likewise.
        evaluations: of the field.

    >>> from flowtrain import load
    >>> found = load(ffjord_folder).likelihood(torch.zeros(5, 2), kinetic=True)
    >>> found.log_prob.shape, found.kinetic.shape, found.jacobian
    (torch.Size([5]), torch.Size([5]), None)
    """

    log_prob: Tensor
    kinetic: Tensor | None
    jacobian: Tensor | None
    evaluations: Evaluations


class ContinuousFlow(Flow):
    """A flow of one `CNF` in whitened coordinates, then the fixed `Standardize`.

    Every figure comes from its own solver and divergence, those of evaluation; training passes
    its own to `likelihood`.

    Args:
        cnf: the continuous transform.
        standardize: the fixed map from whitened to data coordinates.
        training_divergence: what an objective should pass to `likelihood`; None is the CNF's own.
        base: what is carried; None is the standard normal law.

    >>> from flowtrain import load
    >>> flow = load(ffjord_folder)
    >>> flow.trajectory(3, times=torch.linspace(0, 1, 5)).shape  # of 3 points at 5 times
    torch.Size([5, 3, 2])
    >>> x = flow.sample(4)
    >>> torch.equal(flow.log_prob_at(1.0, x), flow.log_prob(x))
    True
    """

    def __init__(
        self,
        cnf: CNF,
        standardize: Standardize | Whiten,
        *,
        training_divergence: Divergence | None = None,
        base: Base | None = None,
    ) -> None:
        super().__init__([cnf], standardize, base)
        self.training_divergence = training_divergence or cnf.divergence

    @property
    def cnf(self) -> CNF:
        """The continuous transform."""
        return cast(CNF, self.transforms[0])

    @property
    def solver(self) -> Solver:
        """The solver of evaluation."""
        return self.cnf.solver

    def likelihood(
        self,
        x: Tensor,
        generator: torch.Generator | None = None,
        *,
        context: Tensor | None = None,
        t: float = 1.0,
        solver: Solver | None = None,
        divergence: Divergence | None = None,
        kinetic: bool = False,
        jacobian: bool = False,
    ) -> Likelihood:
        """Return log_prob of x, (n, d) -> (n,), in nats, with the penalties asked for.

        Penalties are integrals along the same path, in whitened coordinates; they never enter
        log_prob.

        Args:
            x: points in data coordinates, (n, d).
            generator: draws the probes of an estimated divergence; None lets each row decide its
                own (`Divergence`).
            context: the condition of each point, (n, context_dim), of a flow that has one.
            t: the time in [0, 1] at which the flow is stopped.
            solver: None is the flow's own, that of evaluation.
            divergence: None is the flow's own, that of evaluation.
            kinetic: integrate the kinetic energy.
            jacobian: integrate the Jacobian's squared Frobenius norm.

        Raises:
            SolverError: the solver cannot go on.
        """
        white, log_det = self.whiten(x)
        context = self.accept_context(context, len(x))
        if t == 0:
            log_prob = (self.base.log_prob(white) + log_det).to(x.dtype)
            zero = torch.zeros_like(log_prob)  # the integral along no path
            return Likelihood(
                log_prob, zero if kinetic else None, zero if jacobian else None, Evaluations()
            )
        solution = self.cnf.solve(
            white,
            t,
            0.0,
            context=context,
            log_det=True,
            kinetic=kinetic,
            jacobian=jacobian,
            generator=generator,
            solver=solver,
            divergence=divergence,
        )
        log_prob = self.base.log_prob(solution.end) + cast(Tensor, solution.log_det) + log_det
        return Likelihood(
            log_prob.to(x.dtype), solution.kinetic, solution.jacobian, solution.evaluations
        )

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return log q(x), or log q(x | c), in nats, (n, d) -> (n,), by the flow's own solver."""
        return self.likelihood(x, context=context).log_prob

    def log_prob_at(self, t: float, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the log-density in nats of the flow stopped at time t in [0, 1], (n, d) -> (n,).

        At t = 1 it is `log_prob`; x is in data coordinates throughout.
        """
        return self.likelihood(x, context=context, t=t).log_prob

    def to_data(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Map base to data, (n, d) -> (n, d): one solve of z alone, without a trace."""
        given = self.accept_context(context, len(z))
        end = self.cnf.solve(self.accept(z), 0.0, 1.0, context=given).end
        x: Tensor = self.standardize(end.to(z.dtype))[0]
        return x.to(z.dtype)

    def velocity(self, t: float | Tensor, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Return dz/dt at z, (n, d), in the whitened coordinates in which the ODE lives.

        Args:
            t: one time for all rows, or each row's own, (n,).
            z: (n, d).
            context: the condition of each point, (n, context_dim), of a flow that has one.
        """
        own, given = self.accept(z), self.accept_context(context, len(z))
        time = torch.as_tensor(t, dtype=own.dtype, device=own.device)
        condition = () if given is None else (given,)
        velocity: Tensor = self.cnf.field(time, own, own.new_empty(0, *own.shape), *condition)[0]
        return velocity.to(z.dtype)

    @torch.no_grad()
    def trajectory(
        self,
        z: Tensor | int,
        times: Tensor,
        generator: torch.Generator | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """Return the paths of base points in data coordinates, (m, n, d).

        Args:
            z: base points, (n, d), or how many to draw.
            times: strictly increasing, in [0, 1], (m,).
            generator: draws the base points.
            context: the condition of each point, (n, context_dim), of a flow that has one.

        Raises:
            ValueError: no times, or times that do not increase strictly within [0, 1].
        """
        inside = ((times >= 0) & (times <= 1)).all()
        if not (len(times) and inside and (times.diff() > 0).all()):
            raise ValueError(f"times must increase strictly within [0, 1], got {times.tolist()}")
        given = self.sample_base(z, generator) if isinstance(z, int) else z
        start = self.accept(given)
        condition = self.accept_context(context, len(start))
        if len(times) > 1 or times[0] > 0:
            since_base = torch.cat([times.new_zeros(1), times[times > 0]])
            path = self.cnf.path(start, since_base, condition)[-len(times) :]
        else:
            path = start[None]
        return torch.stack([self.standardize(points)[0] for points in path.to(given.dtype)])

    @torch.no_grad()
    def evolution(
        self, z: Tensor, times: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the paths of base points in data coordinates, and the log-density along them.

        One solve gives the density of every moment, where `log_prob_at` needs one for each.

        Args:
            z: base points, (n, d).
            times: strictly increasing from 0, in [0, 1], (m,) with m > 1.
            context: the condition of each point, (n, context_dim), of a flow that has one.

        Returns:
            The points, (m, n, d), and the log-density in nats of the flow stopped there, (m, n).
        """
        given = self.accept_context(context, len(z))
        path, log_dets = self.cnf.path_with_log_det(self.accept(z), times, given)
        log_base = self.base.log_prob(path[0])
        moments = [self.standardize(points) for points in path.to(z.dtype)]
        x = torch.stack([points for points, _ in moments])
        log_prob = torch.stack([log_base - more for _, more in moments]) - log_dets
        return x.to(z.dtype), log_prob.to(z.dtype)

    def with_solver(self, solver: Solver) -> "ContinuousFlow":
        """Return this flow, weights shared, evaluated by another solver."""
        return self._with(self.cnf.field, solver, self.context_dim)

    def with_field(self, field: nn.Module) -> "ContinuousFlow":
        """Return this flow with another field in the place of its own, all else shared."""
        return self._with(field, self.solver, self.context_dim)

    def given(self, context: Tensor) -> "ContinuousFlow":
        """Return p(x | c) of one condition, (context_dim,), as a flow without one, weights shared.

        Raises:
            ValueError: the flow has no condition, or one of another shape.
        """
        return self._with(GivenField(self.cnf.field, self.one_context(context)), self.solver, 0)

    def _with(self, field: nn.Module, solver: Solver, context_dim: int) -> "ContinuousFlow":
        cnf = CNF(
            field,
            dim=self.dim,
            solver=solver,
            divergence=self.cnf.divergence,
            context_dim=context_dim,
        )
        flow = ContinuousFlow(
            cnf,
            self.standardize,
            training_divergence=self.training_divergence,
            base=self.base,
        ).train(self.training)
        flow.condition = self.condition if context_dim else None
        return flow


def ffjord(
    standardize: Standardize | Whiten,
    *,
    field: Callable[..., nn.Module],
    width: int,
    depth: int,
    activation: str,
    divergence: str,
    probes: int | None,
    noise: Literal["rademacher", "gaussian"] | None,
    solver: Solver,
    generator: torch.Generator,
    features: int | None = None,
    scale: float | None = None,
    context_dim: int = 0,
) -> ContinuousFlow:
    """Build FFJORD: a field, its divergence and the solver of evaluation, in whitened coordinates.

    Args:
        standardize: the fixed map to data coordinates; it has the dimension.
        field: a class of vector fields, called with (dim, width=, depth=, activation=).
        width: hidden units of a layer.
        depth: hidden layers.
        activation: a name of `smooth.SMOOTH`.
        divergence: of training: "exact", "hutchinson" or "auto"; evaluation is exact up to
            `EXACT_EVALUATION_UP_TO` dimensions.
        probes: of hutchinson; None is 1.
        noise: of hutchinson; None is rademacher.
        solver: of evaluation.
        generator: draws the waves of `fields.Fourier`; weights come from torch's own.
        features: of `fields.Fourier`, which is called with (features=, scale=, generator=) too.
        scale: likewise; None is `SCALE` in the plane, SCALE sqrt(2 / d) in d dimensions.
        context_dim: numbers of a condition; a field that has one is called with it too.

    Raises:
        ValueError: probes or noise are given and the trace is exact.

    >>> from flowtrain.config.solver import Adaptive
    >>> from flowtrain.flows import Standardize, fields
    >>> flow = ffjord(
    ...     Standardize(torch.zeros(2), torch.ones(2)), field=fields.ConcatSquash, width=8, depth=1,
    ...     activation="tanh", divergence="auto", probes=None, noise=None,
    ...     solver=Adaptive(name="dopri5", rtol=1e-5, atol=1e-5), generator=torch.Generator())
    >>> flow.training_divergence  # exact in two dimensions
    Divergence(probes=None, noise='rademacher')
    """
    dim = standardize.dim
    trained = choose_divergence(divergence, dim, probes=probes, noise=noise)
    evaluated = Divergence() if dim <= EXACT_EVALUATION_UP_TO else trained
    more: dict[str, Any] = {"context_dim": context_dim} if context_dim else {}
    if features is not None:
        if scale is None:  # however many coordinates, a unit of length has as many waves
            scale = SCALE * math.sqrt(2 / dim)
        more |= {"features": features, "scale": scale, "generator": generator}
    cnf = CNF(
        field(dim, width=width, depth=depth, activation=activation, **more),
        dim=dim,
        solver=solver,
        divergence=evaluated,
        context_dim=context_dim,
    )
    return ContinuousFlow(cnf, standardize, training_divergence=trained)
