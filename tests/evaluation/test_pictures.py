"""Which figures a run has, by its flow and its data."""

from collections.abc import Callable

import pytest
import torch

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
