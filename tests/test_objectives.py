"""Losses, and the scalars that go with them."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from flowtrain import objectives
from flowtrain.flows import ContinuousFlow
from flowtrain.flows.continuous import Likelihood
from flowtrain.flows.ode import Solver
from flowtrain.objectives import FlowMatching, RegularizedLikelihood, maximum_likelihood

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


# --- flow matching ------------------------------------------------------------------------------

COUPLINGS, PATHS = ("independent", "optimal_transport"), ("linear", "variance_preserving")
TIMES = ("uniform", "stratified", "logit_normal")


@pytest.mark.parametrize("path", PATHS)
def test_a_path_goes_from_base_to_data_along_its_velocity(path: str) -> None:
    matching = FlowMatching("independent", path, "uniform")
    t = torch.linspace(0, 1, 11, dtype=torch.float64, requires_grad=True)
    a, b, da, db = matching.coefficients(t)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(a[[0, -1]], ends, rtol=0, atol=1e-15)
    torch.testing.assert_close(b[[0, -1]], ends.flip(0), rtol=0, atol=1e-15)
    for value, slope in ((a, da), (b, db)):
        torch.testing.assert_close(torch.autograd.grad(value.sum(), t)[0], slope)
    if path == "variance_preserving":
        torch.testing.assert_close(a.square() + b.square(), torch.ones_like(a))


@pytest.mark.parametrize("times", TIMES)
def test_times_follow_their_law(times: str) -> None:
    kind = {"generator": seeded(), "dtype": torch.float64, "device": torch.device("cpu")}
    t = FlowMatching("independent", "linear", times).draw_times(4000, kind)
    assert 0 < t.min() < t.max() < 1
    if times == "stratified":
        assert torch.equal((4000 * t).floor(), torch.arange(4000, dtype=torch.float64))
    middle = ((t > 0.25) & (t < 0.75)).double().mean().item()
    share = 0.728 if times == "logit_normal" else 0.5  # P(|N(0, 1)| < log 3)
    assert middle == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("path", PATHS)
def test_the_loss_is_least_for_the_true_velocity(path: str, make_ffjord: Make) -> None:
    """For data N(0, s^2) in each coordinate the velocity is known: linear in z."""
    flow, s = make_ffjord(), 0.5
    matching = FlowMatching("independent", path, "stratified")
    x = flow.standardize(s * torch.randn(20_000, 2, generator=seeded(), dtype=torch.float64))[0]

    def loss(factor: float) -> float:
        def velocity(t: Tensor, z: Tensor) -> Tensor:
            a, b, da, db = matching.coefficients(t)
            slope = (a * da * s**2 + b * db) / (a**2 * s**2 + b**2)  # E[z' | z] / z
            return factor * slope[:, None] * z

        flow.velocity = velocity  # type: ignore[method-assign, assignment]
        return matching(flow, x, seeded().manual_seed(1))[0].item()

    assert loss(1.0) < min(loss(0.95), loss(1.05))


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_the_loss_is_the_square_distance_to_the_paths_velocity(
    coupling: str, make_ffjord: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow, asked = make_ffjord(), []

    def record(flow: ContinuousFlow, t: Tensor, z: Tensor) -> Tensor:
        asked.append((t, z))
        return torch.zeros_like(z)

    monkeypatch.setattr(ContinuousFlow, "velocity", record)
    matching = FlowMatching(coupling, "linear", "uniform")
    loss, _ = matching(flow, batch(), seeded())
    ((t, z),) = asked
    data, _ = flow.standardize.inverse(batch())
    base = (z - t[:, None] * data) / (1 - t[:, None])
    torch.testing.assert_close(loss, (data - base).square().sum(-1).mean())


def test_optimal_transport_pairs_at_the_least_cost() -> None:
    data, base = batch()[:5], torch.randn(5, 2, generator=seeded().manual_seed(1)).double()
    pairs = objectives._assignment(data, base)
    orders = torch.tensor(list(itertools.permutations(range(5))))
    costs = (data - base[orders]).square().sum((-1, -2))
    torch.testing.assert_close((data - base[pairs]).square().sum(), costs.min())
    assert sorted(pairs.tolist()) == list(range(5))


def test_flow_matching_solves_no_ode_and_reaches_every_weight(
    make_ffjord: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = make_ffjord().train()
    monkeypatch.setattr(ContinuousFlow, "likelihood", None)
    for coupling, path, times in itertools.product(COUPLINGS, PATHS, TIMES):
        flow.zero_grad()
        loss, scalars = FlowMatching(coupling, path, times)(flow, batch(), seeded())
        loss.backward()
        assert scalars() == {}
        assert all(weight.grad.abs().max() > 0 for weight in flow.parameters())  # type: ignore[union-attr]
    again = FlowMatching(coupling, path, times)(flow, batch(), seeded())[0]
    assert loss == again
