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


@pytest.mark.parametrize(
    ("curve", "shown"),
    [
        ([3.9, 3.33], [3.9, 3.33]),  # of two, both
        ([3.40, 2.419, 2.398], [2.419, 2.398]),  # the end is enlarged
        ([2.6, 2.5, 2.45, 2.42, 2.40], [2.6, 2.5, 2.45, 2.42, 2.40]),
        ([9e9, 3.0, 2.9, 1e6, 2.8], [3.0, 2.8]),
        ([2.5], [2.5]),
    ],
)
def test_an_axis_shows_a_curve_whole_or_its_end_large(
    curve: list[float], shown: list[float]
) -> None:
    def view(values: list[float], *, rising: bool = False) -> tuple[float, float]:
        axes = Figure().subplots()
        panels.fit_axis(axes, [values, [float("nan")]], rising=rising)
        return axes.get_ylim()

    low, high = view(curve)
    assert low < min(shown) <= max(shown) < high
    if curve != shown:
        assert high < max(curve)
        assert max(shown) - min(shown) > 0.25 * (high - low)
    rising = view([-value for value in curve], rising=True)
    assert rising == pytest.approx((-high, -low))
    log = Figure().subplots()
    log.plot(curve)
    log.set_yscale("log")
    panels.fit_axis(log, [curve])
    assert log.get_ylim()[1] > max(curve)
