"""Losses, and the scalars that go with them."""

import itertools
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
from flowtrain.training import objectives
from flowtrain.training.objectives import (
    FlowMatching,
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

COUPLINGS, PATHS = ("independent", "optimal_transport"), ("linear", "variance_preserving")
TIMES = ("uniform", "stratified", "logit_normal", "likelihood")


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


@pytest.mark.parametrize("times", TIMES[:3])
def test_times_follow_their_distribution(times: str) -> None:
    kind = {"generator": seeded(), "dtype": torch.float64, "device": torch.device("cpu")}
    t = FlowMatching("independent", "linear", times).draw_times(4000, kind)
    assert 0 < t.min() < t.max() < 1
    if times == "stratified":
        assert torch.equal((4000 * t).floor(), torch.arange(4000, dtype=torch.float64))
    middle = ((t > 0.25) & (t < 0.75)).double().mean().item()
    share = 0.728 if times == "logit_normal" else 0.5  # P(|N(0, 1)| < log 3)
    assert middle == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("path", PATHS)
def test_times_by_likelihood_follow_what_an_error_of_the_velocity_costs(path: str) -> None:
    kind = {"generator": seeded(), "dtype": torch.float64, "device": torch.device("cpu")}
    t = FlowMatching("independent", path, "likelihood").draw_times(20_000, kind)
    s, least = 1 - t.sort().values, objectives.SHORTEST
    assert least <= s.min() < s.max() < 1
    # The weight's integral from s to 1, over the whole: (1 - s) / s, and cot(pi s / 2).
    if path == "linear":
        before = (s - 1 - s.log()) / (least - 1 - math.log(least))
    else:
        before = torch.sin(math.pi / 2 * s).log() / math.log(math.sin(math.pi / 2 * least))
    drawn = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    torch.testing.assert_close(before, drawn, rtol=0, atol=1e-4)


@pytest.mark.parametrize("path", PATHS)
def test_the_weight_of_times_is_that_of_an_error_of_the_score(path: str) -> None:
    """From grad log p_t = -E[z | z_t] / b, by finite changes of E[z | z_t] at a fixed z_t."""
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    a, b, da, db = FlowMatching("independent", path, "likelihood").coefficients(t)
    z_t, z, moved = 0.7, 0.3, 0.4  # E[x | z_t] is what is left of z_t
    velocity = [da * (z_t - b * mean) / a + db * mean for mean in (z, moved)]
    score = [-mean / b for mean in (z, moved)]
    ratio = (score[1] - score[0]) / (velocity[1] - velocity[0])
    torch.testing.assert_close(ratio, a / (b * (da * b - a * db)))
    # The least over g^2 of (1 + ratio g^2 / 2)^2 / 2 g^2 is that ratio.
    noise = torch.logspace(-3, 3, 200_001, dtype=torch.float64)[:, None]
    cost = (1 + ratio * noise / 2).square() / (2 * noise)
    torch.testing.assert_close(cost.min(0).values, ratio, rtol=1e-7, atol=0)


def empirical_velocity(
    points: Tensor, z: Tensor, coefficients: tuple[Tensor, Tensor, Tensor, Tensor]
) -> Tensor:
    """Return the velocity of points' law at z, (n, d), by its score, which autograd takes."""
    a, b, da, db = (each[:, None] for each in coefficients)
    z = z.clone().requires_grad_()
    square = (z[:, None] - a[..., None] * points).square().sum(-1)
    density = torch.logsumexp(-square / (2 * b * b), 1)
    (score,) = torch.autograd.grad(density.sum(), z)
    return da / a * z.detach() + (da * b * b / a - b * db) * score


@pytest.mark.parametrize("reference", [None, 8, 3])
@pytest.mark.parametrize("path", PATHS)
def test_posterior_means_are_the_exact_velocity_of_the_points_law(
    path: str, reference: int | None, make_ffjord: Make
) -> None:
    flow = make_ffjord()
    matching = FlowMatching("independent", path, "uniform", "posterior_mean", reference)
    data = flow.standardize.inverse(batch())[0]

    def velocity(t: Tensor, z: Tensor, context: Tensor | None = None) -> Tensor:
        n = reference or 8
        parts = [slice(at, at + n) for at in range(0, 8, n)]
        return torch.cat(
            [
                empirical_velocity(data[part], z[part], matching.coefficients(t[part]))
                for part in parts
            ]
        )

    flow.velocity = velocity  # type: ignore[method-assign, assignment]
    assert matching(flow, batch(), seeded())[0] < 1e-20
    pairs = FlowMatching("independent", path, "uniform")
    assert pairs(flow, batch(), seeded())[0] > 0.01


def test_the_means_of_a_large_batch_are_over_parts_of_it(make_ffjord: Make) -> None:
    flow, x = make_ffjord(), torch.randn(1500, 2, generator=seeded(), dtype=torch.float64)

    def loss(reference: int | None) -> float:
        matching = FlowMatching("independent", "linear", "uniform", "posterior_mean", reference)
        return matching(flow, x, seeded())[0].item()

    assert loss(None) == loss(1024) != loss(1500)


@pytest.mark.parametrize("path", PATHS)
def test_posterior_means_leave_the_gradient_s_mean_and_lessen_its_noise(
    path: str, make_ffjord: Make
) -> None:
    flow, n, reference = make_ffjord(), 40_000, 4
    x = flow.standardize(torch.randn(n, 2, generator=seeded(), dtype=torch.float64).tanh())[0]

    def by_row(targets: str, reference: int | None) -> Tensor:
        """Return each row's part of the gradient of a velocity's factor, (n,)."""
        factor = torch.zeros(n, 1, dtype=torch.float64, requires_grad=True)

        def velocity(t: Tensor, z: Tensor, context: Tensor | None = None) -> Tensor:
            return factor * (z + torch.cos(3 * z))

        flow.velocity = velocity  # type: ignore[method-assign, assignment]
        matching = FlowMatching("independent", path, "uniform", targets, reference)
        (gradient,) = torch.autograd.grad(matching(flow, x, seeded().manual_seed(1))[0], factor)
        return n * gradient[:, 0]

    pairs, means = by_row("sample", None), by_row("posterior_mean", reference)
    differences = (means - pairs).reshape(-1, reference).mean(1)  # parts are independent
    error = differences.std() / len(differences) ** 0.5
    assert differences.mean().abs() < 4 * error
    assert pairs.mean().abs() > 20 * error  # what a wrong weight would change
    assert means.var() < 0.9 * pairs.var()


def test_posterior_means_of_conditions_are_over_the_points_of_each(make_ffjord: Make) -> None:
    """Of p(x | c) the velocity at z_t is that of the points with the same c."""
    flow = make_ffjord(context_dim=2)
    classes = torch.tensor([0, 1, 0, 0, 1, 1, 0, 1])
    context = torch.eye(2, dtype=torch.float64)[classes]
    matching = FlowMatching("independent", "linear", "uniform", "posterior_mean", None)
    data = flow.standardize.inverse(batch())[0]

    def velocity(t: Tensor, z: Tensor, context: Tensor | None = None) -> Tensor:
        assert context is not None
        found = torch.empty_like(z)
        for each in (context[:, 0] == 0, context[:, 0] == 1):
            coefficients = matching.coefficients(t[each])
            found[each] = empirical_velocity(data[each], z[each], coefficients)
        return found

    flow.velocity = velocity  # type: ignore[method-assign, assignment]
    assert matching(flow, batch(), seeded(), context)[0] < 1e-20
    alone = torch.linspace(0, 1, 8, dtype=torch.float64)[:, None]  # no two are the same
    flow.context_dim = 1
    flow.velocity = lambda t, z, context=None: torch.zeros_like(z)  # type: ignore[method-assign]
    pairs = FlowMatching("independent", "linear", "uniform")
    assert torch.allclose(
        matching(flow, batch(), seeded(), alone)[0], pairs(flow, batch(), seeded(), alone)[0]
    )


def test_optimal_transport_pairs_within_each_condition() -> None:
    data, base = batch(), torch.randn(8, 2, generator=seeded().manual_seed(1)).double()
    groups = torch.tensor([0, 1, 0, 0, 1, 1, 0, 1])
    pairs = objectives._assignment(data, base, groups)
    assert pairs.sort().values.tolist() == list(range(8))
    for group in (0, 1):
        (rows,) = (groups == group).nonzero(as_tuple=True)
        assert torch.equal(groups[pairs[rows]], groups[rows])
        among = objectives._assignment(data[rows], base[rows], None)
        assert torch.equal(pairs[rows], rows[among])


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


@pytest.mark.parametrize("path", PATHS)
def test_the_loss_is_least_for_the_true_velocity(path: str, make_ffjord: Make) -> None:
    """For data N(0, s^2) in each coordinate the velocity is known: linear in z."""
    flow, s = make_ffjord(), 0.5
    matching = FlowMatching("independent", path, "stratified")
    x = flow.standardize(s * torch.randn(20_000, 2, generator=seeded(), dtype=torch.float64))[0]

    def loss(factor: float) -> float:
        def velocity(t: Tensor, z: Tensor, context: Tensor | None = None) -> Tensor:
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

    def record(flow: ContinuousFlow, t: Tensor, z: Tensor, context: Tensor | None = None) -> Tensor:
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
    pairs = objectives._assignment(data, base, None)
    orders = torch.tensor(list(itertools.permutations(range(5))))
    costs = (data - base[orders]).square().sum((-1, -2))
    torch.testing.assert_close((data - base[pairs]).square().sum(), costs.min())
    assert sorted(pairs.tolist()) == list(range(5))


def test_flow_matching_solves_no_ode_and_reaches_every_weight(
    make_ffjord: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = make_ffjord()
    monkeypatch.setattr(ContinuousFlow, "likelihood", None)
    for coupling, path, times in itertools.product(COUPLINGS, PATHS, TIMES):
        flow.zero_grad()
        loss, scalars = FlowMatching(coupling, path, times)(flow, batch(), seeded())
        loss.backward()
        assert scalars() == {}
        assert all(weight.grad.abs().max() > 0 for weight in flow.parameters())  # type: ignore[union-attr]
    again = FlowMatching(coupling, path, times)(flow, batch(), seeded())[0]
    assert loss == again


# --- an objective of the user's own -------------------------------------------------------------


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
