"""The picture of many runs: which panels, what is drawn in them, and what must not spoil them."""

from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from flowtrain.comparison.curves import ENTROPY, MOST_COLORS, NAMES, Curves, comparison_figure
from flowtrain.evaluation.images import pixels


def curves(group: str, **changes: Any) -> Curves:
    """Return a run with NLL and KL; a metric among the changes is another, or left out if None."""
    found = {"nll": [9e9, 3.0, 2.5], "kl": [9e9, 0.6, 0.1]}
    for name in NAMES.keys() & changes.keys():
        found[name] = changes.pop(name)
    found = {name: values for name, values in found.items() if values is not None}
    settings: dict[str, Any] = {
        "model": "a", "data": "moons", "steps": [0, 10, 20], "seconds": [0, 1, 2], "found": found,
        "entropy": 2.4, "parameters": 100, "final": {name: found[name][-1] for name in found},
    }  # fmt: skip
    return Curves(group=group, **(settings | changes))


def test_the_picture_has_three_panels_for_each_data_set() -> None:
    runs = [curves("a"), curves("a"), curves("b", parameters=10_000), curves("a", data="rings")]
    figure = comparison_figure(runs)
    assert [axis.get_title() for axis in figure.axes[:3]] == [
        "moons: NLL over steps", "moons: KL against time", "moons: KL against parameters",
    ]  # fmt: skip
    assert len(figure.axes) == 6
    nll, time, parameters = figure.axes[:3]
    # Two seeds and their median, one run, the floor.
    assert [len(axis.lines) for axis in (nll, time, parameters)] == [5, 4, 3]
    (floor,) = (line for line in nll.lines if line.get_label() == ENTROPY)
    assert np.asarray(floor.get_ydata()).tolist() == [2.4, 2.4]
    assert nll.get_ylim()[0] < 2.4
    assert [line.get_color() for line in time.lines[:3]] == [nll.lines[0].get_color()] * 3
    assert time.lines[3].get_color() != time.lines[0].get_color()
    assert (time.get_yscale(), time.get_xscale()) == ("log", "linear")
    assert parameters.get_xscale() == "log"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", ENTROPY]


def test_a_first_evaluation_far_off_does_not_flatten_the_curves() -> None:
    runs = [curves("a", steps=range(9), seconds=range(9), nll=[9e9, *[2.5] * 8], kl=[0.1] * 9)]
    assert comparison_figure(runs).axes[0].get_ylim()[1] < 3


def test_without_kl_the_panels_show_nll() -> None:
    figure = comparison_figure([curves("a", kl=None, entropy=None), curves("b")])
    assert [axis.get_title() for axis in figure.axes[1:]] == [
        "moons: NLL against time", "moons: NLL against parameters",
    ]  # fmt: skip
    assert np.asarray(figure.axes[1].lines[0].get_ydata()).tolist() == [9e9, 3.0, 2.5]


def test_runs_by_reverse_kl_are_judged_by_it_and_without_log_z_by_the_elbo() -> None:
    runs = [curves("a", kl_reverse=[0.9, 0.4, 0.2]), curves("b", kl_reverse=[0.8, 0.5, 0.3])]
    target = {"nll": None, "kl": None, "entropy": None, "elbo": [-9e9, 1.0, 1.5], "data": "target"}
    figure = comparison_figure([*runs, curves("c", **target)])
    assert [axis.get_title() for axis in figure.axes] == [
        "moons: KL(model | data) over steps", "moons: KL(model | data) against time",
        "moons: KL(model | data) against parameters",
        "target: ELBO over steps", "target: ELBO against time", "target: ELBO against parameters",
    ]  # fmt: skip
    for axis, last in zip(figure.axes[:3], (0.2, 0.2, 0.2), strict=True):
        assert np.asarray(axis.lines[0].get_ydata()).tolist()[-1] == last
    for axis in figure.axes[3:5]:
        assert np.asarray(axis.lines[0].get_ydata()).tolist() == [-9e9, 1.0, 1.5]
        assert axis.get_ylim()[1] > 1.5
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]  # no entropy
    lost = curves("e", steps=[], seconds=[], nll=None, kl=None, final={"kl_reverse": 0.3})
    assert comparison_figure([*runs, lost]).axes[1].get_title().startswith("moons: KL(model")
    beside = comparison_figure([*runs, curves("d")])  # of another objective: by what all have
    assert beside.axes[1].get_title() == "moons: KL against time"


@pytest.mark.parametrize(("error", "widest"), [(0.0, 0.0024), (0.06, 0.08)])
def test_over_time_too_the_curve_of_a_table_fills_its_panel_as_far_as_it_is_known(
    error: float, widest: float
) -> None:
    nll = [3.3412, 3.3400, 3.3405]
    figure = comparison_figure([curves("affine", nll=nll, kl=None, entropy=None, error=error)])
    for axis in figure.axes[:2]:
        low, high = axis.get_ylim()
        assert low < min(nll) < max(nll) < high
        assert error <= high - low < widest


def test_a_single_number_of_parameters_is_the_only_tick() -> None:
    figure = comparison_figure([curves("affine", parameters=58_792)])
    pixels(figure)
    ticks = figure.axes[2].get_xticklabels()
    assert [tick.get_text() for tick in ticks] == ["58,792"]


def test_numbers_of_parameters_are_whole() -> None:
    few = [curves("affine", parameters=number) for number in (6, 7)]
    figure = comparison_figure(few)
    pixels(figure)
    assert all(tick == round(tick) for tick in figure.axes[2].get_xticks())


def test_figures_that_are_no_number_do_not_spoil_the_picture() -> None:
    nan = [float("nan")] * 3
    assert pixels(comparison_figure([curves("a", nll=nan, kl=nan)])).any()
    assert pixels(comparison_figure([curves("a", kl=[-1, 0, 1])])).any()


@pytest.mark.parametrize("number", [2, 12, 20, 40])
def test_every_label_and_title_is_inside_the_picture(number: int) -> None:
    runs = [
        curves(f"model lr=0.{index} of a name that is long", model=f"model {index % 3}", data=data)
        for index in range(number)
        for data in ("moons noise=0.1", "a table of a very long name " * 3)
    ]
    figure = comparison_figure(runs)
    pixels(figure)
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    colors = {to_hex(line.get_color()) for line in legend.get_lines()[:-1]}
    assert len(colors) == len(names) - 1 == (number if number <= MOST_COLORS else 3)
    assert number <= MOST_COLORS or names[0] == "model 0 (14 settings)"
    boxes = [legend.get_window_extent(), *(axis.title.get_window_extent() for axis in figure.axes)]
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    assert figure.axes[0].get_window_extent().height > 150  # the legend leaves room for panels


def test_one_seed_far_off_does_not_move_the_line_of_its_setting() -> None:
    runs = [curves("a", kl=[1.0, 0.5, last]) for last in (0.1, 0.2, 1e6)]
    time = comparison_figure(runs).axes[1]
    assert np.asarray(time.lines[-1].get_ydata()).tolist() == [1.0, 0.5, 0.2]


def test_steps_are_whole_numbers_on_their_axis() -> None:
    axes = comparison_figure([curves("realnvp", steps=[0, 1, 2])]).axes[0]
    assert all(tick == round(tick) for tick in axes.get_xticks())
