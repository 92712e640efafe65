"""Which figures a run has, by its flow and its data."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from flowtrain.data.condition import ContextEncoder
from flowtrain.data.sklearn_sets import load_sklearn
from flowtrain.data.splits import Split
from flowtrain.densities.radial import circles
from flowtrain.evaluation.pictures import draw, names_of
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.flow import Flow, Standardize
from flowtrain.flows.linear import affine


def points(n: int, dim: int) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(0))


def plain(dim: int) -> Flow:
    return affine(Standardize(torch.zeros(dim), torch.ones(dim)), generator=torch.Generator())


def test_the_most_telling_figure_comes_first(make_ffjord: Callable[..., ContinuousFlow]) -> None:
    density = circles(noise=0.08, factor=0.5, scale=3.0)
    known, table, wide = Split(points(9, 2), density), Split(points(9, 2)), Split(points(9, 3))
    assert names_of(plain(2), known) == ["density", "marginals"]
    assert names_of(make_ffjord(), known) == ["density", "paths", "field", "marginals"]
    assert names_of(plain(2), table) == ["marginals", "density"]
    assert names_of(make_ffjord(3), wide) == ["marginals"]


@pytest.mark.parametrize("dim", [1, 2])
def test_every_figure_of_a_table_is_drawn(dim: int) -> None:
    flow, data = plain(dim), Split(points(40, dim), columns=("height", "weight")[:dim])
    for name in names_of(flow, data):
        figure = draw(name, flow, data, title="demo", seed=0, batch_size=64, side=8)
        assert figure.get_suptitle() == "demo"


@pytest.mark.parametrize("conditional", [True, False])
def test_digits_have_a_row_for_each_class_or_some_rows_of_all(conditional: bool) -> None:
    table = load_sklearn("digits", condition="target" if conditional else None)
    condition = context = None
    if conditional:
        condition = ContextEncoder.fit(table.given)
        context = condition.encode(table.given)
    data = Split(
        table.values, columns=table.columns, levels=17, context=context, condition=condition
    )
    unit = Standardize(table.values.mean(0), table.values.std(0) + 1e-3)
    flow = affine(unit, generator=torch.Generator(), context_dim=10 if conditional else 0).double()
    assert names_of(flow, data) == ["images", "marginals"]
    figure = draw("images", flow, data, title="demo", seed=0, batch_size=4096)
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert labels == ([f"target={digit}" for digit in range(10)] if conditional else [""] * 5)
    if conditional:
        pixels = np.asarray(figure.axes[0].images[0].get_array())
        first = table.values[table.given["target"] == 3][0].reshape(8, 8).numpy()
        assert np.array_equal(pixels[30:38, :8], first)
