"""The continuous transform: its divergence, exact solutions, and penalties along the path."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flowtrain.config.model import EXACT_EVALUATION_UP_TO
from flowtrain.config.section import names
from flowtrain.config.solver import Adaptive, FixedStep, Implicit, Solver
from flowtrain.flows.cnf import (
    CNF,
    EXACT_UP_TO,
    Divergence,
    Solution,
    choose_divergence,
)
from flowtrain.flows.continuous import ContinuousFlow

Make = Callable[..., ContinuousFlow]
Jacobian = Callable[[ContinuousFlow, float, Tensor], Tensor]
Watch = Callable[[ContinuousFlow], Any]

TIGHT = Adaptive(name="dopri8", rtol=1e-9, atol=1e-9)
ESTIMATES = [
    pytest.param(Divergence(probes, noise), id=f"{noise}-{probes}")
    for noise in ("rademacher", "gaussian")
    for probes in (1, 3)
]
DIRECTIONS = pytest.mark.parametrize(
    ("t0", "t1"), [(0.0, 1.0), (1.0, 0.0)], ids=["forward", "inverse"]
)


def solvers(
    *, tolerance: float, max_steps: int, step_size: float, implicit_tolerance: float
) -> dict[str, Solver]:
    """Return a solver of every method."""
    made: dict[str, Solver] = {}
    for name in names(Adaptive):
        settings: dict[str, Any] = {"name": name, "max_steps": max_steps}
        made[name] = Adaptive(**settings, rtol=tolerance, atol=tolerance)
    for name in names(FixedStep):
        made[name] = FixedStep.model_validate({"name": name, "step_size": step_size})
    for name in names(Implicit):
        settings = {"name": name, "step_size": step_size}
        made[name] = Implicit(**settings, rtol=implicit_tolerance, atol=implicit_tolerance)
    return made


FINE = solvers(tolerance=1e-6, max_steps=5000, step_size=0.01, implicit_tolerance=1e-9)
COARSE = solvers(tolerance=1e-4, max_steps=100, step_size=0.05, implicit_tolerance=1e-4)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(n: int = 6, dim: int = 2) -> Tensor:
    return torch.randn(n, dim, generator=seeded(1), dtype=torch.float64)


# --- divergence ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_basis_probes_give_the_exact_trace(dim: int, make_ffjord: Make, jacobian: Jacobian) -> None:
    flow, z = make_ffjord(dim), draw(dim=dim)
    probes = Divergence().draw(z, None)
    _, pushed = flow.cnf.field(torch.tensor(0.3, dtype=z.dtype), z, probes)
    expected = jacobian(flow, 0.3, z)
    trace = expected.diagonal(dim1=1, dim2=2).sum(-1)
    torch.testing.assert_close((probes * pushed).sum((0, 2)), trace, rtol=0, atol=1e-10)
    squares = expected.square().sum((1, 2))
    torch.testing.assert_close(pushed.square().sum((0, 2)), squares, rtol=0, atol=1e-10)


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_hutchinson_estimates_are_unbiased(
    estimate: Divergence, make_ffjord: Make, jacobian: Jacobian
) -> None:
    flow = make_ffjord(3)
    z = draw(1, 3).expand(20_000, 3)  # as many independent estimates at one point
    v = estimate.draw(z, seeded())
    assert v.shape == (estimate.probes, 20_000, 3)
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


def test_noise_is_of_the_kind_asked_for() -> None:
    z = draw(2000, 3)
    signs = Divergence(4, "rademacher").draw(z, seeded())
    assert torch.equal(signs.unique(), torch.tensor([-0.5, 0.5], dtype=z.dtype))
    bell = Divergence(4, "gaussian").draw(z, seeded())
    kurtosis = (2 * bell).pow(4).mean()  # 1 for signs
    torch.testing.assert_close(kurtosis, torch.tensor(3.0, dtype=z.dtype), rtol=0, atol=0.2)


def test_probes_are_drawn_once_a_solve_from_the_given_generator(
    make_ffjord: Make, watch: Watch
) -> None:
    flow, x, estimate = make_ffjord(3), draw(dim=3), Divergence(2)
    evaluated, generator, before = watch(flow), seeded(5), torch.get_rng_state()
    flow.likelihood(x, generator, divergence=estimate)
    expected = estimate.draw(x, reference := seeded(5))
    assert evaluated.count > 10
    assert all(torch.equal(probes, expected) for probes in evaluated.probes)
    assert torch.equal(generator.get_state(), reference.get_state())
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(estimate.draw(x, generator), expected)


def test_without_a_generator_each_row_decides_its_own_signs() -> None:
    x, estimate, before = draw(4000, 3), Divergence(2, "gaussian"), torch.get_rng_state()
    signs = (estimate.draw(x, None) * 2**0.5).round()
    assert torch.equal(signs.abs(), torch.ones_like(signs))
    order = torch.randperm(len(x), generator=seeded())
    assert torch.equal((estimate.draw(x[order], None) * 2**0.5).round(), signs[:, order])
    single = (estimate.draw(x.float(), None) * 2**0.5).round()
    assert (single == signs).double().mean() > 0.999  # a row is read to three digits
    assert torch.equal(torch.get_rng_state(), before)
    # Independent: the means of signs, and of products of two, of one row or of neighbours, are 0.
    columns = torch.cat([signs.transpose(0, 1).flatten(1), signs.roll(1, 1)[0]], 1)
    means = torch.cat([columns.mean(0), torch.triu(columns.T @ columns, 1).flatten() / len(x)])
    assert means.abs().max() < 4.5 / len(x) ** 0.5


def test_an_estimated_log_prob_is_that_of_the_row_alone(make_ffjord: Make) -> None:
    """Its error is then as independent as rows are, and a standard error over rows is true."""
    flow, x = make_ffjord(3), draw(400, dim=3)
    estimated = ContinuousFlow(
        CNF(flow.cnf.field, dim=3, solver=TIGHT, divergence=Divergence(1)), flow.standardize
    )
    log_q = estimated.log_prob(x)
    parts = torch.cat([estimated.log_prob(rows) for rows in x.split(7)])
    torch.testing.assert_close(parts, log_q, rtol=0, atol=1e-6)
    off = log_q - flow.log_prob(x)
    assert off.std() > 1e-2
    assert standard_errors_off(off, torch.tensor(0.0)) < 4


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_an_estimated_inverse_undoes_the_forward_map(
    estimate: Divergence, make_ffjord: Make
) -> None:
    field = make_ffjord(3).cnf.field
    cnf, z = CNF(field, dim=3, solver=TIGHT, divergence=estimate), draw(dim=3)
    x, log_det = cnf(z)
    back, back_log_det = cnf.inverse(x)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-6)
    torch.testing.assert_close(back_log_det, -log_det, rtol=0, atol=1e-6)
    exact = CNF(field, dim=3, solver=TIGHT, divergence=Divergence())(z)[1]
    assert (log_det - exact).abs().max() > 0.01


def test_the_divergence_of_training_is_the_one_asked_for() -> None:
    few, many = EXACT_UP_TO, EXACT_UP_TO + 1
    plain: dict[str, Any] = {"probes": None, "noise": None}
    for name, dim in (("exact", few), ("exact", many), ("auto", few)):
        assert choose_divergence(name, dim, **plain) == Divergence()
    for name, dim in (("hutchinson", 1), ("hutchinson", many), ("auto", many)):
        assert choose_divergence(name, dim, **plain) == Divergence(1, "rademacher")
        found = choose_divergence(name, dim, probes=3, noise="gaussian")
        assert found == Divergence(3, "gaussian")


@pytest.mark.parametrize("settings", [{"probes": 2}, {"noise": "gaussian"}])
@pytest.mark.parametrize("name", ["auto", "exact"])
def test_settings_of_an_estimate_are_refused_where_the_trace_is_exact(
    name: str, settings: dict[str, Any], make_ffjord: Make
) -> None:
    with pytest.raises(
        ValueError, match=f"in 2 dimensions divergence={name} is exact.*choose hutchinson"
    ):
        choose_divergence(name, 2, **{"probes": None, "noise": None, **settings})
    with pytest.raises(ValueError, match="choose hutchinson"):
        make_ffjord(divergence=name, **settings)


@pytest.mark.parametrize("settings", [{"probes": 2}, {"noise": "gaussian"}])
def test_auto_takes_them_in_too_many_dimensions_for_an_exact_trace(
    settings: dict[str, Any], make_ffjord: Make
) -> None:
    estimate = make_ffjord(EXACT_UP_TO + 1, divergence="auto", **settings).training_divergence
    assert estimate == Divergence(settings.get("probes", 1), settings.get("noise", "rademacher"))


def test_evaluation_is_exact_up_to_many_dimensions(make_ffjord: Make) -> None:
    settings: dict[str, Any] = {"divergence": "hutchinson", "probes": 2, "width": 4}
    for dim in (2, EXACT_EVALUATION_UP_TO):
        flow = make_ffjord(dim, **settings)
        assert (flow.cnf.divergence, flow.training_divergence) == (Divergence(), Divergence(2))
    flow = make_ffjord(EXACT_EVALUATION_UP_TO + 1, **settings)
    assert flow.cnf.divergence == flow.training_divergence == Divergence(2)


# --- exact solutions ----------------------------------------------------------------------------


class Linear(nn.Module):
    """The field f = A z."""

    matrix = torch.tensor([[0.5, -1.0], [0.8, -0.2]], dtype=torch.float64)

    def forward(self, t: Tensor, z: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        return z @ self.matrix.T, tangents @ self.matrix.T


@DIRECTIONS
@pytest.mark.parametrize("method", FINE)
def test_a_linear_field_has_a_known_solution(method: str, t0: float, t1: float) -> None:
    cnf = CNF(Linear(), dim=2, solver=FINE[method], divergence=Divergence())
    z = draw()
    solution = cnf.solve(z, t0, t1, log_det=True, jacobian=True)
    expected = z @ torch.linalg.matrix_exp((t1 - t0) * Linear.matrix).T
    error = 3e-2 if method == "euler" else 5e-4
    torch.testing.assert_close(solution.end, expected, rtol=0, atol=error)
    log_det = torch.full((6,), (t1 - t0) * 0.3, dtype=z.dtype)  # the trace is constant
    torch.testing.assert_close(solution.log_det, log_det, rtol=0, atol=1e-10)
    frobenius = torch.full((6,), 0.25 + 1.0 + 0.64 + 0.04, dtype=z.dtype)
    torch.testing.assert_close(solution.jacobian, frobenius, rtol=0, atol=1e-10)


def test_forward_and_inverse_take_the_transforms_own_solver_and_divergence() -> None:
    euler = FixedStep(name="euler", step_size=0.5)
    cnf, z = CNF(Linear(), dim=2, solver=euler, divergence=Divergence(1, "gaussian")), draw()
    for found, (t0, t1) in ((cnf(z), (0.0, 1.0)), (cnf.inverse(z), (1.0, 0.0))):
        solution = cnf.solve(
            z, t0, t1, log_det=True, solver=euler, divergence=cnf.divergence, generator=seeded(0)
        )
        assert torch.equal(found[0], solution.end)
        assert solution.log_det is not None
        assert torch.equal(found[1], solution.log_det)
        other = cnf.solve(z, t0, t1, log_det=True, solver=FINE["rk4"], divergence=Divergence())
        assert (found[0] - other.end).abs().max() > 0.01
        assert other.log_det is not None
        assert (found[1] - other.log_det).abs().max() > 0.01


# --- penalties ----------------------------------------------------------------------------------


def bits(solution: Solution) -> tuple[Tensor, Tensor, int]:
    assert solution.log_det is not None
    return solution.end, solution.log_det, solution.evaluations.forward


@DIRECTIONS
@pytest.mark.parametrize("divergence", [Divergence(), Divergence(1)], ids=["exact", "hutchinson"])
@pytest.mark.parametrize("method", ["dopri5", "bosh3", "rk4", "implicit_adams"])
def test_penalties_leave_the_path_alone_bit_for_bit(
    method: str, divergence: Divergence, t0: float, t1: float, make_ffjord: Make
) -> None:
    field = make_ffjord(dtype=torch.float32).cnf.field
    cnf = CNF(field, dim=2, solver=COARSE[method], divergence=divergence)
    z = draw(33).float()
    plain = cnf.solve(z, t0, t1, log_det=True, generator=seeded())
    for kinetic, jacobian in ((True, False), (False, True), (True, True)):
        found = cnf.solve(
            z, t0, t1, log_det=True, kinetic=kinetic, jacobian=jacobian, generator=seeded()
        )
        assert (found.kinetic is None, found.jacobian is None) == (not kinetic, not jacobian)
        for mine, theirs in zip(bits(found), bits(plain), strict=True):
            assert torch.equal(torch.as_tensor(mine), torch.as_tensor(theirs))


@DIRECTIONS
def test_penalties_are_integrals_along_the_path(
    t0: float, t1: float, make_ffjord: Make, jacobian: Jacobian
) -> None:
    flow, z = make_ffjord(solver=TIGHT), draw()
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
