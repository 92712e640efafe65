"""Continuous flows: a neural ODE dz/dt = f(z, t) from base to data (FFJORD, arXiv 1810.01367)."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from flowtrain.errors import ConfigError
from flowtrain.flows.fields import FIELDS
from flowtrain.flows.flow import Flow, Standardize, Transform, base_log_prob
from flowtrain.flows.ode import Evaluations, Solver, solve

EXACT_UP_TO = 8  # dimensions in which `auto` computes the trace exactly
EXACT_EVALUATION_UP_TO = 64  # and in which evaluation does whatever the divergence


@dataclass(frozen=True)
class Solution:
    """Where a solve ended and what it integrated on the way; None is what nobody asked for.

    Attributes:
        end: the state at the last time, (n, d).
        log_det: the integral of the divergence, in the direction of the solve, (n,).
        kinetic: the integral of |f|^2 over [0, 1], (n,).
        jacobian: the integral of |df/dz|^2_F over [0, 1], (n,), estimated by the same probes.
        evaluations: of the field.
    """

    end: Tensor
    log_det: Tensor | None
    kinetic: Tensor | None
    jacobian: Tensor | None
    evaluations: Evaluations


class CNF(Transform):
    """A continuous transform: base at t = 0, data at t = 1, log-determinant by the divergence.

    d log_det / dt = tr(df/dz) (arXiv 1806.07366, eq. 8). The trace is a sum over probes v of
    v . Jv: the d basis vectors make it exact; k random ones make it Hutchinson's unbiased
    estimate (arXiv 1810.01367, eq. 7), drawn once per solve and fixed during it.

    In training mode (`.train()`) the training solver and the chosen probes are used, in
    evaluation mode (`.eval()`) the evaluation solver, with the exact trace up to
    `EXACT_EVALUATION_UP_TO` dimensions.

    Args:
        field: the vector field, with tangents (`fields`).
        dim: d.
        divergence: "exact", "hutchinson", or "auto": exact up to `EXACT_UP_TO` dimensions.
        probes: of the Hutchinson estimate; None is 1.
        noise: of the Hutchinson estimate, "rademacher" or "gaussian"; None is rademacher.
        solver: in training mode.
        evaluation_solver: in evaluation mode.

    Raises:
        ConfigError: probes or noise are given and the trace is exact.
    """

    def __init__(
        self,
        field: nn.Module,
        *,
        dim: int,
        divergence: str,
        probes: int | None,
        noise: str | None,
        solver: Solver,
        evaluation_solver: Solver,
    ) -> None:
        super().__init__()
        self.field = field
        self.dim = dim
        self.exact = divergence == "exact" or (divergence == "auto" and dim <= EXACT_UP_TO)
        if self.exact and (probes is not None or noise is not None):
            raise ConfigError(
                "model.probes and model.noise belong to the estimated trace, and this one is "
                "exact: leave them null, or set model.divergence=hutchinson"
            )
        self.probes = 1 if probes is None else probes
        self.noise = "rademacher" if noise is None else noise
        self.solver = solver
        self.evaluation_solver = evaluation_solver

    @property
    def has_training_solver(self) -> bool:
        """Whether training solves otherwise than evaluation, and may read another likelihood."""
        return self.solver != self.evaluation_solver

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        solution = self.solve(z, 0.0, 1.0, log_det=True)
        return solution.end, cast(Tensor, solution.log_det)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        solution = self.solve(x, 1.0, 0.0, log_det=True)
        return solution.end, cast(Tensor, solution.log_det)

    def solve(
        self,
        start: Tensor,
        t0: float,
        t1: float,
        *,
        log_det: bool = False,
        kinetic: bool = False,
        jacobian: bool = False,
        generator: torch.Generator | None = None,
    ) -> Solution:
        """Solve the ODE from t0 to t1 with only the extra states that are asked for.

        Args:
            start: the state at t0, (n, d).
            t0: in [0, 1].
            t1: in [0, 1], and not t0.
            log_det: integrate the divergence.
            kinetic: integrate the kinetic energy.
            jacobian: integrate the Jacobian's squared Frobenius norm.
            generator: draws the probes; without one they come from seed 0, so that a log_prob
                is a function of its argument alone.

        Raises:
            SolverError: the solver cannot go on.
        """
        probes = start.new_empty(0, *start.shape)
        if log_det or jacobian:
            probes = self.draw_probes(start, generator)
        asked = {"log_det": log_det, "kinetic": kinetic, "jacobian": jacobian}
        names = [name for name, wanted in asked.items() if wanted]
        extra = start.new_zeros(len(start), len(names))
        times = torch.tensor([t0, t1], dtype=start.dtype, device=start.device)
        states, evaluations = self._integrate(torch.cat([start, extra], -1), times, probes, names)
        end = dict(zip(names, states[-1, :, self.dim :].unbind(-1), strict=True))
        sign = 1.0 if t1 > t0 else -1.0  # penalties are energies: positive in either direction
        return Solution(
            end=states[-1, :, : self.dim],
            log_det=end.get("log_det"),
            kinetic=sign * end["kinetic"] if kinetic else None,
            jacobian=sign * end["jacobian"] if jacobian else None,
            evaluations=evaluations,
        )

    def path(self, start: Tensor, times: Tensor) -> Tensor:
        """Return the states at strictly monotonic times, (m, n, d); the first is the start."""
        probes = start.new_empty(0, *start.shape)
        return self._integrate(start, times.to(start), probes, [])[0]

    def draw_probes(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the probes of one solve, (k, n, d), scaled so that their sum is the trace."""
        n, dim = like.shape
        if self.exact or (not self.training and dim <= EXACT_EVALUATION_UP_TO):
            basis = torch.eye(dim, dtype=like.dtype, device=like.device)
            return basis[:, None].expand(dim, n, dim)
        if generator is None:
            generator = torch.Generator(like.device).manual_seed(0)
        noise = torch.randn(
            self.probes, n, dim, generator=generator, dtype=like.dtype, device=like.device
        )
        if self.noise == "rademacher":
            noise = noise.sign()
        return noise / math.sqrt(self.probes)

    def _integrate(
        self, state: Tensor, times: Tensor, probes: Tensor, names: Sequence[str]
    ) -> tuple[Tensor, Evaluations]:
        solver = self.solver if self.training else self.evaluation_solver
        dtype = solver.dtype or state.dtype
        weights: dict[str, Tensor] = dict(self.field.named_parameters())
        convert = dtype != state.dtype
        if convert:
            weights = {name: weight.to(dtype) for name, weight in weights.items()}
        probes = probes.to(dtype)
        dim = self.dim

        def right_hand_side(t: Tensor, state: Tensor) -> Tensor:
            inputs = (t, state[:, :dim], probes)
            velocity, tangents = (
                functional_call(self.field, weights, inputs) if convert else self.field(*inputs)
            )
            columns = [velocity]
            for name in names:
                match name:
                    case "log_det":
                        columns.append((probes * tangents).sum((0, 2))[:, None])
                    case "kinetic":
                        columns.append(velocity.square().sum(-1, keepdim=True))
                    case "jacobian":
                        columns.append(tangents.square().sum((0, 2))[:, None])
            return torch.cat(columns, -1) if names else velocity

        states, evaluations = solve(
            right_hand_side,
            state.to(dtype),
            times.to(dtype),
            solver,
            parameters=list(weights.values()),
            path=dim,
        )
        return states.to(state.dtype), evaluations


@dataclass(frozen=True)
class Likelihood:
    """A continuous flow's log_prob (n,) and what the same solve integrated beside it."""

    log_prob: Tensor
    kinetic: Tensor | None
    jacobian: Tensor | None
    evaluations: Evaluations


class ContinuousFlow(Flow):
    """A flow of one `CNF` in whitened coordinates, then the fixed `Standardize`."""

    def __init__(self, cnf: CNF, standardize: Standardize) -> None:
        super().__init__([cnf, standardize], dim=cnf.dim)

    @property
    def cnf(self) -> CNF:
        """The continuous transform."""
        return cast(CNF, self.transforms[0])

    @property
    def standardize(self) -> Standardize:
        """The fixed map from whitened to data coordinates."""
        return cast(Standardize, self.transforms[-1])

    def likelihood(
        self,
        x: Tensor,
        generator: torch.Generator | None = None,
        *,
        kinetic: bool = False,
        jacobian: bool = False,
    ) -> Likelihood:
        """Return log_prob of x, (n, d) -> (n,), in nats, with the penalties asked for.

        Penalties are integrals along the same path, in whitened coordinates; they never enter
        log_prob.
        """
        white, log_det = self.standardize.inverse(x)
        solution = self.cnf.solve(
            white, 1.0, 0.0, log_det=True, kinetic=kinetic, jacobian=jacobian, generator=generator
        )
        log_prob = base_log_prob(solution.end) + cast(Tensor, solution.log_det) + log_det
        return Likelihood(log_prob, solution.kinetic, solution.jacobian, solution.evaluations)

    def transport(self, z: Tensor) -> Tensor:
        """Carry base points to data, (n, d) -> (n, d): one solve of z alone, without a trace."""
        x: Tensor = self.standardize(self.cnf.solve(z, 0.0, 1.0).end)[0]
        return x

    def velocity(self, t: float | Tensor, z: Tensor) -> Tensor:
        """Return dz/dt at z, (n, d), in the whitened coordinates in which the ODE lives.

        Args:
            t: one time for all rows, or each row's own, (n,).
            z: (n, d).
        """
        time = torch.as_tensor(t, dtype=z.dtype, device=z.device)
        velocity: Tensor = self.cnf.field(time, z, z.new_empty(0, *z.shape))[0]
        return velocity

    @torch.no_grad()
    def trajectory(
        self, z: Tensor | int, times: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the paths of base points in data coordinates, (m, n, d).

        Args:
            z: base points, (n, d), or how many to draw.
            times: strictly increasing, in [0, 1], (m,).
            generator: draws the base points.

        Raises:
            ValueError: no times, or times that do not increase strictly within [0, 1].
        """
        inside = ((times >= 0) & (times <= 1)).all()
        if not (len(times) and inside and (times.diff() > 0).all()):
            raise ValueError(f"times must increase strictly within [0, 1], got {times.tolist()}")
        start = self.sample_base(z, generator) if isinstance(z, int) else z
        if len(times) > 1 or times[0] > 0:
            since_base = torch.cat([times.new_zeros(1), times[times > 0]])
            path = self.cnf.path(start, since_base)[-len(times) :]
        else:
            path = start[None]
        return torch.stack([self.standardize(points)[0] for points in path])

    def log_prob_at(self, t: float, x: Tensor) -> Tensor:
        """Return the log-density in nats of the flow stopped at time t in [0, 1], (n, d) -> (n,).

        At t = 1 it is `log_prob`; x is in data coordinates throughout.
        """
        white, log_det = self.standardize.inverse(x)
        if t > 0:
            solution = self.cnf.solve(white, t, 0.0, log_det=True)
            white, log_det = solution.end, log_det + cast(Tensor, solution.log_det)
        return base_log_prob(white) + log_det

    def with_solver(self, solver: Solver) -> "ContinuousFlow":
        """Return this flow, weights shared, evaluated by another solver."""
        cnf = copy.copy(self.cnf)
        cnf.evaluation_solver = solver
        cnf.training = False  # .eval() would reach the field that both share
        return ContinuousFlow(cnf, self.standardize)


def ffjord(
    standardize: Standardize,
    *,
    field: str,
    width: int,
    depth: int,
    activation: str,
    divergence: str,
    probes: int | None,
    noise: str | None,
    solver: Solver,
    evaluation_solver: Solver,
    generator: torch.Generator,
) -> ContinuousFlow:
    """Build FFJORD: a field, a divergence and two solvers, in whitened coordinates."""
    dim = len(standardize.mean)
    cnf = CNF(
        FIELDS[field](dim, width=width, depth=depth, activation=activation),
        dim=dim,
        divergence=divergence,
        probes=probes,
        noise=noise,
        solver=solver,
        evaluation_solver=evaluation_solver,
    )
    return ContinuousFlow(cnf, standardize)
