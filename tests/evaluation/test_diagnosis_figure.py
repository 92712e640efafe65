"""The page of a diagnosis holds every finding, for one column and for many."""

import pytest
import torch

from flowtrain.data.splits import Split
from flowtrain.evaluation.diagnose import diagnose
from flowtrain.evaluation.diagnosis_figure import LINES, diagnosis_figure
from flowtrain.flows.flow import Flow, Standardize


@pytest.mark.parametrize("dim", [1, 2, 12])
def test_the_page_holds_every_finding_and_the_worst_columns(dim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, train = (torch.randn(n, dim, generator=generator).double() for n in (40, 60))
    flow = Flow([], Standardize(torch.zeros(dim), torch.full((dim,), 1.5)).double())
    columns = [
        f"${{column_{index}$" for index in range(dim)
    ]  # no formula, though it looks like one
    found = diagnose(
        flow,
        Split(x),
        Split(train),
        columns=columns,
        density=None,
        generator=generator,
        batch_size=50,
    )
    figure = diagnosis_figure(
        found, u=flow.base.cdf(flow.inverse(x)[0]), test=x, samples=flow.sample(30, generator),
        columns=columns, title="demo",
    )  # fmt: skip
    named = {axes.get_label(): axes for axes in figure.axes}
    assert [*named] == ["coverage", "base", "marginals", "tails", "worst", "words"]
    words = " ".join(text.get_text().replace("\n", " ") for text in named["words"].texts)
    assert all(line in words for _, line in found.findings())
    assert named["coverage"].get_legend() is None  # it would hide points
    assert len(named["marginals"].patches) == min(dim, LINES)
