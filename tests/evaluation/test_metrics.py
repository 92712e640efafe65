"""The metrics of a flow, against flows whose metrics are known."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from flowtrain.config.solver import Adaptive, FixedStep, Solver
from flowtrain.data.splits import Split, Splits, sample_splits
from flowtrain.densities.checkerboard import Checkerboard
from flowtrain.densities.density import Density
from flowtrain.densities.energies import TwoArcs
from flowtrain.densities.mixtures import GaussianMixture
from flowtrain.densities.target import Target
from flowtrain.evaluation.baselines import gaussian_nll, kde_nll
from flowtrain.evaluation.checks import warnings_about
from flowtrain.evaluation.metrics import (
    bits_per_dimension,
    evaluate,
    inverse_error,
    likelihood,
    solver_gap,
    training_metrics,
    without_density,
)
from flowtrain.evaluation.quadrature import quadrature
from flowtrain.evaluation.reverse import components, evidence, reverse
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.coupling import realnvp as build_realnvp
from flowtrain.flows.flow import Flow, Standardize, Transform
from flowtrain.flows.linear import affine
from flowtrain.flows.whiten import Whiten

MEAN, STD = [0.5, -0.1], [0.8, 0.6]  # of q, well within the window of p
CENTRE, COVARIANCE = [0.2, 0.1], [[1.0, 0.3], [0.3, 0.5]]  # of p


@pytest.fixture(scope="module")
def gaussian() -> Density:
    return GaussianMixture(means=[CENTRE], covariances=[COVARIANCE], weights=[1.0])


@pytest.fixture
def flow() -> Flow:
    """Return the flow that is a Gaussian with independent coordinates."""
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (MEAN, STD))
    return Flow([], Standardize(mean, std))


def closed_form_kl() -> float:
    """Return KL(N(m, S) | N(mu, Q)) = (tr Q^-1 S + |mu - m|^2_Q - 2 + log det Q / det S) / 2."""
    q, s = torch.tensor(STD, dtype=torch.float64).square(), torch.tensor(COVARIANCE)
    apart = torch.tensor(MEAN) - torch.tensor(CENTRE)
    spread = (s.diagonal() / q).sum() + (apart.square() / q).sum() - 2
    return float(0.5 * (spread + q.log().sum() - s.double().det().log()))


def test_kl_by_quadrature_is_the_closed_form(flow: Flow, gaussian: Density) -> None:
    found = quadrature(flow, gaussian, points=128, batch_size=1000)
    assert found["kl"] == pytest.approx(closed_form_kl(), abs=1e-4)
    assert found["mass"] == pytest.approx(1, abs=1e-4)
    assert found["kl_error"] < 1e-4


def test_kl_by_paired_samples_agrees_within_its_error(flow: Flow, gaussian: Density) -> None:
    split = Split(gaussian.sample(20_000, torch.Generator().manual_seed(0)), gaussian)
    found = likelihood(flow, split, batch_size=3000)
    assert abs(found["kl"] - closed_form_kl()) < 4 * found["kl_error"]
    assert found["kl_error"] < 0.01
    assert found["kl"] == pytest.approx(found["nll"] + gaussian.log_prob(split.x).mean().item())


def test_reverse_kl_is_the_closed_form(flow: Flow, gaussian: Density) -> None:
    q, s = torch.tensor(STD, dtype=torch.float64).square().diag(), torch.tensor(COVARIANCE).double()
    apart = torch.tensor(MEAN).double() - torch.tensor(CENTRE)
    inverse = s.inverse()
    expected = 0.5 * float(
        (inverse @ q).trace() + apart @ inverse @ apart - 2 + s.det().log() - q.det().log()
    )
    found = reverse(flow, gaussian, batch_size=3000)
    assert abs(found["kl_reverse"] - expected) < 4 * found["kl_reverse_error"]
    assert found["kl_reverse_error"] < 0.01


def test_points_far_from_the_origin_keep_their_digits() -> None:
    """At 9e5 a float32 has steps of 1/16."""
    far = [[9e5, 9e5], [9e5, 9e5 + 2]]
    density = GaussianMixture(means=far, covariances=[torch.eye(2).tolist()] * 2, weights=[1, 1])
    white = Whiten.blank(2)
    white.offset.fill_(9e5)
    one = affine(white, generator=torch.Generator())
    assert (one.dtype, one.points_dtype) == (torch.float32, torch.float64)
    there = GaussianMixture(means=far[:1], covariances=[torch.eye(2).tolist()], weights=[1])
    found = quadrature(one, there, points=128, batch_size=4096)
    assert found["kl"] == pytest.approx(0, abs=1e-5)
    assert found["mass"] == pytest.approx(1, abs=1e-5)
    assert reverse(one, there, batch_size=4096)["kl_reverse"] == pytest.approx(0, abs=1e-5)
    near = GaussianMixture(means=[[0, 0], [0, 2]], covariances=[torch.eye(2).tolist()] * 2,
                           weights=[1, 1])  # fmt: skip
    at_home = affine(Whiten.blank(2), generator=torch.Generator())
    assert components(one, density, batch_size=4096) == pytest.approx(
        components(at_home, near, batch_size=4096), abs=1e-5
    )


def test_an_energy_has_an_elbo_and_a_log_z_by_weights(flow: Flow) -> None:
    class Scaled(GaussianMixture):
        """exp(-U) is e² times the density, known to within 0.1."""

        log_normalizer, log_normalizer_error = 2.0, 0.1

    energy = Scaled(means=[CENTRE], covariances=[COVARIANCE], weights=[1.0])
    found = reverse(flow, energy, batch_size=3000)
    assert found["elbo"] == pytest.approx(2.0 - found["kl_reverse"])
    assert abs(found["log_z"] - 2.0) < 4 * found["log_z_error"] < 0.1
    assert found["log_normalizer_error"] == 0.1
    nowhere = evidence(torch.tensor([0.0, -math.inf]))  # p is zero at a sample
    assert nowhere["log_z"] == pytest.approx(-math.log(2))
    assert "elbo" not in nowhere


def test_a_law_known_up_to_a_constant_may_end_somewhere() -> None:
    def cut(x: Tensor) -> Tensor:
        squares = x.square().sum(1)
        return torch.where(squares < 288, -squares / 32, -math.inf)

    target = Target(cut, dim=3, window=(-12.0, 12.0))
    found = reverse(Flow([], Standardize(torch.zeros(3), torch.full((3,), 4.0))), target,
                    batch_size=10_000)  # fmt: skip
    assert {*found} == {"ess", "log_z", "log_z_error"}
    expected = 1.5 * math.log(2 * math.pi * 16) + chi2(3).logcdf(288 / 16)
    assert abs(found["log_z"] - expected) < 4 * found["log_z_error"] < 0.2


def test_the_effective_sample_size_is_the_closed_form(gaussian: Density) -> None:
    """E_q[(p / q)²] = ∫ p² / q is the integral of a Gaussian of precision 2 S^-1 - Q^-1."""
    mean, std = torch.tensor([0.3, -0.2]).double(), torch.tensor([1.2, 1.1]).double()
    s, q = torch.tensor(COVARIANCE).double(), std.square().diag()
    centre = torch.tensor(CENTRE).double()
    precision = 2 * s.inverse() - q.inverse()
    linear = 2 * s.inverse() @ centre - q.inverse() @ mean
    constant = mean @ q.inverse() @ mean - 2 * centre @ s.inverse() @ centre
    exponent = (linear @ precision.inverse() @ linear + constant) / 2
    second = exponent.exp() * (q.det() / precision.det()).sqrt() / s.det()
    found = reverse(Flow([], Standardize(mean, std)), gaussian, batch_size=3000)
    assert found["ess"] == pytest.approx(1 / float(second), rel=0.03)
    assert 0.4 < found["ess"] < 0.95


def test_reverse_kl_is_infinite_where_the_data_never_are(flow: Flow) -> None:
    found = reverse(flow, Checkerboard(squares=4, side=2.0), batch_size=10_000)
    assert {*found} == {"ess"}
    assert 0 < found["ess"] < 0.6
    far = Flow([], Standardize(torch.full((2,), 100.0), torch.ones(2)))
    assert reverse(far, Checkerboard(squares=4, side=2.0), batch_size=10_000) == {"ess": 0.0}


def test_the_true_density_has_no_kl(gaussian: Density) -> None:
    class Truth(Flow):
        def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
            return gaussian.log_prob(x)

    truth = Truth([], Standardize(torch.zeros(2), torch.ones(2))).double()
    found = quadrature(truth, gaussian, points=64, batch_size=1000)
    assert found["kl"] == 0
    assert found["mass"] == pytest.approx(1, abs=1e-6)


class WrongLogDet(Transform):
    """An identity that claims to shrink volumes by 10 %."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z, z.new_full((len(z),), -math.log(1.1))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x.new_full((len(x),), math.log(1.1))


def test_a_wrong_log_det_shows_in_the_mass(flow: Flow, gaussian: Density) -> None:
    wrong = Flow([WrongLogDet()], flow.standardize)
    found = quadrature(wrong, gaussian, points=128, batch_size=1000)
    assert found["mass"] == pytest.approx(1.1, abs=1e-4)
    metrics = {"kl/test": found["kl"], "kl_error/test": 0.0, "mass/test": found["mass"]}
    assert "integrates to 1.1" in next(warnings_about(metrics))


def test_an_absurd_tail_does_not_drown_kl(flow: Flow, gaussian: Density) -> None:
    centre = torch.tensor(CENTRE, dtype=torch.float64)

    class Absurd(Flow):
        def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
            log_q = super().log_prob(x)
            return torch.where((x - centre).norm(dim=-1) > 6, -1e30, log_q)

    absurd = Absurd([], flow.standardize)
    found = quadrature(absurd, gaussian, points=128, batch_size=1000)
    assert found["kl"] == pytest.approx(closed_form_kl(), abs=1e-3)
    assert quadrature(absurd, gaussian, points=128, batch_size=1000)["mass"] < 1


class Exponential(Density):
    """p(x) = exp(-x) of x >= 0, with a window that begins below 0."""

    dim = 1
    entropy = 1.0

    def __init__(self) -> None:
        super().__init__(
            window=(torch.tensor([-1.0]).double(), torch.tensor([20.0]).double()), resolution=0.05
        )

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return -torch.log1p(-torch.rand(n, 1, dtype=torch.float64, generator=generator))

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.where(x[:, 0] >= 0, -x[:, 0], -math.inf)


@pytest.mark.parametrize("points", [200, 256, 512, 1024])
def test_kl_is_a_mean_over_the_mass_that_the_grid_sees(points: int) -> None:
    standardize = Standardize(torch.ones(1), torch.ones(1))
    flow = affine(standardize, generator=torch.Generator())
    exact = -1 + math.log(2 * math.pi) / 2 + 0.5  # a normal law of mean and variance 1
    found = quadrature(flow, Exponential(), points=points, batch_size=4096)
    assert found["kl"] == pytest.approx(exact, abs=0.1)


def test_kl_and_mass_do_not_depend_on_the_batch_size(flow: Flow, gaussian: Density) -> None:
    few, many = (quadrature(flow, gaussian, points=32, batch_size=size) for size in (7, 10_000))
    assert few == pytest.approx(many, rel=1e-12)


@pytest.fixture
def realnvp(randomize: Callable[..., None]) -> Flow:
    generator = torch.Generator().manual_seed(0)
    flow = build_realnvp(
        Standardize(torch.tensor(MEAN), torch.tensor(STD)), generator=generator, couplings=4,
        hidden=8, depth=1, activation="tanh", log_scale_bound=1.0, mixing="alternate",
    )  # fmt: skip
    randomize(flow, generator)
    return flow.double()


def test_an_exact_inverse_has_no_error(realnvp: Flow) -> None:
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = inverse_error(realnvp, Split(x), batch_size=30)
    assert 0 < found["inverse_error_rms"] < found["inverse_error"] < 1e-10


@pytest.mark.parametrize("shift", [0.5, 1e300])
def test_a_wrong_inverse_shows_in_the_data_s_units(flow: Flow, shift: float) -> None:
    class Shifted(WrongLogDet):
        def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x + torch.tensor([shift, 0.0], dtype=torch.float64), x.new_zeros(len(x))

    wrong = Flow([Shifted()], flow.standardize)
    found = inverse_error(wrong, Split(torch.zeros(10, 2, dtype=torch.float64)), batch_size=5)
    assert found["inverse_error"] == pytest.approx(shift * STD[0])
    assert found["inverse_error_rms"] == pytest.approx(shift * STD[0] / math.sqrt(2))


@pytest.fixture
def splits(gaussian: Density) -> Splits:
    return sample_splits(
        gaussian, train=100, val=100, test=100, seeds={"train": 0, "val": 1, "test": 2},
        device=torch.device("cpu"), dtype=torch.float64,
    )  # fmt: skip


def dopri5(tolerance: float, max_steps: int = 500) -> Solver:
    return Adaptive(name="dopri5", rtol=tolerance, atol=tolerance, max_steps=max_steps)


EULER = FixedStep(name="euler", step_size=0.5)


@pytest.fixture
def ffjord(make_ffjord: Callable[..., ContinuousFlow]) -> ContinuousFlow:
    return make_ffjord(width=8, depth=1, solver=dopri5(1e-3))


@pytest.mark.parametrize(
    ("solver", "cheats"), [(EULER, True), (dopri5(1e-4), False)], ids=["euler", "dopri5"]
)
def test_a_training_solver_that_is_off_shows_a_gap_and_raises_a_doubt(
    ffjord: ContinuousFlow, splits: Splits, solver: Solver, cheats: bool
) -> None:
    metrics = evaluate(ffjord, splits, training_solver=solver, grid=16, batch_size=400)
    assert (abs(metrics["solver_gap/test"]) > 0.01) == cheats
    warnings = list(warnings_about(metrics))
    assert any("the model exploits its solver" in warning for warning in warnings) == cheats


def test_the_gap_is_what_the_training_solver_reads_minus_the_truth(
    ffjord: ContinuousFlow, splits: Splits
) -> None:
    x = splits.val.x
    found = solver_gap(ffjord, splits.val, EULER, batch_size=30)
    claimed = -ffjord.likelihood(x, solver=EULER).log_prob.mean().item()
    truth = likelihood(ffjord, splits.val, batch_size=30)["nll"]
    assert found == {"solver_gap": pytest.approx(claimed - truth, abs=1e-9)}
    assert ffjord.solver == dopri5(1e-3)


def test_there_is_no_gap_without_another_solver_or_where_it_fails(
    ffjord: ContinuousFlow, realnvp: Flow, splits: Splits
) -> None:
    val = splits.val
    assert solver_gap(ffjord, val, None, batch_size=100) == {}
    assert solver_gap(realnvp, val, EULER, batch_size=100) == {}
    assert solver_gap(ffjord, val, dopri5(1e-9, max_steps=1), batch_size=100) == {}


def test_training_metrics_are_of_the_validation_split_and_as_many_training_points(
    ffjord: ContinuousFlow, gaussian: Density
) -> None:
    splits = sample_splits(
        gaussian, train=300, val=50, test=2, seeds={"train": 0, "val": 1, "test": 2},
        device=torch.device("cpu"), dtype=torch.float64,
    )  # fmt: skip
    few = Splits(lambda name: Split(getattr(splits, name).x[:50], gaussian))
    found, same = (
        training_metrics(ffjord, each, training_solver=EULER, batch_size=50)
        for each in (splits, few)
    )
    assert found == same
    assert {*found} == {
        "nll/train", "nll_paired/train", "nll/val", "nll_error/val", "kl/val", "kl_error/val",
        "nll_paired/val", "solver_gap/val",
    }  # fmt: skip
    assert found["nll_paired/val"] == pytest.approx(gaussian.entropy + found["kl/val"])
    assert found["nll/train"] == likelihood(ffjord, few.train, batch_size=50)["nll"]
    assert found["nll/val"] == likelihood(ffjord, splits.val, batch_size=50)["nll"]


def test_every_metric_is_there_and_in_raw_coordinates(realnvp: Flow, splits: Splits) -> None:
    metrics = evaluate(realnvp, splits, training_solver=None, grid=64, batch_size=400)
    assert {*metrics} == {
        "nll/train", "nll/val", "nll_error/val", "kl/val", "kl_error/val", "nll/test",
        "nll_paired/train", "nll_paired/val", "nll_paired/test", "nll_error/test", "kl_paired/test",
        "kl_paired_error/test", "kl/test", "kl_error/test", "mass/test", "inverse_error/test",
        "kl_reverse/test", "kl_reverse_error/test", "ess/test",
        "inverse_error_rms/test", "nll/entropy",
    }  # fmt: skip
    assert metrics["nll/test"] == pytest.approx(-realnvp.log_prob(splits.test.x).mean().item())
    assert metrics["nll/entropy"] == pytest.approx(
        1 + math.log(2 * math.pi) + 0.5 * math.log(1.0 * 0.5 - 0.3**2), abs=1e-6
    )


@pytest.mark.parametrize("levels", [None, 17])
def test_baselines_and_distances_stand_where_no_density_is_known(
    levels: int | None, realnvp: Flow, splits: Splits
) -> None:
    known = splits

    def make(name: str) -> Split:
        return Split(getattr(known, name).x, columns=("a", "b"), levels=levels)

    table = Splits(make)
    state = torch.get_rng_state()
    metrics = evaluate(realnvp, table, training_solver=None, grid=64, batch_size=400)
    assert torch.equal(torch.get_rng_state(), state)
    distances = {f"{name}{tag}/test" for name in ("energy", "mmd", "sliced_w2")
                 for tag in ("", "_floor")}  # fmt: skip
    bits = {"bits_per_dimension/test"} if levels else set()
    assert {*metrics} == distances | bits | {
        "nll/train", "nll/val", "nll_error/val", "nll/test", "nll_error/test",
        "nll_gaussian/test", "nll_kde/test", "inverse_error/test", "inverse_error_rms/test",
    }  # fmt: skip
    nll = metrics["nll/test"]
    found = without_density(realnvp, table, nll)
    assert {f"{name}/test": value for name, value in found.items()}.items() <= metrics.items()
    train, test = table.train.x, table.test.x
    assert metrics["nll_gaussian/test"] == gaussian_nll(train, test)
    assert metrics["nll_kde/test"] == kde_nll(train, test, seed=0)
    if levels:
        expected = bits_per_dimension(nll, dim=2, levels=levels)
        assert metrics["bits_per_dimension/test"] == expected


def test_a_dropped_component_is_seen() -> None:
    away = torch.tensor([3.0, 0.0], dtype=torch.float64)
    identity = torch.eye(2, dtype=torch.float64).tolist()
    mixture = GaussianMixture(
        means=[away.tolist(), (-away).tolist()],
        covariances=[identity, identity],
        weights=[3.0, 1.0],
    )
    # Between them a sample at x is of the first by sigmoid(log 3 + 6 x): 0.5696 of 0.75 on average.
    for mean, expected in ((away, 0.0), (-away, 0.0), (0 * away, 0.7595)):
        flow = Flow([], Standardize(mean, torch.ones(2, dtype=torch.float64)))
        least = components(flow, mixture, batch_size=1000)["least_component"]
        assert least == pytest.approx(expected, abs=0.02)
    assert components(flow, TwoArcs(thickness=0.4, sides=[1]), batch_size=1000) == {}
    assert list(warnings_about({"least_component/test": 0.02})) == [
        "the model has 2.0% of the mass of a component of the data: it dropped a mode"
    ]
