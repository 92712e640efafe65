"""The figure of how a run learned: which curves, and on which scale."""

import math
from typing import Any

import numpy as np
import pytest

from flowtrain.evaluation.learning import curves_figure

EVALUATIONS: list[dict[str, Any]] = [
    {"step": step, "nll_paired/val": 2.3 + kl, "nll_paired/train": 2.3 + kl, "kl/val": kl,
     "kl_error/val": 0.1}
    for step, kl in ((0, 1e9), (50, 0.3), (90, 0.2))
]  # fmt: skip
BATCHES: list[dict[str, Any]] = [
    {"step": step, "loss": 9.0, "nll/batch": 2.5 + 1 / step} for step in range(5, 90, 5)
]


def test_batches_and_evaluations_share_a_panel_with_the_entropy() -> None:
    lines = [{**line, "nll/entropy": 2.3} for line in EVALUATIONS]
    nll, kl = curves_figure([*lines, *BATCHES], title="a title").axes
    assert [line.get_label() for line in nll.lines] == ["batch", "train", "validation", "entropy"]
    assert nll.get_ylim()[0] < 2.3
    assert nll.get_ylim()[1] < 10  # the first evaluation is far off
    assert np.asarray(kl.lines[0].get_ydata()).tolist() == [1e9, 0.3, 0.2]
    assert kl.get_yscale() == "log"


@pytest.mark.parametrize("kl", [-0.1, None])
def test_kl_that_is_not_positive_has_a_linear_scale(kl: float | None) -> None:
    lines = [*EVALUATIONS, {**EVALUATIONS[0], "step": 100, "kl/val": kl, "kl_error/val": kl}]
    assert curves_figure(lines, title="").axes[1].get_yscale() == "linear"


def test_a_run_that_does_not_train_by_likelihood_shows_its_loss() -> None:
    history: list[dict[str, Any]] = [
        {"step": 0, "nll/val": 2.0},
        {"step": 1, "loss": 3.0},
        {"step": 2, "loss": math.inf},
    ]
    figure = curves_figure(history, title="")
    assert [axis.get_title() for axis in figure.axes] == ["NLL", "loss"]


def test_the_loss_of_the_steps_before_likelihood_has_a_panel() -> None:
    matched: list[dict[str, Any]] = [{"step": step, "loss": 0.5} for step in range(4)]
    nll, _, loss = curves_figure([*EVALUATIONS, *matched, *BATCHES], title="").axes
    assert nll.lines[0].get_label() == "batch, from step 5"
    assert loss.get_title() == "loss before likelihood"
    assert np.asarray(loss.lines[0].get_xdata()).tolist() == [0, 1, 2, 3]


def test_one_batch_is_no_curve() -> None:
    lines = [*EVALUATIONS, {"step": 60, "loss": 99.0, "nll/batch": 99.0}]
    nll, _ = curves_figure(lines, title="").axes
    assert [line.get_label() for line in nll.lines] == ["train", "validation"]
    assert nll.get_ylim()[1] < 10


def test_the_axis_of_a_table_is_no_narrower_than_its_error() -> None:
    history: list[dict[str, Any]] = [
        {"step": step, "nll/val": nll, "nll/train": nll, "nll_error/val": 0.06}
        for step, nll in enumerate((3.34, 3.341, 3.339))
    ]
    low, high = curves_figure(history, title="").axes[0].get_ylim()
    assert 0.06 < high - low < 0.08


def test_a_target_without_points_shows_its_bound_and_its_loss() -> None:
    history: list[dict[str, float | None]] = [
        {"step": 0, "elbo/val": 1.0},
        {"step": 9, "loss": 0.5},
    ]
    elbo, loss = curves_figure(history, title="a title").axes
    assert (elbo.get_title(), loss.get_title()) == ("ELBO", "loss")
    assert np.asarray(elbo.lines[0].get_ydata()).tolist() == [1.0]
