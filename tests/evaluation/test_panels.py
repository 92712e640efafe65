"""What figures share: windows, histograms on the scale of a density, panels, titles."""

import pytest
import torch
from matplotlib.figure import Figure

from flowtrain.evaluation import panels
from flowtrain.evaluation.images import pixels


def test_a_histogram_has_the_mass_of_its_points_the_right_way_up() -> None:
    points = torch.tensor([[0.9, 0.1]]).expand(100, 2)
    counts = panels.histogram(points, (0, 1, 0, 2))
    side = len(counts)
    assert counts.sum() * 2 / side**2 == pytest.approx(1)
    row, column = divmod(int(counts.argmax()), side)
    assert (row, column) == (int(0.05 * side), int(0.9 * side))


@pytest.mark.parametrize("extent", [(0, 1, 0, 1), (0, 100, 0, 1), (0, 1, 0, 100)])
def test_no_window_makes_a_panel_a_thread(extent: panels.Extent) -> None:
    figure, axes = panels.panels(extent, 1, 2, "a title")
    pixels(figure)
    box = axes[0].get_window_extent()
    assert 0.45 < box.height / box.width < 2.1


@pytest.mark.parametrize("inches", [2.0, 4.0, 9.0])
def test_a_title_is_never_wider_than_its_figure(inches: float) -> None:
    figure = Figure(figsize=(inches, 3))
    panels.write_title(figure, "autoregressive on a_table, step 12,345: NLL 2.4101  KL 0.0210 nats")
    pixels(figure)
    (title,) = figure.texts
    box = title.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
