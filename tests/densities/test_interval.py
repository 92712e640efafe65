"""Laws given a number of an interval: exact at each, averaged exactly, right in their samples."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from numpy.polynomial.legendre import leggauss

from flowtrain.config.data import Known
from flowtrain.config.section import names, options
from flowtrain.densities import interval
from flowtrain.densities.density import Density
from flowtrain.densities.interval import Interval, Rotations, Varied

Build = Callable[..., Density]
# Every setting that can be given, of every density.
SETTINGS = [
    (name, key)
    for section in options(Known)
    for name in names(section)
    for key, field in section.model_fields.items()
    if field.annotation is float
]

SOME = [
    ("moons", "noise"), ("circles", "factor"), ("pinwheel", "rate"), ("eight_gaussians", "radius"),
    ("banana", "curvature"), ("u1", "thickness"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def few_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interval, "VALUES", 16)


@pytest.fixture
def varied(build: Build, settings_of: Callable[..., dict[str, Any]]) -> Callable[..., Varied]:
    """Return a function from a density and a setting to the law given that, near its default."""

    def make(name: str, key: str) -> Varied:
        middle = settings_of(name)[key]
        around = Interval(0.8 * middle, 1.2 * middle)
        return Varied(key, lambda value: build(name, **{key: value}), around)

    return make


@pytest.mark.parametrize("ends", [(0.0, 3.0), (100.0, 100.3), (6.28, 6.2832)])
def test_cases_have_names_of_their_own(ends: tuple[float, float], build: Build) -> None:
    law = Rotations(build("moons"), Interval(*ends))
    labels = {case.label for case in law.cases}
    assert len(labels) == len(law.cases)
    assert ("rotation=0.05957" in labels) == (ends == (0.0, 3.0))  # four digits suffice


@pytest.mark.parametrize(("name", "key"), SETTINGS)
def test_a_density_given_a_setting_is_the_one_built_with_it(
    name: str, key: str, varied: Callable[..., Varied], build: Build
) -> None:
    law = varied(name, key)
    value = 0.3 * law.interval.low + 0.7 * law.interval.high
    alone = build(name, **{key: value})
    context = law.interval.encode(torch.tensor([value], dtype=torch.float64))
    x = alone.sample(20, torch.Generator().manual_seed(0))
    expected = alone.log_prob(x)
    torch.testing.assert_close(law.log_prob(x, context.expand(20, -1)), expected)
    torch.testing.assert_close(law.at(context[0]).log_prob(x), expected)


@pytest.mark.parametrize(("name", "key"), SOME)
def test_each_setting_has_mass_one(name: str, key: str, varied: Callable[..., Varied]) -> None:
    for case in varied(name, key).cases[::7]:
        nodes, weights = case.density.quadrature(120)
        assert float(weights @ case.density.log_prob(nodes).exp()) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize(("name", "key"), SOME)
def test_points_and_their_settings_follow_their_joint_law(
    name: str, key: str, varied: Callable[..., Varied]
) -> None:
    law = varied(name, key)
    x, context = law.sample(2_000, torch.Generator().manual_seed(1))
    assert (x.shape, context.shape, x.dtype) == ((2_000, 2), (2_000, 1), torch.float64)
    surprise = -law.log_prob(x, context)
    error = float(surprise.std()) / math.sqrt(len(x))
    assert float(surprise.mean()) == pytest.approx(law.entropy, abs=4 * error)
    low, high = law.window
    assert bool(((x >= low) & (x <= high)).all())
    again, _ = law.sample(2_000, torch.Generator().manual_seed(1))
    assert torch.equal(again, x)


def test_the_settings_of_a_sample_are_spread_evenly_over_the_interval(
    varied: Callable[..., Varied],
) -> None:
    law = varied("rings", "noise")
    _, context = law.sample(1_000, torch.Generator().manual_seed(0))
    values = law.interval.decode(context).unique()
    assert len(values) == 16
    parts = 16 * (values - law.interval.low) / (law.interval.high - law.interval.low)
    assert torch.equal(parts.floor(), torch.arange(16.0, dtype=torch.float64))
    assert torch.equal(context.float().double(), context)
    few, _ = law.sample(3, torch.Generator().manual_seed(0))
    assert few.shape == (3, 2)
    none, given = law.sample(0, torch.Generator().manual_seed(0))
    assert (none.shape, given.shape, law.log_prob(none, given).shape) == ((0, 2), (0, 1), (0,))


@pytest.mark.parametrize(("name", "key"), [("swissroll", "noise"), ("banana", "curvature")])
def test_the_mean_over_the_interval_has_converged(
    name: str, key: str, varied: Callable[..., Varied], monkeypatch: pytest.MonkeyPatch
) -> None:
    entropy = varied(name, key).entropy
    monkeypatch.setattr(interval, "CASES", 12)
    assert varied(name, key).entropy == pytest.approx(entropy, abs=1e-7)


def test_the_entropy_of_a_wide_interval_has_nodes_enough(build: Build) -> None:
    law = Varied("noise", lambda noise: build("rings", noise=noise), Interval(0.02, 1.0))
    nodes, weights = leggauss(100)
    exact = sum(
        weight / 2 * build("rings", noise=0.51 + 0.49 * node).entropy
        for node, weight in zip(nodes, weights, strict=True)
    )
    assert law.entropy == pytest.approx(exact, abs=2e-6)
    coarse = sum(case.weight * case.density.entropy for case in law.cases)
    assert abs(coarse - exact) > 1e-4


def test_the_cases_of_an_interval_integrate_over_it(default: Build) -> None:
    law = Rotations(default("moons"), Interval(0.5, 2.0))
    angles = torch.cat([law.interval.decode(case.context[None]) for case in law.cases])
    weights = torch.tensor([case.weight for case in law.cases], dtype=torch.float64)
    assert float(weights @ angles.cos()) == pytest.approx(
        (math.sin(2.0) - math.sin(0.5)) / 1.5, abs=1e-9
    )
    context = law.sample(50_000, torch.Generator().manual_seed(0))[1]
    assert abs(float(context.mean())) < 0.02
    assert float(context.std()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("ends", [(1.0, 1.0), (2.0, 1.0), (0.0, math.inf), (math.nan, 1.0)])
def test_an_interval_is_two_rising_numbers(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="interval must be two rising numbers"):
        Interval(*ends)
