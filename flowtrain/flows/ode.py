"""Solving ODEs: methods, tolerances and failures. The only module that knows torchdiffeq."""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from flowtrain.config.solver import Adaptive, FixedStep, Implicit, Solver
from flowtrain.errors import UserError
from flowtrain.flows import fixed_steps
from flowtrain.progress import done, heard

SECONDS_BETWEEN_TELLS = 0.2  # of how far a solve is

# torchdiffeq's assertions, and what they mean to a user.
SYMPTOMS = {
    "max_num_steps": "it needs more than max_steps steps",
    "underflow": "its step shrank to nothing: the field is too stiff, or NaN",
    "non-finite": "NaN or infinity in the state",
    "Functional iteration": "the implicit step did not converge; lower step_size",
}


class SolverError(UserError):
    """An ODE that could not be solved: where it stopped, after how much work, what to change."""


@dataclass
class Evaluations:
    """Exact numbers of evaluations of the right-hand side, backward ones by an adjoint solve.

    >>> from flowtrain import load
    >>> load(ffjord_folder).likelihood(torch.zeros(5, 2)).evaluations.backward  # no adjoint solve
    0
    """

    forward: int = 0
    backward: int = 0


class _RightHandSide:
    """Counts evaluations, remembers where the solver is, and tells it as progress.

    `latest` is state of the whole process: the right-hand side that an adjoint solve asked last.
    It fails deep inside `loss.backward()`, where nothing else tells which one it was.
    """

    latest: ClassVar["_RightHandSide | None"] = None

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], times: Tensor) -> None:
        self.function = function
        self.start, self.end = times[0].item(), times[-1].item()
        self.told = time.monotonic()
        self.evaluations = Evaluations()
        self.backward = False
        self.t: Tensor | None = None
        self.first: Tensor | None = None  # at the start, until the solver asks for it

    def __call__(self, t: Tensor, state: Tensor) -> Tensor:
        if self.first is not None:
            first, self.first = self.first, None
            return first
        if not self.backward:
            self.tell(t)
        return self.evaluate(t, state)

    def evaluate(self, t: Tensor, state: Tensor) -> Tensor:
        self.t = t
        if self.backward:
            _RightHandSide.latest = self
            self.evaluations.backward += 1
        else:
            self.evaluations.forward += 1
        # Detached: an adjoint solve would also integrate dL/dt, and let it choose the steps.
        return self.function(t.detach(), state)

    def at_rest(self, state: Tensor, path: int) -> bool:
        """Return whether no path moves at the start: an untrained field is zero."""
        self.first = self(state.new_tensor(self.start), state)
        return not self.first[..., :path].any()

    def tell(self, t: Tensor) -> None:
        # Not at every evaluation: on a GPU, to read the time is to wait for it.
        if heard() and time.monotonic() > self.told + SECONDS_BETWEEN_TELLS:
            self.told = time.monotonic()
            done((t.item() - self.start) / (self.end - self.start))

    def refuse_if_not_finite(self, end: Tensor) -> None:
        if end.is_cuda and torch.cuda.is_current_stream_capturing():
            return  # there are no numbers yet: who replays the graph looks at the loss
        if not torch.isfinite(end).all():
            raise self.failure("NaN or infinity in the state")

    def failure(self, what: str) -> SolverError:
        kind, count = "ODE", self.evaluations.forward
        if self.backward:
            kind, count = "adjoint ODE", self.evaluations.backward
        t = math.nan if self.t is None else self.t.item()  # NaN: no first step could be chosen
        at = "at the start" if math.isnan(t) else f"at t = {t:.4g}"
        return SolverError(
            f"the {kind} solver gave up {at}, after {count} evaluations: {what}. Try a looser "
            "tolerance, more regularization, a lower optimizer.lr, or another solver"
        )


def solve(
    function: Callable[[Tensor, Tensor], Tensor],
    state: Tensor,
    times: Tensor,
    solver: Solver,
    *,
    parameters: Sequence[Tensor],
    path: int,
) -> tuple[Tensor, Evaluations]:
    """Integrate d(state)/dt = function(t, state) from times[0] through the other times.

    Only the first `path` columns of the state count in the error norm: whatever else is
    integrated along a path does not change the path. Steps are constants to autograd.

    Args:
        function: the right-hand side, (), (n, c) -> (n, c).
        state: at times[0], (n, c).
        times: strictly increasing or decreasing, (m,).
        solver: how, a section of the group `solver`.
        parameters: what an adjoint solve differentiates.
        path: columns in the error norm.

    Returns:
        The states at all times, (m, n, c), and the evaluations; their backward count grows when
        an adjoint solve is backpropagated.

    Raises:
        SolverError: NaN or infinity in the state, a step that underflows, or too many steps.
        ValueError: the solver is `none`.

    >>> from flowtrain.config.solver import FixedStep
    >>> solver, times = FixedStep(name="rk4", step_size=0.1), torch.tensor([0.0, 0.5, 1.0])
    >>> states, evaluations = solve(
    ...     lambda t, y: y, torch.ones(1, 1), times, solver, parameters=[], path=1)
    >>> states.flatten(), evaluations.forward  # 1, √e and e
    (tensor([1.0000, 1.6487, 2.7183]), 40)
    """
    rhs = _RightHandSide(function, times)
    if isinstance(solver, FixedStep) and solver.plain and len(times) == 2:
        end = fixed_steps.integrate(
            rhs.evaluate, state, rhs.start, rhs.end, method=solver.name, step_size=solver.step_size
        )
        rhs.refuse_if_not_finite(end)
        return torch.stack([state, end]), rhs.evaluations
    if not len(state):  # there is no norm of no paths
        return state.expand(len(times), *state.shape), rhs.evaluations

    from torchdiffeq import odeint, odeint_adjoint  # 0.3 s that a discrete flow need not wait

    times = times.to(state)
    options: dict[str, Any] = {}
    tolerances: dict[str, float | Tensor] = {"rtol": 0.0, "atol": 0.0}
    if isinstance(solver, Adaptive | Implicit):
        tolerances = {"rtol": solver.rtol, "atol": solver.atol}
    if isinstance(solver, Adaptive):
        average = torch.amax if solver.norm == "max" else torch.mean
        options["norm"] = lambda y: average(y.detach()[..., :path].square().mean(-1)).sqrt()
        options["max_num_steps"] = solver.max_steps
        # Land on the end: torchdiffeq would step over it, out of [0, 1], and interpolate at order
        # 4 (measured: 2 to 30 times the error of the state, up to a third more evaluations).
        options["step_t"] = times[-1:]
        if not torch.is_grad_enabled() and rhs.at_rest(state, path):
            # torchdiffeq would begin with 1e-6 and grow tenfold a step: 44 evaluations where 7 do.
            # Not in training: that bounds the error of a path, not of its gradient.
            options["first_step"] = (times[-1] - times[0]).abs()
        if state.device.type == "mps":  # it has no float64, the default dtype of time
            options["dtype"] = torch.float32
    elif isinstance(solver, FixedStep | Implicit):
        options["grid_constructor"] = _equal_steps(solver.step_size)
    else:
        raise ValueError(f"solver={solver.name} solves no ODE")
    if solver.name.endswith("_adams"):
        # Its default order, 11, is unstable: the error grows as the step shrinks. This is 4 and 5.
        options["max_order"] = 5
        # implicit_adams has no norm: an infinite tolerance takes columns out of its test.
        atol = state.new_full(state.shape[-1:], float(tolerances["atol"]))
        atol[path:] = torch.inf
        tolerances["atol"] = atol
    settings: dict[str, Any] = {**tolerances, "method": solver.name, "options": options}
    if solver.adjoint and torch.is_grad_enabled():
        back = {key: value for key, value in options.items() if key != "norm"}
        # Tolerances of the adjoint: a number each, as its state has other columns.
        rtol, atol_back = tolerances["rtol"], getattr(solver, "atol", 0.0)
        if isinstance(solver, Adaptive):
            back["step_t"] = times[:1] * (times[-1] - times[0]).sign()  # its time always increases
            if solver.adjoint_seminorm in (None, True):
                back["norm"] = "seminorm"
            rtol = rtol if solver.adjoint_rtol is None else solver.adjoint_rtol
            atol_back = atol_back if solver.adjoint_atol is None else solver.adjoint_atol
        settings |= {
            "adjoint_params": tuple(p for p in parameters if p.requires_grad),
            "adjoint_rtol": rtol,
            "adjoint_atol": atol_back,
            "adjoint_options": back,
        }
        integrate = odeint_adjoint
    else:
        integrate = odeint
    with _errors_of(lambda: rhs, warned=isinstance(solver, Implicit)):
        states = integrate(rhs, state, times, **settings)
    rhs.refuse_if_not_finite(states[-1])
    rhs.backward = True
    return states, rhs.evaluations


def _equal_steps(at_most: float) -> Callable[[Any, Tensor, Tensor], Tensor]:
    """Divide the time from each moment to the next into equal steps, none of them shorter."""

    def grid(function: Any, state: Tensor, times: Tensor) -> Tensor:
        parts = [times[:1]]
        for start, end in pairwise(times.tolist()):  # between steps torchdiffeq draws a line
            steps = fixed_steps.count_steps(end - start, at_most)
            part = torch.linspace(start, end, steps + 1, dtype=times.dtype, device=times.device)
            parts.append(part[1:])
        return torch.cat(parts)

    return grid


@contextmanager
def solver_errors() -> Iterator[None]:
    """Tell torchdiffeq's bare assertions as `SolverError`s.

    The adjoint solve runs inside `loss.backward()`: it needs this context there, too.

    Raises:
        SolverError: of the solve that failed, where it stopped and what to change.

    >>> from flowtrain import load
    >>> from flowtrain.config.solver import FixedStep
    >>> solver = FixedStep(name="rk4", step_size=0.25, adjoint=True)
    >>> loss = -load(ffjord_folder).with_solver(solver).log_prob(torch.zeros(5, 2)).mean()
    >>> with solver_errors():
    ...     loss.backward()
    """
    try:
        with _errors_of(lambda: _RightHandSide.latest, warned=True):
            yield
    finally:
        _RightHandSide.latest = None


@contextmanager
def _errors_of(failed: Callable[[], _RightHandSide | None], *, warned: bool) -> Iterator[None]:
    """Tell bare assertions, and warnings, as the `SolverError` of the right-hand side that failed.

    Adams' functional iteration that does not converge is only a warning to torchdiffeq.
    """
    try:
        with ExitStack() as entered:
            if warned:  # filters are of the whole process: solves may go side by side
                entered.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("error", message="Functional iteration did not converge")
            yield
    except (AssertionError, UserWarning) as error:
        what = str(error)
        for symptom, meaning in SYMPTOMS.items():
            if symptom in what:
                what = meaning
        rhs = failed()
        if rhs is None:  # no solver has run in here
            raise
        raise rhs.failure(what) from error
