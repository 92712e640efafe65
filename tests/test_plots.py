"""Figures: what they show, on which scale, and that they are written."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from flowtrain import plots
from flowtrain.data import Circles, Density
from flowtrain.flows import ContinuousFlow, Flow, Standardize
from flowtrain.flows.continuous import ffjord
from flowtrain.flows.ode import Solver


@pytest.fixture
def density() -> Density:
    return Circles(noise=0.08, factor=0.5, scale=3.0)


@pytest.fixture
def flow() -> ContinuousFlow:
    solver = Solver("dopri5", rtol=1e-3, atol=1e-3, max_steps=100)
    flow = ffjord(
        Standardize(torch.zeros(2), torch.full((2,), 2.0)),
        field="concatsquash",
        width=4,
        depth=1,
        activation="tanh",
        divergence="exact",
        probes=None,
        noise=None,
        solver=solver,
        evaluation_solver=solver,
        generator=torch.Generator(),
    )
    return flow.eval()


def test_all_four_panels_share_one_window_and_one_color_scale(flow: Flow, density: Density) -> None:
    data = density.sample(500, torch.Generator().manual_seed(0))
    figure = plots.density_figure(flow, density, data, data, title="a title", batch_size=10_000)
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
    figure = plots.density_figure(flow, density, data, data, title="", batch_size=10_000)
    low, high = density.window
    area = float((high - low).prod())
    for axis in figure.axes[:2]:
        values = axis.images[0].get_array()
        assert values is not None
        assert float(values.mean()) * area == pytest.approx(1, abs=0.02)


def test_the_model_panel_shows_the_models_density_upright(
    flow: ContinuousFlow, density: Density
) -> None:
    flow.standardize.mean[:] = torch.tensor([1.0, -2.0])  # its peak, off the diagonal
    data = density.sample(100, torch.Generator().manual_seed(0))
    figure = plots.density_figure(flow, density, data, data, title="", batch_size=10_000)
    image = next(axis for axis in figure.axes if axis.get_title() == "model density").images[0]
    values = np.asarray(image.get_array())
    row, column = np.unravel_index(values.argmax(), values.shape)
    left, right, bottom, top = image.get_extent()
    assert left + (column + 0.5) / values.shape[1] * (right - left) == pytest.approx(1, abs=0.1)
    assert bottom + (row + 0.5) / values.shape[0] * (top - bottom) == pytest.approx(-2, abs=0.1)


def test_paths_and_fields_are_drawn_and_written(
    flow: ContinuousFlow, density: Density, tmp_path: Path
) -> None:
    figure = plots.path_figure(flow, density, torch.randn(50, 2), title="a title")
    image = plots.pixels(figure)
    plots.save_png(image, tmp_path / "figures" / "paths.png")
    with PIL.Image.open(tmp_path / "figures" / "paths.png") as written:
        assert written.size == image.shape[1::-1]
    assert sum("field at t" in axis.get_title() for axis in figure.axes) == 5


def test_an_animation_has_a_frame_for_every_moment(
    flow: ContinuousFlow, density: Density, tmp_path: Path
) -> None:
    frames = list(plots.animation(flow, density, torch.randn(50, 2), frames=3, batch_size=10_000))
    plots.save_gif(frames, tmp_path / "flow.gif")
    with PIL.Image.open(tmp_path / "flow.gif") as gif:
        assert getattr(gif, "n_frames", 1) == 3
        assert gif.info["loop"] == 0  # for ever
