"""Continuous flows: likelihood, sampling, paths, and which solver each of them uses."""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor
from torch.distributions import Normal

from flowtrain.config.solver import Adaptive, FixedStep, Solver
from flowtrain.flows.cnf import EXACT_UP_TO, Divergence
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.fields import Fourier
from flowtrain.flows.flow import Standardize

Make = Callable[..., ContinuousFlow]
Jacobian = Callable[[ContinuousFlow, float, Tensor], Tensor]
Watch = Callable[[ContinuousFlow], Any]


def dopri5(tolerance: float = 1e-5, max_steps: int = 200, **changes: Any) -> Adaptive:
    return Adaptive(name="dopri5", rtol=tolerance, atol=tolerance, max_steps=max_steps, **changes)


def euler(step_size: float) -> Solver:
    return FixedStep(name="euler", step_size=step_size)


TIGHT = Adaptive(name="dopri8", rtol=1e-9, atol=1e-9)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(n: int = 6, dim: int = 2) -> Tensor:
    return torch.randn(n, dim, generator=seeded(1), dtype=torch.float64)


# --- likelihood ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(make_ffjord: Make) -> ContinuousFlow:
    """Return a float32 flow trained for a moment on two blobs."""
    coarse = dopri5(1e-3, 100)
    flow = make_ffjord(dtype=torch.float32)
    optimizer, generator = torch.optim.Adam(flow.parameters(), lr=2e-2), seeded()
    for _ in range(25):
        blobs = 0.3 * torch.randn(128, 2, generator=generator)
        blobs[::2] += 1.0
        optimizer.zero_grad()
        found = flow.likelihood(flow.standardize(blobs)[0], solver=coarse)
        (-found.log_prob.mean()).backward()
        optimizer.step()
    return flow


def standard_normal(z: Tensor) -> Tensor:
    log_prob: Tensor = Normal(0.0, 1.0).log_prob(z)
    return log_prob.sum(-1)


def log_prob_by_scipy(flow: ContinuousFlow, x: Tensor, jacobian: Jacobian) -> Tensor:
    """Integrate the whitened ODE and its trace, by autograd, in float64 with another solver."""
    assert isinstance(flow.standardize, Standardize)
    mean, std = flow.standardize.mean, flow.standardize.std
    n, dim = x.shape

    def right_hand_side(t: float, state: np.ndarray) -> np.ndarray:
        z = torch.from_numpy(state.reshape(n, dim + 1)[:, :dim].copy())
        trace = jacobian(flow, t, z).diagonal(dim1=1, dim2=2).sum(-1)
        return torch.cat([flow.velocity(t, z), trace[:, None]], -1).detach().numpy().ravel()

    start = torch.cat([(x - mean) / std, torch.zeros_like(x[:, :1])], -1)
    found = solve_ivp(
        right_hand_side, (1.0, 0.0), start.numpy().ravel(), "DOP853", rtol=1e-10, atol=1e-12
    )
    end = torch.from_numpy(found.y[:, -1]).reshape(n, dim + 1)
    return standard_normal(end[:, :dim]) + end[:, dim] - std.log().sum()


def widened(flow: ContinuousFlow) -> ContinuousFlow:
    """Return a copy in float64."""
    wide: ContinuousFlow = copy.deepcopy(flow).double()
    return wide


@pytest.mark.parametrize("kind", ["random", "trained"])
def test_log_prob_agrees_with_an_independent_integration(
    kind: str, make_ffjord: Make, trained: ContinuousFlow, jacobian: Jacobian
) -> None:
    flow = trained if kind == "trained" else make_ffjord(dtype=torch.float32)
    x = flow.sample(32, seeded())
    truth = log_prob_by_scipy(widened(flow), x.double(), jacobian)
    for solver, error in ((dopri5(), 1e-4), (dopri5(1e-7, dtype="float64"), 1e-6)):
        found = flow.with_solver(solver).log_prob(x)
        assert found.dtype == torch.float32
        assert (found - truth).mean().abs() < error
        assert (found - truth).abs().max() < 10 * error


@pytest.mark.parametrize("adjoint", [False, True], ids=["backprop", "adjoint"])
def test_a_float64_solver_of_a_float32_model(adjoint: bool, make_ffjord: Make) -> None:
    double = dopri5(1e-8, 500, dtype="float64", adjoint=adjoint)
    flow = make_ffjord(dtype=torch.float32, solver=double)
    reference = widened(flow)
    x = draw().float()
    found, expected = flow.log_prob(x), reference.log_prob(x.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    found.mean().backward()
    expected.mean().backward()
    for narrow, wide in zip(flow.parameters(), reference.parameters(), strict=True):
        assert narrow.grad is not None
        assert narrow.grad.dtype == torch.float32
        assert wide.grad is not None
        torch.testing.assert_close(narrow.grad.double(), wide.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("adjoint", [False, True], ids=["backprop", "adjoint"])
def test_evaluations_are_counted_exactly(adjoint: bool, make_ffjord: Make, watch: Watch) -> None:
    flow = make_ffjord()
    evaluated = watch(flow)
    found = flow.likelihood(draw(), solver=dopri5(adjoint=adjoint))
    forward = evaluated.count
    assert (found.evaluations.forward, found.evaluations.backward) == (forward, 0)
    found.log_prob.mean().backward()
    assert found.evaluations.forward == forward
    assert found.evaluations.backward == evaluated.count - forward
    assert (found.evaluations.backward > 0) == adjoint


@pytest.mark.parametrize("use", ["log_prob", "likelihood", "log_prob_at", "sample", "trajectory"])
def test_a_flow_has_one_solver_for_all_uses_in_either_mode(
    use: str, make_ffjord: Make, watch: Watch
) -> None:
    flow = make_ffjord(solver=euler(0.1))
    uses: dict[str, Callable[[], object]] = {
        "log_prob": lambda: flow.log_prob(draw()),
        "likelihood": lambda: flow.likelihood(draw()),
        "log_prob_at": lambda: flow.log_prob_at(1.0, draw()),
        "sample": lambda: flow.sample(6, seeded()),
        "trajectory": lambda: flow.trajectory(draw(), torch.tensor([0.0, 1.0])),
    }
    evaluated = watch(flow)
    for times, training in enumerate((True, False), start=1):
        flow.train(training)
        uses[use]()
        assert evaluated.count == 10 * times


def test_a_likelihood_takes_another_solver_for_one_call(make_ffjord: Make, watch: Watch) -> None:
    flow, x, coarse = make_ffjord(), draw(), euler(0.5)
    own, evaluated = flow.log_prob(x), watch(flow)
    cheap = flow.likelihood(x, solver=coarse)
    assert evaluated.count == cheap.evaluations.forward == 2
    assert (cheap.log_prob - own).abs().min() > 1e-3
    assert torch.equal(cheap.log_prob, flow.with_solver(coarse).log_prob(x))
    assert flow.solver == dopri5()
    assert torch.equal(flow.log_prob(x), own)


def test_a_likelihood_takes_another_divergence_for_one_call(make_ffjord: Make) -> None:
    flow, x = make_ffjord(divergence="hutchinson"), draw()
    exact = flow.log_prob(x)
    assert torch.equal(exact, make_ffjord().log_prob(x))
    estimated = flow.likelihood(x, divergence=flow.training_divergence).log_prob
    assert (estimated - exact).abs().max() > 0.01
    assert flow.cnf.divergence == Divergence()
    assert torch.equal(flow.log_prob(x), exact)


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
@pytest.mark.parametrize("solver", [dopri5(), euler(0.25)], ids=lambda solver: solver.name)
def test_every_likelihood_is_the_same_number(
    solver: Solver, divergence: str, make_ffjord: Make
) -> None:
    flow, x = make_ffjord(solver=solver, divergence=divergence), draw()
    log_prob = flow.log_prob(x)
    assert torch.equal(flow.likelihood(x).log_prob, log_prob)
    assert torch.equal(flow.log_prob_at(1.0, x), log_prob)
    assert torch.equal(flow.likelihood(x, seeded(3), solver=flow.solver).log_prob, log_prob)


def test_penalties_never_enter_log_prob(make_ffjord: Make) -> None:
    flow, x = make_ffjord(), draw()
    found = flow.likelihood(x, kinetic=True, jacobian=True)
    torch.testing.assert_close(found.log_prob, flow.log_prob(x))


# --- sampling and paths -------------------------------------------------------------------------


def test_sampling_solves_z_alone(
    make_ffjord: Make, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = make_ffjord(divergence="hutchinson").requires_grad_(False)
    evaluated = watch(flow)
    monkeypatch.setattr(Divergence, "draw", None)  # not to be called
    for mode in (True, False):
        sample = flow.train(mode).sample(9, seeded())
        assert sample.shape == (9, 2)
        assert not sample.requires_grad
    assert {probes.shape for probes in evaluated.probes} == {(0, 9, 2)}
    assert evaluated.recording == {False}


def test_likelihood_needs_no_autograd(make_ffjord: Make) -> None:
    flow, x = make_ffjord(solver=dopri5(adjoint=True)), draw()
    expected = flow.log_prob(x)
    with torch.no_grad():
        assert torch.equal(flow.log_prob(x), expected)
    assert torch.equal(flow.requires_grad_(False).log_prob(x), expected)


TIMES = torch.tensor([0.0, 0.2, 0.5, 1.0])


def test_trajectory_runs_from_base_to_data(make_ffjord: Make) -> None:
    flow, z = make_ffjord(solver=TIGHT), draw()
    path = flow.trajectory(z, TIMES)
    assert path.shape == (4, 6, 2)
    assert torch.equal(path[0], flow.standardize(z)[0])
    torch.testing.assert_close(path[-1], flow(z)[0], rtol=0, atol=1e-8)
    middle = flow.standardize(flow.cnf.solve(z, 0.0, 0.5).end)[0]
    torch.testing.assert_close(path[2], middle, rtol=0, atol=1e-4)  # interpolated


@pytest.mark.parametrize("times", [[0.0], [1.0], [0.5], [0.5, 1.0], [0.0, 0.5]], ids=str)
def test_trajectory_takes_any_increasing_times(times: list[float], make_ffjord: Make) -> None:
    flow, z = make_ffjord(solver=TIGHT), draw()
    path = flow.trajectory(z, torch.tensor(times))
    assert path.shape == (len(times), 6, 2)
    for points, t in zip(path, times, strict=True):
        expected = flow.cnf.solve(z, 0.0, t).end if t else z
        torch.testing.assert_close(points, flow.standardize(expected)[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "times", [[], [0.0, 0.0], [1.0, 0.5], [-0.1, 1.0], [0.5, 1.1], [math.nan]], ids=str
)
def test_trajectory_refuses_times_that_do_not_increase_within_the_unit_interval(
    times: list[float], make_ffjord: Make
) -> None:
    with pytest.raises(ValueError, match="increase strictly within"):
        make_ffjord().trajectory(3, torch.tensor(times))


def test_trajectory_draws_its_own_base_points(make_ffjord: Make) -> None:
    flow = make_ffjord()
    expected = flow.trajectory(flow.sample_base(5, seeded(2)), TIMES)
    assert torch.equal(flow.trajectory(5, TIMES, seeded(2)), expected)


@pytest.mark.parametrize("t", [0.25, 0.75])
def test_velocity_is_the_slope_of_the_trajectory(t: float, make_ffjord: Make) -> None:
    flow, z, h = make_ffjord(solver=TIGHT), draw(), 1e-3
    before, there, after = (
        flow.standardize.inverse(flow.trajectory(z, torch.tensor([time], dtype=z.dtype))[0])[0]
        for time in (t - h, t, t + h)
    )
    slope = (after - before) / (2 * h)
    torch.testing.assert_close(flow.velocity(t, there), slope, rtol=0, atol=1e-4)


def test_velocity_is_differentiable(make_ffjord: Make) -> None:
    flow, z = make_ffjord(), draw().requires_grad_()
    flow.velocity(torch.tensor(0.5), z).square().sum().backward()
    assert z.grad is not None
    assert z.grad.abs().max() > 0
    assert all(parameter.grad is not None for parameter in flow.parameters())


def test_log_prob_at_follows_the_density_through_time(
    make_ffjord: Make, jacobian: Jacobian
) -> None:
    flow, x = make_ffjord(), draw()
    assert torch.equal(flow.log_prob_at(1.0, x), flow.log_prob(x))
    white, log_det = flow.standardize.inverse(x)
    base = standard_normal(white) + log_det
    torch.testing.assert_close(flow.log_prob_at(0.0, x), base)
    unmoved = flow.likelihood(x, t=0.0, kinetic=True)
    assert unmoved.kinetic is not None
    assert unmoved.kinetic.tolist() == [0.0] * len(x)
    assert unmoved.jacobian is None
    h = 1e-4  # d log q / dt = -div f - f . grad log q
    point = white.clone().requires_grad_()
    (score,) = torch.autograd.grad(standard_normal(point).sum(), point)
    trace = jacobian(flow, 0.0, white).diagonal(dim1=1, dim2=2).sum(-1)
    expected = -trace - (flow.velocity(0.0, white) * score).sum(-1)
    slope = (flow.log_prob_at(h, x) - base) / h
    torch.testing.assert_close(slope, expected, rtol=0, atol=1e-2)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_with_solver_shares_the_weights_and_leaves_the_original_alone(
    training: bool, make_ffjord: Make, watch: Watch
) -> None:
    flow, x = make_ffjord(divergence="hutchinson").train(training), draw()
    before, modes = flow.log_prob(x), [module.training for module in flow.modules()]
    coarse = flow.with_solver(euler(0.25))
    evaluated = watch(coarse)
    coarse.log_prob(x)
    assert evaluated.count == 4
    assert coarse.solver == euler(0.25)
    assert coarse.training_divergence == flow.training_divergence
    assert [module.training for module in coarse.modules()] == modes
    assert [module.training for module in flow.modules()] == modes
    assert torch.equal(flow.log_prob(x), before)
    assert flow.solver == dopri5()
    pairs = zip(flow.parameters(), coarse.parameters(), strict=True)
    assert all(mine is theirs for mine, theirs in pairs)


def test_an_estimated_trace_is_exact_in_evaluation(make_ffjord: Make) -> None:
    dim = EXACT_UP_TO + 4
    x = draw(4, dim)
    estimated = make_ffjord(dim, divergence="auto")
    exact = make_ffjord(dim, divergence="exact").log_prob(x)
    assert estimated.training_divergence == Divergence(1)
    trained = estimated.likelihood(x, divergence=estimated.training_divergence).log_prob
    assert not torch.allclose(trained, exact, atol=1e-3)
    torch.testing.assert_close(estimated.log_prob(x), exact)


@pytest.mark.parametrize(
    ("dim", "scale", "expected"), [(2, None, 3.0), (8, None, 1.5), (8, 2.0, 2.0)]
)
def test_waves_are_as_long_in_any_dimension(
    make_ffjord: Callable[..., ContinuousFlow], dim: int, scale: float | None, expected: float
) -> None:
    flow = make_ffjord(dim, field=Fourier, features=4000, scale=scale)
    assert flow.state_dict()["transforms.0.field.waves"].std() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("adjoint", [False, True])
def test_a_condition_has_the_same_gradient_when_it_is_given_before(
    make_ffjord: Callable[..., ContinuousFlow], adjoint: bool
) -> None:
    solver = FixedStep(name="rk4", step_size=0.1, adjoint=adjoint)
    flow, x = make_ffjord(context_dim=1, solver=solver), torch.ones(3, 2, dtype=torch.float64)
    grads = []
    for given in (False, True):
        context = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
        log_q = flow.given(context).log_prob(x) if given else flow.log_prob(x, context)
        log_q.sum().backward()
        assert context.grad is not None
        grads.append(context.grad)
    torch.testing.assert_close(*grads)
    assert grads[0].any()


def test_a_condition_with_a_gradient_may_be_solved_in_double_precision(
    make_ffjord: Callable[..., ContinuousFlow],
) -> None:
    solver = FixedStep(name="rk4", step_size=0.1, dtype="float64")
    flow = make_ffjord(context_dim=1, solver=solver, dtype=torch.float32)
    at = flow.given(torch.tensor([0.3], requires_grad=True))
    with torch.no_grad():
        assert at.log_prob(torch.ones(3, 2)).isfinite().all()
    assert at.sample(3).shape == (3, 2)
