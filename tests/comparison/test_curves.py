"""The picture of many runs: which panels, what is drawn in them, and what must not spoil them."""

from typing import Any

import numpy as np
from matplotlib.colors import to_hex

from flowtrain.comparison.curves import ENTROPY, Curves, comparison_figure
from flowtrain.evaluation.images import pixels


def curves(group: str, **changes: Any) -> Curves:
    settings: dict[str, Any] = {
        "data": "moons", "steps": [0, 10, 20], "seconds": [0, 1, 2], "nll": [9e9, 3.0, 2.5],
        "kl": [9e9, 0.6, 0.1], "entropy": 2.4, "parameters": 100, "final": 0.1,
    }  # fmt: skip
    return Curves(group=group, **(settings | changes))


def test_the_picture_has_three_panels_for_each_data_set() -> None:
    runs = [curves("a"), curves("a"), curves("b", parameters=10_000), curves("a", data="rings")]
    figure = comparison_figure(runs)
    assert [axis.get_title() for axis in figure.axes[:3]] == [
        "moons: NLL over steps", "KL against time", "KL against parameters",
    ]  # fmt: skip
    assert len(figure.axes) == 6
    nll, time, parameters = figure.axes[:3]
    assert [len(axis.lines) for axis in (nll, time, parameters)] == [4, 3, 3]
    (floor,) = (line for line in nll.lines if line.get_label() == ENTROPY)
    assert np.asarray(floor.get_ydata()).tolist() == [2.4, 2.4]
    assert nll.get_ylim()[0] < 2.4
    assert [line.get_color() for line in time.lines[:2]] == [nll.lines[0].get_color()] * 2
    assert time.lines[2].get_color() != time.lines[0].get_color()
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
        "NLL against time", "NLL against parameters",
    ]  # fmt: skip
    assert np.asarray(figure.axes[1].lines[0].get_ydata()).tolist() == [9e9, 3.0, 2.5]


def test_figures_that_are_no_number_do_not_spoil_the_picture() -> None:
    nan = [float("nan")] * 3
    assert pixels(comparison_figure([curves("a", nll=nan, kl=nan, final=nan[0])])).any()
    many = [curves(f"group {index} of a name that is long", kl=[-1, 0, 1]) for index in range(12)]
    figure = comparison_figure(many)
    assert len({to_hex(line.get_color()) for line in figure.axes[1].lines}) == 12
    assert pixels(figure).any()
