"""Losses, and the scalars that go with them."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from flowtrain.flows import ContinuousFlow
from flowtrain.flows.continuous import Likelihood
from flowtrain.flows.ode import Solver
from flowtrain.objectives import RegularizedLikelihood, maximum_likelihood

Make = Callable[..., ContinuousFlow]

WEIGHTS = [(0.0, 0.0), (0.3, 0.0), (0.0, 0.7), (0.3, 0.7)]
DOPRI5 = Solver("dopri5", rtol=1e-5, atol=1e-5, max_steps=200)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def batch() -> Tensor:
    return torch.randn(8, 2, generator=seeded(), dtype=torch.float64)


def test_maximum_likelihood_is_the_mean_nll(make_ffjord: Make) -> None:
    flow = make_ffjord()
    loss, scalars = maximum_likelihood(flow, batch(), seeded())
    assert loss == -flow.log_prob(batch()).mean()
    assert scalars() == {}


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
@pytest.mark.parametrize(("kinetic", "jacobian"), WEIGHTS)
def test_loss_is_the_nll_plus_the_weighted_penalties(
    kinetic: float, jacobian: float, divergence: str, make_ffjord: Make
) -> None:
    flow = make_ffjord(divergence=divergence).train()
    loss, scalars = RegularizedLikelihood(kinetic, jacobian)(flow, batch(), seeded())
    found = flow.likelihood(batch(), seeded(), kinetic=True, jacobian=True)
    assert found.kinetic is not None
    assert found.jacobian is not None
    parts = {"kinetic": (kinetic, found.kinetic), "jacobian": (jacobian, found.jacobian)}
    expected = -found.log_prob.mean() + sum(weight * part.mean() for weight, part in parts.values())
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)

    logged: dict[str, float] = {"nfe/forward": found.evaluations.forward, "nfe/backward": 0}
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

    def spy(flow: ContinuousFlow, *args: Tensor, **asked: bool) -> Likelihood:
        found.append(likelihood(flow, *args, **asked))  # type: ignore[arg-type]
        return found[-1]

    monkeypatch.setattr(ContinuousFlow, "likelihood", spy)
    RegularizedLikelihood(kinetic, jacobian)(make_ffjord(), batch(), seeded())
    assert (found[0].kinetic is not None, found[0].jacobian is not None) == (
        kinetic > 0,
        jacobian > 0,
    )


def test_penalties_have_gradients(make_ffjord: Make) -> None:
    def gradient(objective: RegularizedLikelihood) -> Tensor:
        flow = make_ffjord().train()
        objective(flow, batch(), seeded())[0].backward()
        return torch.cat([weight.grad.ravel() for weight in flow.parameters()])  # type: ignore[union-attr]

    plain = gradient(RegularizedLikelihood(0.0, 0.0))
    for objective in (RegularizedLikelihood(1.0, 0.0), RegularizedLikelihood(0.0, 1.0)):
        assert (gradient(objective) - plain).norm() > 0.01 * plain.norm()


def test_probes_come_from_the_generator(make_ffjord: Make) -> None:
    flow, generator = make_ffjord(divergence="hutchinson").train(), seeded()
    objective = RegularizedLikelihood(0.0, 0.0)
    first, second = (objective(flow, batch(), generator)[0] for _ in range(2))
    assert first != second
    assert first == objective(flow, batch(), seeded())[0]


@pytest.mark.parametrize("adjoint", [False, True], ids=["backprop", "adjoint"])
def test_scalars_count_the_backward_pass_when_read_after_it(
    adjoint: bool, make_ffjord: Make
) -> None:
    flow = make_ffjord(solver=replace(DOPRI5, adjoint=adjoint)).train()
    calls: list[nn.Module] = []
    flow.cnf.field.register_forward_hook(lambda module, *_: calls.append(module))
    loss, scalars = RegularizedLikelihood(0.1, 0.1)(flow, batch(), seeded())
    forward = len(calls)
    loss.backward()
    counts = scalars()
    assert (counts["nfe/forward"], counts["nfe/backward"]) == (forward, len(calls) - forward)
    assert (counts["nfe/backward"] > 0) == adjoint
