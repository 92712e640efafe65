"""Flow matching: its paths, times, targets and pairs."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.training import flow_matching
from flowtrain.training.flow_matching import FlowMatching

Make = Callable[..., ContinuousFlow]

COUPLINGS, PATHS = ("independent", "optimal_transport"), ("linear", "variance_preserving")
TIMES = ("uniform", "stratified", "logit_normal", "likelihood")


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def batch() -> Tensor:
    return torch.randn(8, 2, generator=seeded(), dtype=torch.float64)


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
    s, least = 1 - t.sort().values, flow_matching.SHORTEST
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
    pairs = flow_matching._assignment(data, base, groups)
    assert pairs.sort().values.tolist() == list(range(8))
    for group in (0, 1):
        (rows,) = (groups == group).nonzero(as_tuple=True)
        assert torch.equal(groups[pairs[rows]], groups[rows])
        among = flow_matching._assignment(data[rows], base[rows], None)
        assert torch.equal(pairs[rows], rows[among])


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
    pairs = flow_matching._assignment(data, base, None)
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
