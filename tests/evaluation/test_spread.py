"""Means over runs, and their standard errors."""

import math

import pytest
import torch

from flowtrain.evaluation.spread import Spread, spreads


def test_the_error_is_the_standard_error_of_the_mean() -> None:
    values = torch.randn(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spread = Spread(tuple(values.tolist()))
    assert spread.mean == pytest.approx(values.mean().item())
    assert spread.error == pytest.approx(values.std().item() / 4)


def test_a_single_value_and_an_infinite_one_have_no_error() -> None:
    assert math.isnan(Spread((1.0,)).error)
    infinite = Spread((1.0, math.inf))
    assert infinite.mean == math.inf
    assert math.isnan(infinite.error)


def test_only_metrics_that_all_runs_have_are_averaged() -> None:
    assert spreads([{"a": 1.0, "b": 2.0}, {"b": 4.0, "c": 1.0}]) == {"b": Spread((2.0, 4.0))}
