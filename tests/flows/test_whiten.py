"""The whitening of tables: exact log-determinants, the best Gaussian, float64 throughout."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.autograd.functional import jacobian as autograd_jacobian

from flowtrain.evaluation.baselines import gaussian_nll
from flowtrain.flows.bases import Normal
from flowtrain.flows.flow import Flow
from flowtrain.flows.linear import affine
from flowtrain.flows.statistics import mean_and_deviation
from flowtrain.flows.whiten import Whiten


def rows(n: int = 400, seed: int = 0) -> Tensor:
    """Return correlated columns: normal, skewed, and with heavy tails."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    z[:, 1] += z[:, 0]
    return torch.stack([5 + 2 * z[:, 0], z[:, 1].exp(), 3 * torch.sinh(2 * z[:, 2]) - 1], 1)


def nll(whiten: Whiten, x: Tensor) -> float:
    return -Flow([], whiten).log_prob(x).mean().item()


@pytest.mark.parametrize("bend", [False, True])
def test_both_directions_agree_with_each_other_and_with_autograd(bend: bool) -> None:
    whiten, x = Whiten.fit(rows(), bend=bend), rows(6, seed=1)
    assert whiten.bent.tolist() == [False, bend, bend]
    z, log_det = whiten.inverse(x)
    back, forward_log_det = whiten(z)
    torch.testing.assert_close(back, x, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(forward_log_det, -log_det, rtol=0, atol=1e-10)
    slopes = [autograd_jacobian(lambda r: whiten.inverse(r[None])[0][0], row) for row in x]
    torch.testing.assert_close(log_det, torch.stack(slopes).slogdet().logabsdet, rtol=0, atol=1e-10)


def test_its_density_integrates_to_one() -> None:
    whiten = Whiten.fit(rows()[:, 1:2], bend=True)
    u = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    x = torch.sinh(u)[:, None]  # dense where the density is, far into both tails
    density = (Normal(1).log_prob(whiten.inverse(x)[0]) + whiten.inverse(x)[1]).exp()
    assert torch.trapezoid(density * u.cosh(), u).item() == pytest.approx(1, abs=1e-6)


def test_without_bends_it_is_the_best_gaussian() -> None:
    """With many rows nothing is shrunk."""
    mixed = torch.tensor([[1.0, 0.9, 0.0], [0.0, 0.1, 2.0], [0.0, 0.0, 5.0]], dtype=torch.float64)
    x, held_out = (torch.randn(5000, 3, dtype=torch.float64, generator=g) @ mixed for g in seeds(2))
    found = nll(Whiten.fit(x, bend=False), held_out)
    assert found == pytest.approx(gaussian_nll(x, held_out), abs=0.01)
    assert nll(Whiten.fit(x, bend=False), x) >= gaussian_nll(x, x) - 1e-6


def test_a_bent_column_is_johnson_s_law() -> None:
    x = torch.from_numpy(scipy.stats.johnsonsu(-1, 1.5, 3, 2).rvs((4000, 1), random_state=0))
    whiten = Whiten.fit(x, bend=True)
    law = scipy.stats.johnsonsu(
        (-whiten.shift / whiten.spread).item(), (1 / whiten.spread).item(),
        whiten.offset.item(), whiten.scale.item(),
    )  # fmt: skip
    at = torch.linspace(-5, 20, 50, dtype=torch.float64)[:, None]
    log_q = Flow([], whiten).log_prob(at).numpy()
    np.testing.assert_allclose(log_q, law.logpdf(at[:, 0].numpy()), rtol=0, atol=1e-5)
    best = scipy.stats.johnsonsu.nnlf(scipy.stats.johnsonsu.fit(x[:, 0].numpy()), x[:, 0].numpy())
    assert nll(whiten, x) == pytest.approx(best / len(x), abs=2e-3)


def test_heavy_tails_and_outliers_no_longer_rule() -> None:
    x, held_out = (torch.randn(2000, 2, dtype=torch.float64, generator=g) for g in seeds(2))
    for points in (x, held_out):
        points[::100] *= 1e3
    assert nll(Whiten.fit(x, bend=True), held_out) < gaussian_nll(x, held_out) - 2
    z = Whiten.fit(x, bend=True).inverse(x)[0]
    assert z.abs().quantile(0.5) > 0.3  # by mean and deviation it is below 0.01


def seeds(n: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(n)]


def test_columns_with_sharp_margins_are_left_as_they_are() -> None:
    """Two values a column, as of a pixel: a mixture of columns would have many more."""
    generator = torch.Generator().manual_seed(0)
    bits = (torch.rand(600, 2, generator=generator, dtype=torch.float64) < 0.5).double()
    bits[:, 1] = torch.where(torch.arange(600) % 2 == 0, bits[:, 0], bits[:, 1])
    noise = torch.randn(600, 2, generator=generator, dtype=torch.float64)
    assert np.corrcoef(bits.mT)[0, 1] > 0.4
    assert Whiten.fit(bits + 0.02 * noise, bend=True).matrix.tolist() == [[1, 0], [0, 1]]
    for mixed in (Whiten.fit(bits + 0.02 * noise, bend=False), Whiten.fit(bits + noise, bend=True)):
        assert abs(mixed.matrix[0, 1]) > 0.05
    assert abs(Whiten.fit(bits, bend=True).matrix[0, 1]) > 0.05  # no density: spacings of zero


def test_few_rows_of_many_columns_are_shrunk() -> None:
    x, held_out = (torch.randn(40, 30, dtype=torch.float64, generator=g) for g in seeds(2))
    found = nll(Whiten.fit(x, bend=False), held_out)
    assert found < gaussian_nll(x, held_out) - 10
    assert found < 30 * 0.5 * math.log(2 * math.pi * math.e) + 4  # of the true law: 42.6


@pytest.mark.parametrize(
    ("offset", "scale"),
    [(1e8, 1.0), (1.7e9, 30.0), (0.0, 1e38), (0.0, 1e300), (1e30, 1e20), (0.0, 1e-300)],
)
def test_any_offset_and_scale_gives_the_same_coordinates(offset: float, scale: float) -> None:
    x = rows()
    plain = Whiten.fit(x, bend=True)
    moved = Whiten.fit(offset + scale * x, bend=True)
    rounding = 10 * np.finfo(float).eps * offset / scale
    z, log_det = moved.inverse(offset + scale * x)
    torch.testing.assert_close(z, plain.inverse(x)[0], rtol=1e-3, atol=1e-3 + rounding)
    expected = plain.inverse(x)[1] - 3 * math.log(scale)
    torch.testing.assert_close(log_det, expected, rtol=0, atol=1e-2)
    back = (moved(z)[0] - offset) / scale
    assert float((back - x).abs().max()) < 1e-3


def test_its_numbers_stay_in_float64_when_a_flow_is_cast() -> None:
    x = 1e8 + rows()
    flow = affine(Whiten.fit(x, bend=True), generator=torch.Generator())
    assert (flow.dtype, flow.dim, flow.device.type) == (torch.float32, 3, "cpu")
    before = flow.log_prob(x)
    assert before.dtype == torch.float64
    assert len(flow.log_prob(x).unique()) == len(x)
    torch.testing.assert_close(flow.half().float().log_prob(x), before, rtol=0, atol=0)
    assert flow.double().dtype == torch.float64
    assert flow.sample(3).dtype == torch.float64


def test_a_blank_one_loads_a_saved_one() -> None:
    whiten, x = Whiten.fit(rows(), bend=True), rows(5)
    blank = Whiten.blank(3)
    blank.load_state_dict(whiten.state_dict())
    assert torch.equal(blank.inverse(x)[0], whiten.inverse(x)[0])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([2.0, 2.0, 2.0], "column 1 .from 0. is constant over the 3 training rows"),
        ([-1.7e308, 0.0, 1.7e308], "column 1 .from 0. spans more than float64 can"),
    ],
)
def test_a_column_without_a_scale_is_refused(column: list[float], message: str) -> None:
    x = torch.tensor([[0.0, 1.0, 2.0], column], dtype=torch.float64).T
    with pytest.raises(ValueError, match=message):
        Whiten.fit(x, bend=True)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_a_few_rows_are_whitened(n: int) -> None:
    z, log_det = Whiten.fit(rows(n), bend=True).inverse(rows(n))
    assert z.isfinite().all()
    assert log_det.isfinite().all()


@pytest.mark.parametrize("bend", [False, True])
def test_a_value_beside_which_the_others_are_one_is_refused(bend: bool) -> None:
    x = rows()
    x[7, 0] = 1e30
    told = r"column 0 .from 0. has values up to 1e\+30, beside which most others cannot be told"
    with pytest.raises(ValueError, match=told):
        Whiten.fit(x, bend=bend)
    x[7, 0] = 1e4  # far away, and no harm
    assert Whiten.fit(x, bend=bend).dim == 3


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_means_and_deviations_are_of_any_size(scale: float) -> None:
    x = rows().numpy()
    mean, deviation = mean_and_deviation(scale * x)
    np.testing.assert_allclose(mean, scale * x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(deviation, scale * x.std(0), rtol=1e-12)
