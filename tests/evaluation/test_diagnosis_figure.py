"""The page of a diagnosis holds every finding, for one column and for many."""

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from flowtrain.data.splits import Split
from flowtrain.evaluation.diagnose import Evidence, diagnose
from flowtrain.evaluation.diagnosis import Column, Diagnosis, Group
from flowtrain.evaluation.diagnosis_figure import LINES, diagnosis_figure
from flowtrain.evaluation.images import pixels
from flowtrain.flows.flow import Flow, Standardize


@pytest.mark.parametrize("dim", [1, 2, 12])
def test_the_page_holds_every_finding_and_the_worst_columns(dim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, train = (torch.randn(n, dim, generator=generator).double() for n in (40, 60))
    flow = Flow([], Standardize(torch.zeros(dim), torch.full((dim,), 1.5)).double())
    columns = [
        f"${{column_{index}$" for index in range(dim)
    ]  # no formula, though it looks like one
    found, evidence = diagnose(
        flow,
        Split(x),
        Split(train),
        columns=columns,
        density=None,
        generator=generator,
        batch_size=50,
    )
    assert torch.equal(evidence.points, x)
    figure = diagnosis_figure(found, evidence, columns=columns, title="demo")
    pixels(figure)
    named = {axes.get_label(): axes for axes in figure.axes}
    assert [*named] == ["coverage", "base", "marginals", "tails", "worst"]
    assert written(figure) >= {line for _, line in found.findings()}
    assert len(named["marginals"].patches) == min(dim, LINES)
    for axes in figure.axes:
        if (legend := axes.get_legend()) is not None:  # beside its panel it hides nothing
            assert legend.get_window_extent().x0 >= axes.bbox.x1


def written(figure: Figure) -> set[str]:
    """Return all texts of a figure, each in one line."""
    texts = figure.findobj(Text)
    return {text.get_text().replace("\n", " ") for text in texts if isinstance(text, Text)}


@pytest.mark.parametrize("many", [3, 14])
def test_conditions_stand_in_the_order_of_the_table(many: int) -> None:
    groups = [
        Group(f"kind={number}", 20, nll=1.0, coverage={0.5: 0.4}, coverage_p_value=1 / (number + 2),
              base_p_value=1.0)
        for number in range(many)
    ]  # fmt: skip
    found = Diagnosis(
        points=40, coverage={0.5: 0.4}, coverage_p_value=0.5, base=[(0.1, 0.5)], auc=0.5,
        auc_floor=0.5, auc_error=0.1, beyond=0.0, beyond_expected=0.1, beyond_p_value=1.0,
        columns=[Column("x", 0.1, 0.5, {0.01: (0.0, 0.1), 0.99: (1.0, 1.1)})], worst=[0],
        worst_log_prob=[-9.0], by_condition=groups,
    )  # fmt: skip
    points = torch.linspace(0, 1, 40)[:, None]
    figure = diagnosis_figure(found, Evidence(points, points, points), columns=["x"], title="demo")
    pixels(figure)
    (axes,) = [axes for axes in figure.axes if axes.get_label() == "conditions"]
    legend = axes.get_legend()
    assert legend is not None
    shown = [text.get_text() for text in legend.get_texts()]
    worst = [group.label for group in groups][-LINES:]  # their p-values are the smallest
    assert shown == worst
    assert written(figure) >= {line for _, line in found.findings()}
