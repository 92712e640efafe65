"""Losses, and the scalars that go with them."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flowtrain.config.solver import Adaptive, FixedStep
from flowtrain.densities.conditional import Components
from flowtrain.densities.mixtures import GaussianMixture
from flowtrain.errors import ConfigError
from flowtrain.flows.cnf import Divergence
from flowtrain.flows.continuous import ContinuousFlow, Likelihood
from flowtrain.flows.flow import Flow, Standardize
from flowtrain.flows.linear import affine
from flowtrain.training.objectives import (
    MaximumLikelihood,
    ReverseKL,
    Scalars,
    check_objective,
)

Make = Callable[..., ContinuousFlow]

WEIGHTS = [(0.0, 0.0), (0.3, 0.0), (0.0, 0.7), (0.3, 0.7)]
DOPRI5 = Adaptive(name="dopri5", rtol=1e-5, atol=1e-5, max_steps=200)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def batch() -> Tensor:
    return torch.randn(8, 2, generator=seeded(), dtype=torch.float64)


def test_maximum_likelihood_is_the_mean_nll(make_ffjord: Make) -> None:
    flow = make_ffjord()
    loss, scalars = MaximumLikelihood()(flow, batch(), seeded())
    assert loss == -flow.log_prob(batch()).mean()
    assert scalars().keys() == {"nll/batch", "nfe/forward", "nfe/backward"}


def test_a_discrete_flow_has_its_nll_alone() -> None:
    flow = affine(Standardize(torch.zeros(2), torch.ones(2)), generator=seeded()).double()
    loss, scalars = MaximumLikelihood()(flow, batch(), seeded())
    assert loss == -flow.log_prob(batch()).mean()
    assert scalars() == {"nll/batch": loss.item()}


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
@pytest.mark.parametrize(("kinetic", "jacobian"), WEIGHTS)
def test_loss_is_the_nll_plus_the_weighted_penalties(
    kinetic: float, jacobian: float, divergence: str, make_ffjord: Make
) -> None:
    flow = make_ffjord(divergence=divergence)
    trained = flow.training_divergence
    objective = MaximumLikelihood(divergence=trained, kinetic=kinetic, jacobian=jacobian)
    loss, scalars = objective(flow, batch(), seeded())
    found = flow.likelihood(batch(), seeded(), divergence=trained, kinetic=True, jacobian=True)
    assert found.kinetic is not None
    assert found.jacobian is not None
    parts = {"kinetic": (kinetic, found.kinetic), "jacobian": (jacobian, found.jacobian)}
    expected = -found.log_prob.mean() + sum(weight * part.mean() for weight, part in parts.values())
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)

    logged: dict[str, float] = {"nfe/forward": found.evaluations.forward, "nfe/backward": 0}
    logged["nll/batch"] = -found.log_prob.mean().item()  # without the penalties
    for name, (weight, part) in parts.items():
        if weight:
            logged[f"regularization/{name}"] = part.mean().item()
            logged[f"regularization/{name}_weighted"] = weight * part.mean().item()
    assert scalars() == pytest.approx(logged, rel=1e-12)


@pytest.mark.parametrize(("kinetic", "jacobian"), WEIGHTS)
def test_a_penalty_of_weight_zero_is_not_integrated(
    kinetic: float, jacobian: float, make_ffjord: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Likelihood] = []
    likelihood = ContinuousFlow.likelihood

    def spy(flow: ContinuousFlow, *args: Any, **asked: Any) -> Likelihood:
        found.append(likelihood(flow, *args, **asked))
        return found[-1]

    monkeypatch.setattr(ContinuousFlow, "likelihood", spy)
    MaximumLikelihood(kinetic=kinetic, jacobian=jacobian)(make_ffjord(), batch(), seeded())
    assert (found[0].kinetic is not None, found[0].jacobian is not None) == (
        kinetic > 0,
        jacobian > 0,
    )


def test_reverse_kl_is_the_closed_form_for_gaussians() -> None:
    """KL(N(m, q²) | N(c, s²)) = log s / q + (q² + (m - c)²) / 2 s² - 1 / 2, in each coordinate."""
    flow = affine(Standardize(torch.ones(2), torch.full((2,), 0.5)), generator=seeded()).double()
    target = GaussianMixture(
        means=[[0.5, 1.0]], covariances=[[[1.0, 0.0], [0.0, 4.0]]], weights=[1.0]
    )
    expected = sum(
        math.log(s / 0.5) + (0.25 + apart**2) / (2 * s**2) - 0.5
        for s, apart in ((1.0, 0.5), (2.0, 0.0))
    )
    x = torch.zeros(200_000, 2, dtype=torch.float64)
    for gradient in ("total", "path"):
        loss, scalars = ReverseKL(target, gradient=gradient)(flow, x, seeded())
        assert loss.item() == pytest.approx(expected, abs=0.01)
        assert scalars() == {"kl_reverse/batch": loss.item()}


def gradients(flow: Flow, objective: ReverseKL, n: int) -> Tensor:
    """Return the gradients of the weights over 200 batches of n, (200, weights)."""
    found, generator = [], seeded()
    for _ in range(200):
        flow.zero_grad()
        objective(flow, torch.zeros(n, 2, dtype=torch.float64), generator)[0].backward()
        found.append(torch.cat([weight.grad.flatten() for weight in flow.parameters()]))  # type: ignore[union-attr]
    assert all(weight.requires_grad for weight in flow.parameters())
    return torch.stack(found)


def test_the_path_gradient_has_the_same_mean_and_no_noise_at_the_target() -> None:
    flow = affine(Standardize(torch.zeros(2), torch.ones(2)), generator=seeded()).double()
    near = GaussianMixture(means=[[0.3, 0.0]], covariances=[[[1.2, 0.0], [0.0, 1.0]]], weights=[1])
    total, path = (gradients(flow, ReverseKL(near, gradient=g), 64) for g in ("total", "path"))
    error = ((total.var(0) + path.var(0)) / len(total)).sqrt()
    assert ((total.mean(0) - path.mean(0)).abs() < 4 * error + 1e-12).all()
    itself = GaussianMixture(
        means=[[0.0, 0.0]], covariances=[[[1.0, 0.0], [0.0, 1.0]]], weights=[1]
    )
    total, path = (gradients(flow, ReverseKL(itself, gradient=g), 64) for g in ("total", "path"))
    assert path.abs().max() < 1e-9 < total.std()


def test_a_continuous_flow_is_pushed_by_the_training_solver(make_ffjord: Make) -> None:
    flow = make_ffjord()
    coarse = FixedStep(name="euler", step_size=0.5)
    target = GaussianMixture(
        means=[[0.0, 0.0]], covariances=[[[1.0, 0.0], [0.0, 1.0]]], weights=[1]
    )
    losses = [
        ReverseKL(target, gradient="total", solver=solver)(flow, batch(), seeded())[0]
        for solver in (None, flow.solver, coarse)
    ]
    assert losses[0] == losses[1] != losses[2]
    losses[2].backward()
    assert all(weight.grad is not None for weight in flow.parameters())


def test_penalties_have_gradients(make_ffjord: Make) -> None:
    def gradient(objective: MaximumLikelihood) -> Tensor:
        flow = make_ffjord()
        objective(flow, batch(), seeded())[0].backward()
        return torch.cat([weight.grad.ravel() for weight in flow.parameters()])  # type: ignore[union-attr]

    plain = gradient(MaximumLikelihood())
    for objective in (MaximumLikelihood(kinetic=1.0), MaximumLikelihood(jacobian=1.0)):
        assert (gradient(objective) - plain).norm() > 0.01 * plain.norm()


def test_probes_come_from_the_generator(make_ffjord: Make) -> None:
    flow, generator = make_ffjord(divergence="hutchinson"), seeded()
    objective = MaximumLikelihood(divergence=flow.training_divergence)
    first, second = (objective(flow, batch(), generator)[0] for _ in range(2))
    assert first != second
    assert first == objective(flow, batch(), seeded())[0]


@pytest.mark.parametrize("adjoint", [False, True], ids=["backprop", "adjoint"])
def test_scalars_count_the_backward_pass_when_read_after_it(
    adjoint: bool, make_ffjord: Make
) -> None:
    flow, solver = make_ffjord(), DOPRI5.model_copy(update={"adjoint": adjoint})
    calls: list[nn.Module] = []
    flow.cnf.field.register_forward_hook(lambda module, *_: calls.append(module))
    objective = MaximumLikelihood(solver=solver, kinetic=0.1, jacobian=0.1)
    loss, scalars = objective(flow, batch(), seeded())
    forward = len(calls)
    loss.backward()
    counts = scalars()
    assert (counts["nfe/forward"], counts["nfe/backward"]) == (forward, len(calls) - forward)
    assert (counts["nfe/backward"] > 0) == adjoint


def test_training_reads_its_own_solver_and_divergence(make_ffjord: Make) -> None:
    flow = make_ffjord()
    coarse, one_probe = FixedStep(name="euler", step_size=0.5), Divergence(probes=1)
    for objective in (MaximumLikelihood(solver=coarse), MaximumLikelihood(divergence=one_probe)):
        loss, _ = objective(flow, batch(), seeded())
        found = flow.likelihood(
            batch(), seeded(), solver=objective.solver, divergence=objective.divergence
        )
        assert loss == -found.log_prob.mean()
        assert loss != -flow.log_prob(batch()).mean()


# --- flow matching ------------------------------------------------------------------------------


def test_the_conditional_kl_is_at_the_samples_own_conditions(make_ffjord: Make) -> None:
    law = Components(
        GaussianMixture(
            means=[[-2.0, 0.0], [2.0, 0.0]], covariances=[[[1.0, 0.0], [0.0, 1.0]]] * 2,
            weights=[1.0, 3.0],
        )
    )  # fmt: skip
    standardize = Standardize(torch.zeros(2), torch.ones(2))
    flow = affine(standardize, generator=seeded(), context_dim=2).double()
    context = law.sample(8, seeded())[1]
    objective = ReverseKL(law, gradient="total")
    assert objective(flow, batch(), seeded(), context)[0] > 1
    with torch.no_grad():  # z = x - m_c: the truth
        flow.get_parameter("transforms.0.shift.weight")[0] = torch.tensor([2.0, -2.0])
    assert objective(flow, batch(), seeded(), context)[0].abs() < 1e-9


def nll(flow: Flow, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Scalars]:
    return -flow.log_prob(x).mean(), lambda: {"points": len(x)}


def test_an_objective_that_keeps_to_the_contract_is_accepted(make_ffjord: Make) -> None:
    check_objective(nll, make_ffjord())


@pytest.mark.parametrize(
    ("objective", "problem"),
    [
        ("no function", "TypeError: 'str' object is not callable"),
        (lambda flow, x, generator: 1 / 0, "ZeroDivisionError: division by zero"),
        (
            lambda flow, x, generator: (-flow.log_prob(x), dict),
            "the loss must be a finite scalar tensor, got the shape (8,)",
        ),
        (
            lambda flow, x, generator: (math.inf * flow.log_prob(x).sum(), dict),
            "the loss must be a finite scalar tensor, got ",
        ),
        (
            lambda flow, x, generator: (1.5, dict),
            "the loss must be a finite scalar tensor, got 1.5",
        ),
        (
            lambda flow, x, generator: (-flow.log_prob(x).mean(), {"mine": 1.0}),
            "it must return (loss, function of the scalars to log), got (Tensor, dict)",
        ),
        (
            lambda flow, x, generator: -flow.log_prob(x).mean(),
            "it must return (loss, function of the scalars to log), got Tensor; ",
        ),
        (
            lambda flow, x, generator: (-flow.log_prob(x).mean(), lambda: 1 / 0),
            "ZeroDivisionError: division by zero",
        ),
        (
            lambda flow, x, generator: (x.sum().detach(), dict),
            "the loss has no gradient: it must depend on the weights",
        ),
        (
            lambda flow, x, generator: (-flow.log_prob(x).mean(), lambda: {"tag": "text"}),
            "scalars() must give numbers by tag, got {'tag': 'text'}",
        ),
        (
            lambda flow, x, generator: (-flow.log_prob(x).mean(), list),
            "scalars() must give numbers by tag, got []",
        ),
    ],
)
def test_an_objective_that_breaks_the_contract_is_refused_in_one_line(
    objective: object, problem: str, make_ffjord: Make
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_objective(objective, make_ffjord())
    assert str(caught.value).startswith(f"objective: {problem}")
    assert len(str(caught.value).splitlines()) == 1


def test_an_annealed_target_grows_from_where_a_flow_begins_to_the_density() -> None:
    flow = affine(Standardize(torch.ones(2), torch.full((2,), 0.5)), generator=seeded()).double()
    target = GaussianMixture(
        means=[[0.5, 1.0]], covariances=[[[1.0, 0.0], [0.0, 4.0]]], weights=[1.0]
    )
    objective, x = ReverseKL(target, gradient="total", annealing=0.5), torch.zeros(8, 2).double()
    assert objective.at(0.5) == objective.at(1.0) == objective
    whole = objective(flow, x, seeded())[0]
    start, scalars = objective.at(0.0)(flow, x, seeded())
    assert start.item() == pytest.approx(0.0, abs=1e-12)  # the flow is there already
    assert scalars() == {"kl_reverse/batch": whole.item(), "annealing/beta": 0.0}
    between, scalars = objective.at(0.125)(flow, x, seeded())
    assert scalars()["annealing/beta"] == 0.25
    assert between.item() == pytest.approx(0.25 * whole.item())
