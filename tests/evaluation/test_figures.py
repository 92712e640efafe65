"""Figures: what they show, and on which scale."""

import numpy as np
import pytest
import torch

from flowtrain.config.solver import Adaptive
from flowtrain.densities.density import Density
from flowtrain.densities.radial import circles
from flowtrain.evaluation import figures
from flowtrain.flows.continuous import ContinuousFlow, ffjord
from flowtrain.flows.fields import ConcatSquash
from flowtrain.flows.flow import Flow, Standardize


@pytest.fixture
def density() -> Density:
    return circles(noise=0.08, factor=0.5, scale=3.0)


@pytest.fixture
def flow() -> ContinuousFlow:
    return ffjord(
        Standardize(torch.zeros(2), torch.full((2,), 2.0)),
        field=ConcatSquash,
        width=4,
        depth=1,
        activation="tanh",
        divergence="exact",
        probes=None,
        noise=None,
        solver=Adaptive(name="dopri5", rtol=1e-3, atol=1e-3, max_steps=100),
        generator=torch.Generator(),
    )


def test_all_four_panels_share_one_window_and_one_color_scale(flow: Flow, density: Density) -> None:
    data = density.sample(500, torch.Generator().manual_seed(0))
    figure = figures.density_figure(flow, density, data, data, title="a title", batch_size=10_000)
    axes = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in axes] == [
        "data",
        "exact density",
        "model density",
        "samples",
    ]
    assert len({axis.images[0].get_clim() for axis in axes}) == 1
    assert len({tuple(axis.images[0].get_extent()) for axis in axes}) == 1
    low, high = axes[0].images[0].get_clim()
    grid, _ = density.quadrature(400)
    assert low == 0
    assert high == pytest.approx(float(density.log_prob(grid).max().exp()), rel=0.02)


def test_a_histogram_of_samples_is_a_density_on_the_scale_of_the_exact_one(
    flow: Flow, density: Density
) -> None:
    data = density.sample(20_000, torch.Generator().manual_seed(0))
    figure = figures.density_figure(flow, density, data, data, title="", batch_size=10_000)
    low, high = density.window
    area = float((high - low).prod())
    for axis in figure.axes[:2]:
        values = axis.images[0].get_array()
        assert values is not None
        assert float(values.mean()) * area == pytest.approx(1, abs=0.02)


def test_the_model_panel_shows_the_models_density_upright(
    flow: ContinuousFlow, density: Density
) -> None:
    assert isinstance(flow.standardize, Standardize)
    flow.standardize.mean[:] = torch.tensor([1.0, -2.0])  # its peak, off the diagonal
    data = density.sample(100, torch.Generator().manual_seed(0))
    figure = figures.density_figure(flow, density, data, data, title="", batch_size=10_000)
    image = next(axis for axis in figure.axes if axis.get_title() == "model density").images[0]
    values = np.asarray(image.get_array())
    row, column = np.unravel_index(values.argmax(), values.shape)
    left, right, bottom, top = image.get_extent()
    assert left + (column + 0.5) / values.shape[1] * (right - left) == pytest.approx(1, abs=0.1)
    assert bottom + (row + 0.5) / values.shape[0] * (top - bottom) == pytest.approx(-2, abs=0.1)


def test_of_an_unknown_density_the_data_set_window_and_scale(flow: Flow) -> None:
    data = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    data[0] = 1e6  # an outlier
    figure = figures.density_figure(flow, None, data, data, title="", batch_size=10_000, side=16)
    axes = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in axes] == ["data", "model density", "samples"]
    assert len({axis.images[0].get_clim() for axis in axes}) == 1
    assert axes[0].get_xlim()[1] < 10


def test_marginals_are_of_every_pair_of_columns() -> None:
    data, samples = torch.randn(300, 3), torch.randn(200, 3)
    figure = figures.marginals_figure(data, samples, ["a", "b", "c"], title="a title")
    drawn = [axis for axis in figure.axes if axis.axison]
    assert len(figure.axes) == 9
    assert len(drawn) == 6  # the diagonal and below it
    assert [axis.get_xlabel() for axis in figure.axes[6:]] == ["a", "b", "c"]
    assert [axis.get_ylabel() for axis in figure.axes[::3]] == ["", "b", "c"]


def test_bins_fit_the_rows_and_the_legend_counts_them() -> None:
    data, samples = torch.randn(100, 2), torch.randn(5000, 2)
    figure = figures.marginals_figure(data, samples, ["a", "b"], title="a title")
    assert len(figure.axes[0].patches) == 2 * 10
    (legend,) = [legend for axis in figure.axes if (legend := axis.get_legend())]
    assert [text.get_text() for text in legend.get_texts()] == [
        "data, 100 rows", "samples, 5,000",
    ]  # fmt: skip


def test_of_many_columns_some_are_drawn_evenly_spaced() -> None:
    points, columns = torch.randn(50, 20), [f"column {place}" for place in range(20)]
    figure = figures.marginals_figure(points, points, columns, title="a title")
    side = figures.MARGINALS
    shown = [axis.get_xlabel() for axis in figure.axes[-side:]]
    assert shown == [f"column {place}" for place in (2, 6, 10, 14, 18)]
    assert figure.get_suptitle() == "a title; 5 of 20 columns"
    chosen = figures.marginals_figure(points, points, columns, title="", shown=[7, 3])
    assert [axis.get_xlabel() for axis in chosen.axes[-2:]] == ["column 7", "column 3"]
