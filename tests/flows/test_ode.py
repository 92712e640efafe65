"""Solvers: exact solutions, counts, gradients through an adjoint, and every way to fail."""

import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from flowtrain.config.section import names, options
from flowtrain.config.solver import Adaptive, FixedStep, Implicit, NoSolver, Solver
from flowtrain.flows.ode import Evaluations, SolverError, solve, solver_errors

Field = Callable[[Tensor, Tensor], Tensor]

ADAPTIVE = names(Adaptive)
FIXED = (*names(FixedStep), *names(Implicit))
ORDERS = {
    "euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4, "explicit_adams": 4,
    "implicit_adams": 5,
}  # fmt: skip

SPIN = torch.tensor([[0.4, -2.0], [1.5, -0.8]], dtype=torch.float64)


def swing(t: Tensor, z: Tensor) -> Tensor:
    """A linear field that changes with t."""
    return torch.cos(3 * t) * z @ SPIN.T


def swung(z: Tensor, t0: float, t1: float) -> Tensor:
    """Its exact solution."""
    angle = (math.sin(3 * t1) - math.sin(3 * t0)) / 3
    turn: Tensor = torch.linalg.matrix_exp(angle * SPIN)
    return z @ turn.T


def start(n: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=dtype)


def run(
    field: Field, z: Tensor, solver: Solver, *times: float, **changes: Any
) -> tuple[Tensor, Evaluations]:
    """Solve from 0 to 1 unless other times are given."""
    settings: dict[str, Any] = {"parameters": [], "path": z.shape[1]} | changes
    states, evaluations = solve(field, z, z.new_tensor(times or (0.0, 1.0)), solver, **settings)
    return states[-1], evaluations


def adaptive(
    method: Any = "dopri5", tolerance: float = 1e-5, max_steps: int = 200, **changes: Any
) -> Adaptive:
    return Adaptive(name=method, rtol=tolerance, atol=tolerance, max_steps=max_steps, **changes)


def fixed(
    method: Any, step_size: float = 0.05, *, tolerance: float = 1e-6, adjoint: bool = False
) -> Solver:
    if method in names(Implicit):
        return Implicit(
            name=method, step_size=step_size, rtol=tolerance, atol=tolerance, adjoint=adjoint
        )
    return FixedStep(name=method, step_size=step_size, adjoint=adjoint)


DOPRI5 = adaptive()
ADJOINT = adaptive(adjoint=True)


@pytest.mark.parametrize(("method", "error"), [("rk4", 1e-4), ("explicit_adams", 5e-3)])
def test_a_path_is_as_exact_at_every_moment_as_at_its_end(method: str, error: float) -> None:
    z, times = start(), torch.linspace(0, 1, 24, dtype=torch.float64)
    states, _ = solve(swing, z, times, fixed(method, 0.1), parameters=[], path=2)
    for t, state in zip(times.tolist(), states, strict=True):
        torch.testing.assert_close(state, swung(z, 0.0, t), rtol=0, atol=error)


def test_every_solver_is_walked() -> None:
    methods = {name for section in options(Solver) for name in names(section)}
    assert methods == {*ADAPTIVE, *FIXED, "none"}
    assert set(ORDERS) == {*FIXED}
    assert all(adaptive(method).adaptive for method in ADAPTIVE)
    assert not any(fixed(method).adaptive for method in FIXED)


# --- accuracy -----------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [(0.0, 1.0), (1.0, 0.0)], ids=["forward", "backward"])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_adaptive_methods_keep_their_tolerance(method: str, times: tuple[float, float]) -> None:
    for tolerance in (1e-3, 1e-5):
        end, _ = run(swing, start(), adaptive(method, tolerance, 1000), *times)
        bound = (100 if method == "fehlberg2" else 10) * tolerance  # its error estimate is crude
        torch.testing.assert_close(end, swung(start(), *times), rtol=0, atol=bound)


@pytest.mark.parametrize("times", [(0.0, 1.0), (1.0, 0.0)], ids=["forward", "backward"])
@pytest.mark.parametrize(
    ("method", "stages"),
    [("dopri5", 7), ("dopri8", 14), ("bosh3", 4), ("adaptive_heun", 2), ("fehlberg2", 3)],
)
@torch.no_grad()
def test_a_field_that_is_zero_takes_one_step(
    method: str, stages: int, times: tuple[float, float]
) -> None:
    z = start()
    end, evaluations = run(lambda t, y: 0.0 * swing(t, y), z, adaptive(method), *times)
    torch.testing.assert_close(end, z)
    assert evaluations.forward <= stages


@torch.no_grad()
def test_a_field_that_is_zero_at_the_start_alone_keeps_its_tolerance() -> None:
    z, slope = start(), 20.0
    end, evaluations = run(lambda t, y: slope * t * y, 1e-3 * z, adaptive("dopri5", 1e-7))
    torch.testing.assert_close(end, 1e-3 * z * math.exp(slope / 2), rtol=1e-4, atol=0.0)
    assert evaluations.forward > 50


@pytest.mark.parametrize("times", [(0.0, 1.0), (1.0, 0.0)], ids=["forward", "backward"])
@pytest.mark.parametrize("method", FIXED)
def test_fixed_step_methods_converge_at_their_order(
    method: str, times: tuple[float, float]
) -> None:
    errors = []
    for step_size in (0.013, 0.0065):
        end, _ = run(swing, start(), fixed(method, step_size, tolerance=1e-10), *times)
        errors.append((end - swung(start(), *times)).abs().max().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(ORDERS[method], abs=0.5)


@pytest.mark.parametrize("method", ["explicit_adams", "implicit_adams"])
def test_adams_methods_are_stable_and_take_equal_steps(method: str) -> None:
    stiffish = run(lambda t, z: -8 * z, start(), fixed(method, 0.013))[0]
    torch.testing.assert_close(stiffish, start() * math.exp(-8), rtol=0, atol=1e-5)


@pytest.mark.parametrize("times", [(0.0, 1.0), (1.0, 0.0), (0.25, 0.5)], ids=str)
@pytest.mark.parametrize("adjoint", [False, True], ids=["backprop", "adjoint"])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_times_stay_inside_the_solve_and_are_constants_to_autograd(
    method: str, adjoint: bool, times: tuple[float, float]
) -> None:
    seen: list[float] = []

    def field(t: Tensor, z: Tensor) -> Tensor:
        assert not t.requires_grad
        seen.append(t.item())
        return swing(t, z)

    solver = adaptive(method, 1e-3, adjoint=adjoint)
    end, _ = run(field, start().requires_grad_(), solver, *times)
    end.sum().backward()
    assert min(times) <= min(seen)
    assert max(seen) <= max(times)


def test_time_reaches_the_field_as_a_number() -> None:
    shapes = set()

    def field(t: Tensor, z: Tensor) -> Tensor:
        shapes.add(t.shape)
        return swing(t, z)

    run(field, start(), DOPRI5)
    assert shapes == {()}


@pytest.mark.parametrize(
    "solver", [DOPRI5, fixed("rk4"), fixed("implicit_adams")], ids=lambda s: s.name
)
def test_columns_beside_the_path_do_not_change_it(solver: Solver) -> None:
    def wild(t: Tensor, state: Tensor) -> Tensor:
        return torch.cat([swing(t, state[:, :2]), 1e4 * torch.sin(60 * t) * state[:, :1]], -1)

    alone, evaluations = run(swing, start(), solver)
    state = torch.cat([start(), torch.zeros(5, 1)], -1)
    beside, same = run(wild, state, solver, path=2)
    assert torch.equal(beside[:, :2], alone)
    assert same == evaluations


def test_a_maximum_norm_solves_every_row_as_if_it_were_alone() -> None:
    def crowded(t: Tensor, z: Tensor) -> Tensor:  # one fast row among a thousand at rest
        return torch.cat([20 * torch.cos(20 * t) * z[:1], 0 * z[1:]])

    def error(norm: str, rows: int) -> float:
        end, _ = run(crowded, start()[:1].repeat(rows, 1), adaptive(norm=norm))
        return (end[0] - start()[0] * math.exp(math.sin(20.0))).abs().max().item()

    assert error("max", 1000) == error("max", 1)
    assert error("rms", 1000) > 3 * error("rms", 1)


# --- counts and gradients -----------------------------------------------------------------------


class Counted:
    """A field with a weight, that counts its own calls."""

    def __init__(self) -> None:
        self.weight = SPIN.clone().requires_grad_()
        self.calls = 0

    def __call__(self, t: Tensor, z: Tensor) -> Tensor:
        self.calls += 1
        return torch.tanh(z @ self.weight.T) * torch.cos(t)

    def gradients(self, solver: Solver) -> tuple[Tensor, Evaluations]:
        z = start().requires_grad_()
        end, evaluations = run(self, z, solver, parameters=[self.weight])
        forward = self.calls
        assert evaluations == Evaluations(forward, 0)
        with solver_errors():
            end.square().sum().backward()
        assert evaluations == Evaluations(forward, self.calls - forward)
        assert z.grad is not None
        assert self.weight.grad is not None
        return torch.cat([z.grad, self.weight.grad]), evaluations


def tight(method: str = "dopri5", **changes: Any) -> Adaptive:
    return adaptive(method, 1e-8, 1000, **changes)


@pytest.mark.parametrize(
    "solver",
    [
        tight(adjoint=True),
        tight(adjoint=True, adjoint_seminorm=True),
        tight(adjoint=True, adjoint_seminorm=False),
        tight("dopri8", adjoint=True),
        fixed("rk4", 0.01, adjoint=True),
        fixed("implicit_adams", 0.01, tolerance=1e-8, adjoint=True),
    ],
    ids=["dopri5", "seminorm", "full-norm", "dopri8", "rk4", "implicit_adams"],
)
def test_adjoint_agrees_with_backpropagation(solver: Solver) -> None:
    expected, evaluations = Counted().gradients(tight())
    assert evaluations.backward == 0
    found, evaluations = Counted().gradients(solver)
    assert evaluations.backward > 0
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_adjoint_tolerances_are_used() -> None:
    def backward(tolerance: float | None) -> int:
        solver = tight(adjoint=True, adjoint_rtol=tolerance, adjoint_atol=tolerance)
        return Counted().gradients(solver)[1].backward

    assert backward(1e-3) < backward(None) / 2
    assert backward(1e-8) == backward(None)


def test_a_seminorm_ignores_the_gradients_of_parameters() -> None:
    silent = torch.zeros((), dtype=torch.float64, requires_grad=True)

    def backward(seminorm: bool | None) -> int:
        solver = adaptive(adjoint=True, adjoint_seminorm=seminorm)
        field: Field = lambda t, z: silent * torch.sin(40 * t) - z  # noqa: E731
        end, evaluations = run(field, start(), solver, parameters=[silent])
        end.sum().backward()
        return evaluations.backward

    assert backward(True) == backward(None) < backward(False) / 2


# --- failures -----------------------------------------------------------------------------------


def one_bad_row(t: Tensor, z: Tensor) -> Tensor:
    return torch.cat([z[:1] * torch.nan, z[1:]])


FAILURES: dict[str, Field] = {
    "nan": lambda t, z: z * torch.nan,
    "nan in one row": one_bad_row,
    "nan halfway": lambda t, z: torch.sqrt(0.5 - t) * z,
    "infinite": lambda t, z: z * torch.inf,
    "blows up": lambda t, z: 1e4 * z * z,
    "stiff 1e6": lambda t, z: -1e6 * z,
    "stiff 1e8": lambda t, z: -1e8 * z,
}
METHODS = {
    **{name: adaptive(name, max_steps=100) for name in ADAPTIVE},
    "dopri5 max": adaptive(max_steps=100, norm="max"),
    **{name: fixed(name) for name in FIXED},
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("method", METHODS)
def test_every_failure_says_where_after_how_much_and_what_to_change(
    method: str, failure: str
) -> None:
    with pytest.raises(SolverError) as caught:
        run(FAILURES[failure], start(dtype=torch.float32), METHODS[method])
    assert_helpful(caught.value, "the ODE solver")


def assert_helpful(error: SolverError, who: str) -> None:
    where = r"at (the start|t = \d[-\d.e]*)"
    pattern = rf"{who} gave up {where}, after [1-9]\d* evaluations: \w.*\. Try a looser tolerance"
    assert re.match(pattern, str(error)), error


def test_max_steps_is_a_limit() -> None:
    calls = 0

    def field(t: Tensor, z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return swing(100 * t, z)

    with pytest.raises(SolverError, match="it needs more than max_steps steps"):
        run(field, start(), adaptive(tolerance=1e-9, max_steps=7))
    assert calls == 2 + 6 * 7


def test_an_implicit_step_that_does_not_converge_is_an_error_whatever_the_filters() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SolverError, match="lower step_size"):
            run(lambda t, z: -60 * z, start(), fixed("implicit_adams"))


def test_warning_filters_are_left_as_they_were() -> None:
    before = list(warnings.filters)
    run(swing, start(), fixed("implicit_adams"))
    assert warnings.filters == before


def bad_gradient(t: Tensor, z: Tensor) -> Tensor:
    return -z + (z - z).sqrt()  # 0, with the slope inf - inf


def test_a_failed_adjoint_says_so_too() -> None:
    field = Counted()
    strict = adaptive(max_steps=20, adjoint=True, adjoint_rtol=1e-13, adjoint_atol=1e-13)
    end, _ = run(field, start(), strict, parameters=[field.weight])
    with pytest.raises(SolverError, match="max_steps") as caught, solver_errors():
        end.sum().backward()
    assert_helpful(caught.value, "the adjoint ODE solver")


def test_a_nan_in_an_adaptive_adjoint_is_an_error() -> None:
    end, _ = run(bad_gradient, start().requires_grad_(), ADJOINT)
    with pytest.raises(SolverError, match="NaN or infinity") as caught, solver_errors():
        end.sum().backward()
    assert_helpful(caught.value, "the adjoint ODE solver")


def test_a_nan_in_a_fixed_step_adjoint_reaches_the_gradient() -> None:
    z = start().requires_grad_()
    end, _ = run(bad_gradient, z, fixed("rk4", adjoint=True))
    with solver_errors():
        end.sum().backward()
    assert z.grad is not None
    assert z.grad.isnan().any()


def test_errors_of_others_pass_unchanged() -> None:
    with pytest.raises(AssertionError, match="not a solver's"), solver_errors():
        raise AssertionError("not a solver's")


def test_no_solver_solves_nothing() -> None:
    with pytest.raises(ValueError, match="solver=none solves no ODE"):
        run(swing, start(), NoSolver(name="none"))
