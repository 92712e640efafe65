"""What the tests of all densities share: builders, samples, cell masses and a chi-square test."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from numpy.polynomial.legendre import leggauss
from omegaconf import OmegaConf
from scipy.stats import chi2
from torch import Tensor

from flowtrain.config.data import Data
from flowtrain.config.section import imported, names, options
from flowtrain.densities.density import Density

CONF = Path(__file__).parents[2] / "conf" / "data"
# The densities of the package, as the command line names them.
SECTIONS = {
    name: section
    for section in options(Data)
    if section.owner.startswith("flowtrain.densities.")
    for name in names(section)
}
PANELS, ORDER = 48, 8  # of a quadrature along each axis


def settings_of(name: str, **changes: Any) -> dict[str, Any]:
    settings: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    return {**settings, **changes}


def build_density(name: str, **changes: Any) -> Density:
    settings = settings_of(name, **changes)
    section = SECTIONS[settings.pop("name")]
    of_the_points = {"condition", "interval"}  # not of the density
    density: Density = imported(section.owner)(
        **{key: value for key, value in settings.items() if key not in of_the_points}
    )
    return density


@cache
def default_density(name: str) -> Density:
    return build_density(name)


def panels(density: Density) -> tuple[Tensor, Tensor]:
    """Nodes and weights, (48, 8, 48, 8, 2) and (48, 8, 48, 8): a rule unlike the package's own."""
    x, w = (torch.from_numpy(array) for array in leggauss(ORDER))
    axes = []
    for low, high in zip(*density.window, strict=True):
        edges = torch.linspace(float(low), float(high), PANELS + 1, dtype=torch.float64)
        half = edges.diff()[:, None] / 2
        axes.append(((edges[:-1, None] + half * (1 + x)).flatten(), (half * w).flatten()))
    (x0, w0), (x1, w1) = axes
    shape = (PANELS, ORDER, PANELS, ORDER)
    return torch.cartesian_prod(x0, x1).reshape(*shape, 2), torch.outer(w0, w1).reshape(shape)


@cache
def integrate(density: Density, window_of: Density) -> tuple[Tensor, float]:
    x, w = panels(window_of)
    p = density.log_prob(x.flatten(0, 3)).exp().reshape(w.shape)
    return (w * p).sum((1, 3)), -float((w * torch.xlogy(p, p)).sum())


def counts(x: Tensor, window: tuple[Tensor, Tensor], side: int = PANELS) -> Tensor:
    """Points in each of the window's cells, (side^2,)."""
    low, high = window
    cell = ((x - low) / (high - low) * side).floor().to(torch.int64)
    inside = ((cell >= 0) & (cell < side)).all(1)
    index = cell[inside, 0] * side + cell[inside, 1]
    return torch.bincount(index, minlength=side**2).double()


def fit_p_value(x: Tensor, masses: Tensor, window: tuple[Tensor, Tensor]) -> float:
    found, expected = counts(x, window, len(masses)), len(x) * masses.flatten()
    large = expected >= 25
    rest = torch.stack([len(x) - found[large].sum(), len(x) - expected[large].sum()])
    statistic = float(((found - expected)[large].square() / expected[large]).sum())
    statistic += float((rest[0] - rest[1]).square() / rest[1].clamp(min=1))
    return float(chi2.sf(statistic, df=int(large.sum())))


@pytest.fixture(scope="session", name="settings_of")
def fixture_settings_of() -> Callable[..., dict[str, Any]]:
    """Return a function from a name and changes to the settings of the command line."""
    return settings_of


@pytest.fixture(scope="session")
def build() -> Callable[..., Density]:
    """Return a function from a name and changes to a density, unchecked by the config."""
    return build_density


@pytest.fixture(scope="session")
def default() -> Callable[[str], Density]:
    """Return a function from a name to the density with the command line's defaults."""
    return default_density


@pytest.fixture(scope="session")
def draw() -> Callable[..., Tensor]:
    """Return a function that draws n points of a density from a seed."""

    def draw(density: Density, n: int, seed: int = 0) -> Tensor:
        return density.sample(n, torch.Generator().manual_seed(seed))

    return draw


@pytest.fixture(scope="session")
def masses_and_entropy() -> Callable[[Density, Density], tuple[Tensor, float]]:
    """Return a function to a density's mass in 48 x 48 cells of a window, and its entropy there.

    The window is that of a density, the second argument.
    """
    return integrate


@pytest.fixture(scope="session")
def histogram_p_value() -> Callable[[Tensor, Tensor, tuple[Tensor, Tensor]], float]:
    """Return the chi-square test of points against the masses of a window's cells.

    Cells that expect fewer than 25 points are one cell.
    """
    return fit_p_value


@pytest.fixture(scope="session")
def two_sample_p_value() -> Callable[[Tensor, Tensor, tuple[Tensor, Tensor]], float]:
    """Return the chi-square test that two sets of as many points come from one density.

    Cells of the window that hold fewer than 50 points of both are one cell.
    """

    def p_value(x: Tensor, y: Tensor, window: tuple[Tensor, Tensor]) -> float:
        assert len(x) == len(y)
        mine, theirs = counts(x, window), counts(y, window)
        large = mine + theirs >= 50
        pairs = torch.stack([mine[large], theirs[large]])
        pairs = torch.cat([pairs, len(x) - pairs.sum(1, keepdim=True)], 1)
        a, b = pairs[:, pairs.sum(0) > 0]
        statistic = float(((a - b).square() / (a + b)).sum())
        return float(chi2.sf(statistic, df=len(a) - 1))

    return p_value
