"""Figures of a continuous flow's way: paths, field, and the mesh that carries the density."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from flowtrain.densities.density import Density
from flowtrain.densities.radial import circles
from flowtrain.evaluation import motion, panels
from flowtrain.flows.continuous import ContinuousFlow


@pytest.fixture
def density() -> Density:
    return circles(noise=0.08, factor=0.5, scale=3.0)


@pytest.fixture(scope="module")
def flow(make_ffjord: Callable[..., ContinuousFlow]) -> ContinuousFlow:
    return make_ffjord(width=4, depth=1, dtype=torch.float32)


def test_paths_are_drawn_over_the_dots_of_their_ends(
    flow: ContinuousFlow, density: Density
) -> None:
    figure = motion.path_figure(flow, density, torch.randn(50, 2), title="a title")
    assert sum("field at t" in axis.get_title() for axis in figure.axes) == 5
    base, data, paths = figure.axes[0].collections
    ends = [np.asarray(dots.get_offsets()).shape for dots in (base, data)]
    assert ends == [(50, 2)] * 2
    assert len(paths.get_paths()) == 50 * 40
    assert paths.get_zorder() > data.get_zorder()


def test_a_field_is_drawn_over_the_density_of_its_moment(
    flow: ContinuousFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(motion, "MESH", 9)
    monkeypatch.setattr(motion, "SIDE", 9)
    z = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    figure = motion.field_figure(flow, None, z, title="", batch_size=50)
    for axis in figure.axes:
        (image,), (arrows,) = axis.images, axis.collections
        assert np.asarray(image.get_array()).max() > 0
        assert arrows.get_zorder() > image.get_zorder()


def test_the_mesh_carries_the_density_that_a_solve_for_each_moment_gives(
    make_ffjord: Callable[..., ContinuousFlow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(motion, "MESH", 5)
    flow = make_ffjord(width=4, depth=1)
    times = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
    corners, log_q = motion._moving_mesh(flow, times, batch_size=10)
    assert (corners.shape, log_q.shape) == ((3, 5, 5, 2), (3, 5, 5))
    for t, x, values in zip(times.tolist(), corners, log_q, strict=True):
        expected = flow.log_prob_at(t, torch.from_numpy(x.reshape(-1, 2))).detach()
        torch.testing.assert_close(torch.from_numpy(values.flatten()), expected, rtol=0, atol=1e-3)


def test_a_density_on_a_mesh_is_interpolated_on_a_grid_the_right_way_up() -> None:
    z = panels.grid_over((-3, 3, -3, 3), 60).numpy()
    log_q = -0.5 * ((z - [1.0, -0.5]) ** 2).sum(1)
    extent = (-2.0, 2.0, -1.0, 4.0)  # above 3 there is no mesh
    found = motion._on_grid(z.reshape(60, 60, 2), log_q.reshape(60, 60), extent)
    x = panels.grid_over(extent, motion.SIDE)
    expected = torch.exp(-0.5 * ((x - torch.tensor([1.0, -0.5])) ** 2).sum(1))
    expected = torch.where(x[:, 1] > 3, 0, expected).reshape(motion.SIDE, motion.SIDE).T
    np.testing.assert_allclose(found, expected, rtol=0, atol=4e-3)


def test_an_animation_has_a_frame_for_every_moment(
    flow: ContinuousFlow, density: Density, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(motion, "MESH", 9)
    monkeypatch.setattr(motion, "SIDE", 9)
    z = torch.randn(50, 2)
    frames = list(motion.animation(flow, density, z, frames=3, batch_size=10_000, lines=120))
    height, width, _ = frames[0].shape
    assert (width, height <= 120) == (213, True)
    assert [frame.shape for frame in frames] == [(height, width, 3)] * 3
    assert (frames[0] != frames[2]).any()
    assert np.asarray(frames).std() > 0


@pytest.mark.parametrize("shape", [(8.0, 1.0), (8.0, 4.0), (4.0, 4.0), (2.0, 4.0)])
def test_an_animation_has_little_white_above_and_below_its_panels(
    flow: ContinuousFlow, monkeypatch: pytest.MonkeyPatch, shape: tuple[float, float]
) -> None:
    monkeypatch.setattr(motion, "MESH", 9)
    monkeypatch.setattr(motion, "SIDE", 9)
    monkeypatch.setattr(motion, "extent_of", lambda *_: (0.0, shape[0], 0.0, shape[1]))
    (frame, *_) = motion.animation(
        flow, None, torch.randn(9, 2), frames=2, batch_size=100, lines=540
    )
    inked = np.flatnonzero((frame < 128).any(axis=(1, 2)))
    assert inked[0] < 0.04 * 540
    assert len(frame) - inked[-1] < 0.04 * 540
