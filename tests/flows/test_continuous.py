"""Continuous flows: divergence, likelihood, penalties, sampling and paths."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn
from torch.distributions import Normal

from flowtrain.errors import ConfigError
from flowtrain.flows import ContinuousFlow
from flowtrain.flows.continuous import CNF, Solution
from flowtrain.flows.ode import ADAPTIVE, FIXED, Solver

Make = Callable[..., ContinuousFlow]

DOPRI5 = Solver("dopri5", rtol=1e-5, atol=1e-5, max_steps=200)
TIGHT = Solver("dopri8", rtol=1e-9, atol=1e-9, max_steps=500)
SOLVERS = {name: Solver(name, rtol=1e-6, atol=1e-6, max_steps=5000) for name in ADAPTIVE} | {
    name: Solver(name, step_size=0.01, rtol=1e-9, atol=1e-9) for name in FIXED
}
ESTIMATES = [
    pytest.param(noise, probes, id=f"{noise}-{probes}")
    for noise in ("rademacher", "gaussian")
    for probes in (1, 3)
]
DIRECTIONS = pytest.mark.parametrize(
    ("t0", "t1"), [(0.0, 1.0), (1.0, 0.0)], ids=["forward", "inverse"]
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(n: int = 6, dim: int = 2) -> Tensor:
    return torch.randn(n, dim, generator=seeded(1), dtype=torch.float64)


def tight(make: Make, dim: int = 2, **changes: object) -> ContinuousFlow:
    return make(dim, solver=TIGHT, evaluation_solver=TIGHT, **changes)


def jacobian(flow: ContinuousFlow, t: float, z: Tensor) -> Tensor:
    """Return df/dz by autograd, (n, d, d)."""
    z = z.detach().requires_grad_()
    velocity = flow.velocity(t, z)
    rows = [torch.autograd.grad(v.sum(), z, retain_graph=True)[0] for v in velocity.unbind(-1)]
    return torch.stack(rows, 1)


def hutchinson(make: Make, noise: str, probes: int, dim: int = 3) -> ContinuousFlow:
    flow = make(dim, divergence="hutchinson", noise=noise, probes=probes)
    return flow.train()


class Evaluated:
    """What reaches a flow's field: times, probes, and whether autograd records."""

    def __init__(self, flow: ContinuousFlow) -> None:
        self.probes: list[Tensor] = []
        self.recording: set[bool] = set()
        flow.cnf.field.register_forward_pre_hook(self.remember)

    def remember(self, module: nn.Module, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
        self.probes.append(inputs[2])
        self.recording.add(torch.is_grad_enabled())

    @property
    def count(self) -> int:
        return len(self.probes)


# --- divergence ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_basis_probes_give_the_exact_trace(dim: int, make_ffjord: Make) -> None:
    flow, z = make_ffjord(dim).train(), draw(dim=dim)
    probes = flow.cnf.draw_probes(z, None)
    _, pushed = flow.cnf.field(torch.tensor(0.3, dtype=z.dtype), z, probes)
    expected = jacobian(flow, 0.3, z)
    trace = expected.diagonal(dim1=1, dim2=2).sum(-1)
    torch.testing.assert_close((probes * pushed).sum((0, 2)), trace, rtol=0, atol=1e-10)
    squares = expected.square().sum((1, 2))
    torch.testing.assert_close(pushed.square().sum((0, 2)), squares, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("noise", "probes"), ESTIMATES)
def test_hutchinson_estimates_are_unbiased(noise: str, probes: int, make_ffjord: Make) -> None:
    flow = hutchinson(make_ffjord, noise, probes)
    z = draw(1, 3).expand(20_000, 3)  # as many independent estimates at one point
    v = flow.cnf.draw_probes(z, seeded())
    assert v.shape == (probes, 20_000, 3)
    _, pushed = flow.cnf.field(torch.tensor(0.3, dtype=z.dtype), z, v)
    expected = jacobian(flow, 0.3, z[:1])[0]
    for estimates, truth in (
        ((v * pushed).sum((0, 2)), expected.trace()),
        (pushed.square().sum((0, 2)), expected.square().sum()),
    ):
        assert standard_errors_off(estimates, truth) < 4
        assert standard_errors_off(1.25 * estimates, truth) > 4  # a wrong scaling would be seen
        assert standard_errors_off(-estimates, truth) > 4


def standard_errors_off(estimates: Tensor, truth: Tensor) -> float:
    error = estimates.std() / len(estimates) ** 0.5
    off: Tensor = (estimates.mean() - truth).abs() / error
    return off.item()


def test_noise_is_of_the_kind_asked_for(make_ffjord: Make) -> None:
    z = draw(2000, 3)
    signs = hutchinson(make_ffjord, "rademacher", 4).cnf.draw_probes(z, seeded())
    assert torch.equal(signs.unique(), torch.tensor([-0.5, 0.5], dtype=z.dtype))
    bell = hutchinson(make_ffjord, "gaussian", 4).cnf.draw_probes(z, seeded())
    kurtosis = (2 * bell).pow(4).mean()  # 1 for signs
    torch.testing.assert_close(kurtosis, torch.tensor(3.0, dtype=z.dtype), rtol=0, atol=0.2)


def test_probes_are_drawn_once_a_solve_from_the_given_generator(make_ffjord: Make) -> None:
    flow, x = hutchinson(make_ffjord, "rademacher", 2), draw(dim=3)
    evaluated, generator, before = Evaluated(flow), seeded(5), torch.get_rng_state()
    flow.likelihood(x, generator)
    expected = flow.cnf.draw_probes(x, reference := seeded(5))
    assert evaluated.count > 10
    assert all(torch.equal(probes, expected) for probes in evaluated.probes)
    assert torch.equal(generator.get_state(), reference.get_state())
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(flow.cnf.draw_probes(x, generator), expected)


def test_evaluation_is_exact_where_training_estimates(make_ffjord: Make) -> None:
    flow = make_ffjord(divergence="hutchinson")
    x, exact = draw(), make_ffjord().eval()
    assert torch.equal(flow.eval().log_prob(x), exact.log_prob(x))
    assert (flow.train().log_prob(x) - exact.log_prob(x)).abs().max() > 0.01


@pytest.mark.parametrize("settings", [{"probes": 2}, {"noise": "gaussian"}])
def test_settings_of_an_estimate_are_refused_where_the_trace_is_exact(
    settings: dict[str, object], make_ffjord: Make
) -> None:
    with pytest.raises(ConfigError, match=r"model\.divergence=hutchinson"):
        make_ffjord(divergence="auto", **settings)
    make_ffjord(9, divergence="auto", **settings)  # too many dimensions for an exact one


# --- likelihood ---------------------------------------------------------------------------------


class Linear(nn.Module):
    """The field f = A z."""

    matrix = torch.tensor([[0.5, -1.0], [0.8, -0.2]], dtype=torch.float64)

    def forward(self, t: Tensor, z: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        return z @ self.matrix.T, tangents @ self.matrix.T


@DIRECTIONS
@pytest.mark.parametrize("method", SOLVERS)
def test_a_linear_field_has_a_known_solution(method: str, t0: float, t1: float) -> None:
    cnf = CNF(
        Linear(), dim=2, divergence="exact", probes=None, noise=None,
        solver=SOLVERS[method], evaluation_solver=SOLVERS[method],
    )  # fmt: skip
    z = draw()
    solution = cnf.solve(z, t0, t1, log_det=True, jacobian=True)
    expected = z @ torch.linalg.matrix_exp((t1 - t0) * Linear.matrix).T
    error = 3e-2 if method == "euler" else 5e-4
    torch.testing.assert_close(solution.end, expected, rtol=0, atol=error)
    log_det = torch.full((6,), (t1 - t0) * 0.3, dtype=z.dtype)  # the trace is constant
    torch.testing.assert_close(solution.log_det, log_det, rtol=0, atol=1e-10)
    frobenius = torch.full((6,), 0.25 + 1.0 + 0.64 + 0.04, dtype=z.dtype)
    torch.testing.assert_close(solution.jacobian, frobenius, rtol=0, atol=1e-10)


@pytest.fixture(scope="module")
def trained(make_ffjord: Make) -> ContinuousFlow:
    """Return a float32 flow trained for a moment on two blobs."""
    coarse = Solver("dopri5", rtol=1e-3, atol=1e-3, max_steps=100)
    flow = make_ffjord(dtype=torch.float32, solver=coarse).train()
    optimizer, generator = torch.optim.Adam(flow.parameters(), lr=2e-2), seeded()
    for _ in range(25):
        blobs = 0.3 * torch.randn(128, 2, generator=generator)
        blobs[::2] += 1.0
        optimizer.zero_grad()
        (-flow.log_prob(flow.standardize(blobs)[0]).mean()).backward()
        optimizer.step()
    return flow.eval()


def standard_normal(z: Tensor) -> Tensor:
    log_prob: Tensor = Normal(0.0, 1.0).log_prob(z)
    return log_prob.sum(-1)


def log_prob_by_scipy(flow: ContinuousFlow, x: Tensor) -> Tensor:
    """Integrate the whitened ODE and its trace, by autograd, in float64 with another solver."""
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
    kind: str, make_ffjord: Make, trained: ContinuousFlow
) -> None:
    flow = trained if kind == "trained" else make_ffjord(dtype=torch.float32).eval()
    x = flow.sample(32, seeded())
    truth = log_prob_by_scipy(widened(flow), x.double())
    double = replace(DOPRI5, rtol=1e-7, atol=1e-7, dtype=torch.float64)
    for solver, error in ((DOPRI5, 1e-4), (double, 1e-6)):
        found = flow.with_solver(solver).log_prob(x)
        assert found.dtype == torch.float32
        assert (found - truth).mean().abs() < error
        assert (found - truth).abs().max() < 10 * error


@pytest.mark.parametrize("adjoint", [False, True], ids=["backprop", "adjoint"])
def test_a_float64_solver_of_a_float32_model(adjoint: bool, make_ffjord: Make) -> None:
    double = Solver(
        "dopri5", rtol=1e-8, atol=1e-8, max_steps=500, dtype=torch.float64, adjoint=adjoint
    )
    flow = make_ffjord(dtype=torch.float32, solver=double).train()
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
def test_evaluations_are_counted_exactly(adjoint: bool, make_ffjord: Make) -> None:
    flow = make_ffjord(solver=replace(DOPRI5, adjoint=adjoint)).train()
    evaluated = Evaluated(flow)
    found = flow.likelihood(draw())
    forward = evaluated.count
    assert (found.evaluations.forward, found.evaluations.backward) == (forward, 0)
    found.log_prob.mean().backward()
    assert found.evaluations.forward == forward
    assert found.evaluations.backward == evaluated.count - forward
    assert (found.evaluations.backward > 0) == adjoint


@pytest.mark.parametrize("use", ["log_prob", "sample"])
def test_each_mode_has_one_solver_for_all_uses(use: str, make_ffjord: Make) -> None:
    flow = make_ffjord(solver=fixed_euler(0.5), evaluation_solver=fixed_euler(0.1))
    evaluated = Evaluated(flow)
    for training, expected in ((True, 2), (False, 2 + 10)):
        flow.train(training)
        flow.log_prob(draw()) if use == "log_prob" else flow.sample(6, seeded())
        assert evaluated.count == expected


def fixed_euler(step_size: float) -> Solver:
    return Solver("euler", step_size=step_size)


# --- penalties ----------------------------------------------------------------------------------


def bits(solution: Solution) -> tuple[Tensor, Tensor, int]:
    assert solution.log_det is not None
    return solution.end, solution.log_det, solution.evaluations.forward


@DIRECTIONS
@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
@pytest.mark.parametrize("method", ["dopri5", "bosh3", "rk4", "implicit_adams"])
def test_penalties_leave_the_path_alone_bit_for_bit(
    method: str, divergence: str, t0: float, t1: float, make_ffjord: Make
) -> None:
    solver = Solver(method, rtol=1e-4, atol=1e-4, max_steps=100, step_size=0.05)
    flow = make_ffjord(dtype=torch.float32, divergence=divergence, solver=solver).train()
    z = draw(33).float()
    plain = flow.cnf.solve(z, t0, t1, log_det=True, generator=seeded())
    for kinetic, jacobian in ((True, False), (False, True), (True, True)):
        found = flow.cnf.solve(
            z, t0, t1, log_det=True, kinetic=kinetic, jacobian=jacobian, generator=seeded()
        )
        assert (found.kinetic is None, found.jacobian is None) == (not kinetic, not jacobian)
        for mine, theirs in zip(bits(found), bits(plain), strict=True):
            assert torch.equal(torch.as_tensor(mine), torch.as_tensor(theirs))


def test_penalties_never_enter_log_prob(make_ffjord: Make) -> None:
    flow, x = make_ffjord().eval(), draw()
    found = flow.likelihood(x, kinetic=True, jacobian=True)
    torch.testing.assert_close(found.log_prob, flow.log_prob(x))


@DIRECTIONS
def test_penalties_are_integrals_along_the_path(t0: float, t1: float, make_ffjord: Make) -> None:
    flow, z = tight(make_ffjord), draw()
    solution = flow.cnf.solve(z, t0, t1, kinetic=True, jacobian=True)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    times = torch.from_numpy(t0 + (t1 - t0) * (nodes + 1) / 2)
    kinetic, frobenius = torch.zeros(6, dtype=z.dtype), torch.zeros(6, dtype=z.dtype)
    for t, weight in zip(times, weights / 2, strict=True):
        there = flow.cnf.solve(z, t0, t.item()).end
        kinetic += weight * flow.velocity(t, there).square().sum(-1)
        frobenius += weight * jacobian(flow, t.item(), there).square().sum((1, 2))
    torch.testing.assert_close(solution.kinetic, kinetic, rtol=1e-4, atol=0)
    torch.testing.assert_close(solution.jacobian, frobenius, rtol=1e-4, atol=0)


@DIRECTIONS
def test_kinetic_energy_bounds_the_squared_displacement(
    t0: float, t1: float, make_ffjord: Make
) -> None:
    flow, z = make_ffjord(), draw()
    solution = flow.cnf.solve(z, t0, t1, kinetic=True)
    assert solution.kinetic is not None
    assert (solution.kinetic >= (solution.end - z).square().sum(-1) - 1e-4).all()
    assert (solution.kinetic > 0.01).all()


# --- sampling and paths -------------------------------------------------------------------------


def test_sampling_solves_z_alone(make_ffjord: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = make_ffjord(divergence="hutchinson").requires_grad_(False)
    evaluated = Evaluated(flow)
    monkeypatch.setattr(CNF, "draw_probes", None)  # not to be called
    for mode in (True, False):
        sample = flow.train(mode).sample(9, seeded())
        assert sample.shape == (9, 2)
        assert not sample.requires_grad
    assert {probes.shape for probes in evaluated.probes} == {(0, 9, 2)}
    assert evaluated.recording == {False}


def test_likelihood_needs_no_autograd(make_ffjord: Make) -> None:
    flow, x = make_ffjord(solver=replace(DOPRI5, adjoint=True)).train(), draw()
    expected = flow.log_prob(x)
    with torch.no_grad():
        assert torch.equal(flow.log_prob(x), expected)
    assert torch.equal(flow.requires_grad_(False).log_prob(x), expected)


TIMES = torch.tensor([0.0, 0.2, 0.5, 1.0])


def test_trajectory_runs_from_base_to_data(make_ffjord: Make) -> None:
    flow, z = tight(make_ffjord), draw()
    path = flow.trajectory(z, TIMES)
    assert path.shape == (4, 6, 2)
    assert torch.equal(path[0], flow.standardize(z)[0])
    torch.testing.assert_close(path[-1], flow(z)[0], rtol=0, atol=1e-8)
    middle = flow.standardize(flow.cnf.solve(z, 0.0, 0.5).end)[0]
    torch.testing.assert_close(path[2], middle, rtol=0, atol=1e-4)  # interpolated


@pytest.mark.parametrize("times", [[0.0], [1.0], [0.5], [0.5, 1.0], [0.0, 0.5]], ids=str)
def test_trajectory_takes_any_increasing_times(times: list[float], make_ffjord: Make) -> None:
    flow, z = tight(make_ffjord), draw()
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
    flow, z, h = tight(make_ffjord), draw(), 1e-3
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


def test_log_prob_at_follows_the_density_through_time(make_ffjord: Make) -> None:
    flow, x = make_ffjord().eval(), draw()
    assert torch.equal(flow.log_prob_at(1.0, x), flow.log_prob(x))
    white, log_det = flow.standardize.inverse(x)
    base = standard_normal(white) + log_det
    torch.testing.assert_close(flow.log_prob_at(0.0, x), base)
    h = 1e-4  # d log q / dt = -div f - f . grad log q
    point = white.clone().requires_grad_()
    (score,) = torch.autograd.grad(standard_normal(point).sum(), point)
    trace = jacobian(flow, 0.0, white).diagonal(dim1=1, dim2=2).sum(-1)
    expected = -trace - (flow.velocity(0.0, white) * score).sum(-1)
    slope = (flow.log_prob_at(h, x) - base) / h
    torch.testing.assert_close(slope, expected, rtol=0, atol=1e-2)


def test_with_solver_shares_the_weights_and_leaves_the_original_alone(make_ffjord: Make) -> None:
    flow, x = make_ffjord().train(), draw()
    before, modes = flow.log_prob(x), [module.training for module in flow.modules()]
    coarse = flow.with_solver(Solver("euler", step_size=0.25))
    evaluated = Evaluated(coarse)
    coarse.log_prob(x)
    assert evaluated.count == 4
    assert [module.training for module in flow.modules()] == modes
    assert torch.equal(flow.log_prob(x), before)
    assert flow.cnf.evaluation_solver == DOPRI5
    pairs = zip(flow.parameters(), coarse.parameters(), strict=True)
    assert all(mine is theirs for mine, theirs in pairs)


def test_an_estimated_trace_is_exact_in_evaluation(make_ffjord: Make) -> None:
    dim = 12  # more than training computes exactly by itself
    x = torch.randn(4, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    estimated = make_ffjord(dim, divergence="auto")
    exact = make_ffjord(dim, divergence="exact").eval()
    assert not estimated.cnf.exact
    assert not torch.allclose(estimated.train().log_prob(x), exact.log_prob(x), atol=1e-3)
    torch.testing.assert_close(estimated.eval().log_prob(x), exact.log_prob(x))
