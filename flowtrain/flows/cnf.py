"""A continuous transform: the neural ODE dz/dt = f(z, t) from base to data, and its divergence."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from flowtrain.config.solver import Solver
from flowtrain.flows.flow import Transform
from flowtrain.flows.ode import Evaluations, solve

EXACT_UP_TO = 8  # dimensions in which `auto` computes the trace exactly


@dataclass(frozen=True)
class Divergence:
    """How the trace of the Jacobian is computed, as a sum over probes v of v . Jv.

    The d basis vectors make it exact; k random probes make it Hutchinson's unbiased estimate
    (arXiv 1810.01367, eq. 7), drawn once per solve and fixed during it.

    Without a generator the probes are signs that each row decides by its own numbers, whatever
    the noise of training: the estimate is then a function of the row, the same beside any others,
    and its errors are as independent as rows are.

    Args:
        probes: k, how many random probes; None is exact.
        noise: of the random probes that a generator draws.

    >>> probes = Divergence().draw(torch.zeros(5, 2), None)  # exact: the basis of R²
    >>> probes.shape
    torch.Size([2, 5, 2])
    >>> Divergence(probes=1).draw(torch.zeros(5, 64), None).abs().unique()  # random signs
    tensor([1.])
    >>> one, x = Divergence(probes=1), torch.randn(5, 64)
    >>> torch.equal(one.draw(x, None)[:, 3:], one.draw(x[3:], None))
    True
    """

    probes: int | None = None
    noise: Literal["rademacher", "gaussian"] = "rademacher"

    def draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the probes of a solve of (n, d), (k, n, d), scaled so that they sum to a trace."""
        n, dim = like.shape
        kind: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
        if self.probes is None:
            basis: Tensor = torch.eye(dim, **kind)
            return basis[:, None].expand(dim, n, dim)
        noise: Tensor
        if generator is None:
            noise = _signs_of_rows(like, self.probes).to(**kind)
        else:
            noise = torch.randn(self.probes, n, dim, generator=generator, **kind)
            if self.noise == "rademacher":
                noise = noise.sign()
        return noise / math.sqrt(self.probes)


def _signs_of_rows(rows: Tensor, k: int) -> Tensor:
    """Return k random signs for every number of (n, d), (k, n, d), decided by the row alone.

    Rows are read as bfloat16, so that hardly any sign depends on how a row was rounded.
    """
    dim = rows.shape[1]
    places = torch.arange(k * dim, device=rows.device).reshape(k, 1, dim)
    words = rows.bfloat16().view(torch.int16).long()
    key = _mix(words * 2**32 + places[0]).sum(1)
    return 1 - 2 * (_mix(key[:, None] + places * _GOLDEN) & 1)


_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # 2^64 over the golden ratio, as a signed number


def _mix(x: Tensor) -> Tensor:
    """Return numbers whose bits depend on all of x's: SplitMix64, doi 10.1145/2660193.2660195."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64)):
        x = (x ^ (x >> shift & (1 << 64 - shift) - 1)) * factor
    return x ^ (x >> 31 & (1 << 33) - 1)


def choose_divergence(
    name: str, dim: int, *, probes: int | None, noise: Literal["rademacher", "gaussian"] | None
) -> Divergence:
    """Return the divergence of training.

    Args:
        name: "exact", "hutchinson", or "auto": exact up to `EXACT_UP_TO` dimensions.
        dim: d.
        probes: of the estimate; None is 1.
        noise: of the estimate; None is rademacher.

    Raises:
        ValueError: probes or noise are given and the trace is exact.

    >>> choose_divergence("auto", 2, probes=None, noise=None)
    Divergence(probes=None, noise='rademacher')
    >>> choose_divergence("auto", 64, probes=None, noise=None)
    Divergence(probes=1, noise='rademacher')
    """
    if name == "hutchinson" or (name == "auto" and dim > EXACT_UP_TO):
        return Divergence(1 if probes is None else probes, noise or "rademacher")
    if probes is not None or noise is not None:
        raise ValueError(
            f"probes and noise belong to the estimated trace, and in {dim} dimensions "
            f"divergence={name} is exact: leave them out, or choose hutchinson"
        )
    return Divergence()


@dataclass(frozen=True)
class Solution:
    """Where a solve ended and what it integrated on the way; None is what nobody asked for.

    Attributes:
        end: the state at the last time, (n, d).
        log_det: the integral of the divergence, in the direction of the solve, (n,).
        kinetic: the integral of |f|^2 over [0, 1], (n,).
        jacobian: the integral of |df/dz|^2_F over [0, 1], (n,), estimated by the same probes.
        evaluations: of the field.

    >>> from flowtrain import load
    >>> solution = load(ffjord_folder).cnf.solve(torch.zeros(5, 2), 0.0, 1.0, log_det=True)
    >>> solution.end.shape, solution.log_det.shape, solution.kinetic
    (torch.Size([5, 2]), torch.Size([5]), None)
    """

    end: Tensor
    log_det: Tensor | None
    kinetic: Tensor | None
    jacobian: Tensor | None
    evaluations: Evaluations


class CNF(Transform):
    """A continuous transform: base at t = 0, data at t = 1, log-determinant by the divergence.

    d log_det / dt = tr(df/dz) (arXiv 1806.07366, eq. 8). Where the trace is estimated, `forward`
    and `inverse` draw the same probes, from seed 0, so that each undoes the other.

    Args:
        field: the vector field, with tangents (`fields`).
        dim: d.
        solver: of `forward` and `inverse`, and of `solve` where no other is given.
        divergence: likewise.
        context_dim: numbers of a condition, which the field then takes.

    >>> from flowtrain.config.solver import Adaptive
    >>> from flowtrain.flows.fields import ConcatSquash
    >>> field = ConcatSquash(2, width=8, depth=1, activation="tanh")
    >>> solver = Adaptive(name="dopri5", rtol=1e-5, atol=1e-5)
    >>> cnf = CNF(field, dim=2, solver=solver, divergence=Divergence())
    >>> cnf(torch.ones(1, 2))[0].tolist()  # a field starts at rest
    [[1.0, 1.0]]
    """

    def __init__(
        self,
        field: nn.Module,
        *,
        dim: int,
        solver: Solver,
        divergence: Divergence,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        self.context_dim = context_dim
        self.field = field
        self.dim = dim
        self.solver = solver
        self.divergence = divergence

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        seed_0 = self._seed_0(z)
        solution = self.solve(z, 0.0, 1.0, context=context, log_det=True, generator=seed_0)
        return solution.end, cast(Tensor, solution.log_det)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        seed_0 = self._seed_0(x)
        solution = self.solve(x, 1.0, 0.0, context=context, log_det=True, generator=seed_0)
        return solution.end, cast(Tensor, solution.log_det)

    def solve(
        self,
        start: Tensor,
        t0: float,
        t1: float,
        *,
        context: Tensor | None = None,
        log_det: bool = False,
        kinetic: bool = False,
        jacobian: bool = False,
        generator: torch.Generator | None = None,
        solver: Solver | None = None,
        divergence: Divergence | None = None,
    ) -> Solution:
        """Solve the ODE from t0 to t1 with only the extra states that are asked for.

        Args:
            start: the state at t0, (n, d).
            t0: in [0, 1].
            t1: in [0, 1], and not t0.
            context: the condition of each point, (n, context_dim).
            log_det: integrate the divergence.
            kinetic: integrate the kinetic energy.
            jacobian: integrate the Jacobian's squared Frobenius norm.
            generator: draws the probes; without one each row decides its own (`Divergence`).
            solver: None is the transform's own.
            divergence: None is the transform's own.

        Raises:
            SolverError: the solver cannot go on.
        """
        probes = start.new_empty(0, *start.shape)
        if log_det or jacobian:
            probes = (divergence or self.divergence).draw(start, generator)
        asked = {"log_det": log_det, "kinetic": kinetic, "jacobian": jacobian}
        names = [name for name, wanted in asked.items() if wanted]
        extra = start.new_zeros(len(start), len(names))
        times = torch.tensor([t0, t1], dtype=torch.float64)  # on the CPU: no GPU waits for it
        states, evaluations = self._integrate(
            torch.cat([start, extra], -1), times, probes, names, solver or self.solver, context
        )
        end = dict(zip(names, states[-1, :, self.dim :].unbind(-1), strict=True))
        sign = 1.0 if t1 > t0 else -1.0  # penalties are energies: positive in either direction
        return Solution(
            end=states[-1, :, : self.dim],
            log_det=end.get("log_det"),
            kinetic=sign * end["kinetic"] if kinetic else None,
            jacobian=sign * end["jacobian"] if jacobian else None,
            evaluations=evaluations,
        )

    def path(self, start: Tensor, times: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the states at strictly monotonic times, (m, n, d); the first is the start."""
        probes = start.new_empty(0, *start.shape)
        return self._integrate(start, times, probes, [], self.solver, context)[0]

    def path_with_log_det(
        self, start: Tensor, times: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the states at strictly monotonic times, (m, n, d), and log_det to each, (m, n)."""
        probes = self.divergence.draw(start, None)
        state = torch.cat([start, start.new_zeros(len(start), 1)], -1)
        states, _ = self._integrate(state, times, probes, ["log_det"], self.solver, context)
        return states[..., : self.dim], states[..., self.dim]

    def _seed_0(self, like: Tensor) -> torch.Generator | None:
        exact = self.divergence.probes is None  # and no tracer meets a generator
        return None if exact else torch.Generator(like.device).manual_seed(0)

    def _integrate(
        self,
        state: Tensor,
        times: Tensor,
        probes: Tensor,
        names: Sequence[str],
        solver: Solver,
        context: Tensor | None,
    ) -> tuple[Tensor, Evaluations]:
        asked: str | None = getattr(solver, "dtype", None)
        dtype = state.dtype if asked is None else getattr(torch, asked)
        weights: dict[str, Tensor] = dict(self.field.named_parameters())
        fixed: dict[str, Tensor] = dict(self.field.named_buffers())
        field: Callable[..., tuple[Tensor, Tensor]] = self.field
        if dtype != state.dtype and torch.is_grad_enabled():
            weights = {name: weight.to(dtype) for name, weight in weights.items()}
            fixed = {
                name: each.to(dtype) if each.is_floating_point() else each
                for name, each in fixed.items()
            }
            field = partial(_with_weights, self.field, weights | fixed)
        elif dtype != state.dtype:  # a copy: others may compute with the field at the same time
            field = copy.deepcopy(self.field).to(dtype)
        probes = probes.to(dtype)
        condition = () if context is None else (context.to(dtype),)
        dim = self.dim

        def right_hand_side(t: Tensor, state: Tensor) -> Tensor:
            velocity, tangents = field(t, state[:, :dim], probes, *condition)
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
            times,
            solver,
            parameters=[*weights.values(), *fixed.values(), *condition],
            path=dim,
        )
        return states.to(state.dtype), evaluations


def _with_weights(
    field: nn.Module, weights: dict[str, Tensor], *inputs: Tensor
) -> tuple[Tensor, Tensor]:
    moved: tuple[Tensor, Tensor] = functional_call(field, weights, inputs)
    return moved
