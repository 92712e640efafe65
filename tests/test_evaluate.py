"""The figures of a flow, against flows whose figures are known."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from flowtrain.data import Density, GaussianMixture
from flowtrain.data.pools import Pool, draw_pool
from flowtrain.evaluate import evaluate, inverse_error, likelihood, quadrature
from flowtrain.flows import FLOWS, ContinuousFlow, Flow, Standardize, Transform
from flowtrain.flows.elementwise import Affine
from flowtrain.flows.ode import Solver
from flowtrain.report import doubts

CPU = torch.device("cpu")
MEAN, STD = [0.5, -0.1], [0.8, 0.6]  # of q, well within the window of p
CENTRE, COVARIANCE = [0.2, 0.1], [[1.0, 0.3], [0.3, 0.5]]  # of p


@pytest.fixture(scope="module")
def gaussian() -> Density:
    return GaussianMixture(means=[CENTRE], covariances=[COVARIANCE], weights=[1.0])


@pytest.fixture
def flow() -> Flow:
    """Return the flow that is a Gaussian with independent coordinates."""
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (MEAN, STD))
    return Flow([Standardize(mean, std)], dim=2)


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
    pool = draw_pool(gaussian, 20_000, 0, device=CPU, dtype=torch.float64)
    found = likelihood(flow, pool, batch_size=3000)
    assert abs(found["kl"] - closed_form_kl()) < 4 * found["kl_error"]
    assert found["kl_error"] < 0.01
    assert found["kl"] == pytest.approx(found["nll"] + gaussian.log_prob(pool.x).mean().item())


def test_the_true_density_has_no_kl(gaussian: Density) -> None:
    class Truth(Flow):
        def log_prob(self, x: Tensor) -> Tensor:
            return gaussian.log_prob(x)

    truth = Truth([Standardize(torch.zeros(2), torch.ones(2))], dim=2).double()
    found = quadrature(truth, gaussian, points=64, batch_size=1000)
    assert found["kl"] == 0
    assert found["mass"] == pytest.approx(1, abs=1e-6)


def standardize_of(flow: Flow) -> Standardize:
    standardize = flow.transforms[-1]
    assert isinstance(standardize, Standardize)
    return standardize


class WrongLogDet(Transform):
    """An identity that claims to shrink volumes by 10 %."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z, z.new_full((len(z),), -math.log(1.1))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x.new_full((len(x),), math.log(1.1))


def test_a_wrong_log_det_shows_in_the_mass(flow: Flow, gaussian: Density) -> None:
    wrong = Flow([WrongLogDet(), standardize_of(flow)], dim=2)
    found = quadrature(wrong, gaussian, points=128, batch_size=1000)
    assert found["mass"] == pytest.approx(1.1, abs=1e-4)
    metrics = {"kl/test": found["kl"], "kl_error/test": 0.0, "mass/test": found["mass"]}
    assert "integrates to 1.1" in next(doubts(metrics))


def test_an_absurd_tail_does_not_drown_kl(flow: Flow, gaussian: Density) -> None:
    centre = torch.tensor(CENTRE, dtype=torch.float64)

    class Absurd(Flow):
        def log_prob(self, x: Tensor) -> Tensor:
            log_q = super().log_prob(x)
            return torch.where((x - centre).norm(dim=-1) > 6, -1e30, log_q)

    absurd = Absurd([standardize_of(flow)], dim=2)
    found = quadrature(absurd, gaussian, points=128, batch_size=1000)
    assert found["kl"] == pytest.approx(closed_form_kl(), abs=1e-3)
    assert quadrature(absurd, gaussian, points=128, batch_size=1000)["mass"] < 1


def test_kl_and_mass_do_not_depend_on_the_batch_size(flow: Flow, gaussian: Density) -> None:
    few, many = (quadrature(flow, gaussian, points=32, batch_size=size) for size in (7, 10_000))
    assert few == pytest.approx(many, rel=1e-12)


@pytest.fixture
def realnvp(randomize: Callable[..., None]) -> Flow:
    generator = torch.Generator().manual_seed(0)
    flow = FLOWS["realnvp"](
        Standardize(torch.tensor(MEAN), torch.tensor(STD)), generator=generator, couplings=4,
        hidden=8, depth=1, activation="tanh", elementwise=Affine(1.0), mixing="alternate",
    )  # fmt: skip
    randomize(flow, generator)
    return flow.double()


def test_an_exact_inverse_has_no_error(realnvp: Flow) -> None:
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = inverse_error(realnvp, x, batch_size=30)
    assert 0 < found["inverse_error_rms"] < found["inverse_error"] < 1e-10


def test_a_wrong_inverse_shows_in_the_data_s_units(flow: Flow) -> None:
    class Shifted(WrongLogDet):
        def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x + torch.tensor([0.5, 0.0]), x.new_zeros(len(x))

    wrong = Flow([Shifted(), standardize_of(flow)], dim=2)
    found = inverse_error(wrong, torch.zeros(10, 2, dtype=torch.float64), batch_size=5)
    assert found["inverse_error"] == pytest.approx(0.5 * STD[0])
    assert found["inverse_error_rms"] == pytest.approx(0.5 * STD[0] / math.sqrt(2))


@pytest.fixture
def pools(gaussian: Density) -> dict[str, Pool]:
    kind: dict[str, Any] = {"device": CPU, "dtype": torch.float64}
    names = ("train", "validation", "test")
    return {name: draw_pool(gaussian, 100, seed, **kind) for seed, name in enumerate(names)}


@pytest.mark.parametrize(
    ("solver", "cheats"),
    [
        (Solver("euler", step_size=0.5), True),
        (Solver("dopri5", rtol=1e-4, atol=1e-4, max_steps=500), False),
    ],
)
def test_a_training_solver_that_is_off_shows_a_gap_and_raises_a_doubt(
    make_ffjord: Callable[..., ContinuousFlow],
    gaussian: Density,
    pools: dict[str, Pool],
    solver: Solver,
    cheats: bool,
) -> None:
    evaluation_solver = Solver("dopri5", rtol=1e-3, atol=1e-3, max_steps=500)
    flow = make_ffjord(width=8, depth=1, solver=solver, evaluation_solver=evaluation_solver).eval()
    metrics = evaluate(flow, pools, grid=16, batch_size=400)
    assert (abs(metrics["solver_gap/test"]) > 0.01) == cheats
    assert any("the model exploits its solver" in doubt for doubt in doubts(metrics)) == cheats


def test_a_likelihood_that_beats_the_entropy_raises_a_doubt() -> None:
    metrics = {"kl/test": -0.2, "kl_error/test": 0.001, "mass/test": 1.0}
    assert list(doubts(metrics)) == [
        "KL is -0.2000, below zero: this likelihood is wrong, not good"
    ]


def test_every_figure_is_there_and_in_raw_coordinates(
    realnvp: Flow, gaussian: Density, pools: dict[str, Pool]
) -> None:
    metrics = evaluate(realnvp, pools, grid=64, batch_size=400)
    assert {*metrics} == {
        "nll/train", "nll/val", "nll_error/val", "kl/val", "kl_error/val", "nll/test",
        "nll_error/test", "kl_paired/test",
        "kl_paired_error/test", "kl/test", "kl_error/test", "mass/test", "inverse_error/test",
        "inverse_error_rms/test", "nll/entropy",
    }  # fmt: skip
    assert metrics["nll/test"] == pytest.approx(-realnvp.log_prob(pools["test"].x).mean().item())
    assert metrics["nll/entropy"] == pytest.approx(
        1 + math.log(2 * math.pi) + 0.5 * math.log(1.0 * 0.5 - 0.3**2), abs=1e-6
    )
