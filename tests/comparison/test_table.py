"""Rows of runs: their means, which of them is best, and the table as text."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest

from flowtrain.comparison.summary import RunSummary
from flowtrain.comparison.table import Comparison, Row, as_text, render_csv, render_markdown
from flowtrain.runs.migrate import SCHEMA


def bold(text: str) -> str:
    return f"*{text}*"


def run(
    data: str = "moons", *, parameters: int = 100, seconds: float = 20.0, **metrics: Any
) -> RunSummary:
    """Return a completed run; `kl__test` names the metric kl/test."""
    tags = {tag.replace("__", "/"): value for tag, value in metrics.items()}
    result = {"data": data, "parameters": parameters, "seconds": seconds, "metrics": tags}
    return RunSummary(Path("somewhere"), "completed", {**result, "config": {"schema": SCHEMA}})


def row(model: str, *runs: RunSummary) -> Row:
    """Return the row of a model's runs on one data set."""
    return Row((model, runs[0].result["data"]), list(runs))


def table(
    *rows: Row, metrics: tuple[str, ...] = ("kl/test",), notes: tuple[str, ...] = ()
) -> Comparison:
    return Comparison(("model", "data"), metrics, list(rows), list(notes))


def test_runs_are_averaged_with_their_standard_error() -> None:
    three = row("realnvp", *(run(kl__test=kl, nll__test=2.5 + kl) for kl in (0.1, 0.2, 0.6)))
    one = row("ffjord", run(kl__test=0.25, nll__test=2.0, parameters=2000))
    comparison = table(one, three, metrics=("kl/test", "nll/test"))
    assert comparison.columns == [
        "model", "data", "kl/test", "nll/test", "runs", "parameters", "seconds",
    ]  # fmt: skip
    assert [*comparison.cells(bold)] == [
        ["ffjord", "moons", "*0.2500*", "*2.0000*", "1", "2,000", "20"],
        ["realnvp", "moons", "0.3000 ± 0.1528", "2.8000 ± 0.1528", "3", "100", "20"],
    ]
    assert three.mean("kl/test") == pytest.approx((0.3, (0.07 / 3) ** 0.5))
    assert math.isnan(one.mean("kl/test")[1])


def test_a_metric_is_averaged_over_the_runs_that_have_it() -> None:
    some = row("realnvp", run(kl__test=0.1), run(kl__test=0.3), run())
    assert some.mean("kl/test")[0] == pytest.approx(0.2)
    assert all(map(math.isnan, some.mean("nll/test")))
    assert [cells[2] for cells in table(some, metrics=("nll/test",)).cells(bold)] == ["-"]
    infinite = row("realnvp", run(kl__test=math.inf), run(kl__test=0.3))
    assert infinite.mean("kl/test")[0] == math.inf
    assert math.isnan(infinite.mean("kl/test")[1])


def test_each_data_set_has_its_own_best() -> None:
    comparison = table(
        row("realnvp", run("circles", kl__test=0.001)),
        row("ffjord", run("moons", kl__test=0.1)),
        row("realnvp", run("moons", kl__test=0.2)),
        row("ffjord", run("rings", kl__test=1.1)),
        row("realnvp", run("rings", kl__test=1.2)),
    )
    assert [cells[:3] for cells in comparison.cells(bold)] == [
        ["realnvp", "circles", "0.0010"],  # better than nobody
        ["ffjord", "moons", "*0.1000*"],
        ["realnvp", "moons", "0.2000"],
        ["ffjord", "rings", "*1.1000*"],
        ["realnvp", "rings", "1.2000"],
    ]


def test_a_kl_that_cannot_be_true_is_nobody_s_best() -> None:
    cheat = row("ffjord", run(kl__test=-3.0, kl_error__test=1e-4))
    honest = row("realnvp", run(kl__test=0.01, kl_error__test=1e-4))
    cells = table(cheat, honest).cells(bold)
    assert [cell[2] for cell in cells] == ["-3.0000", "*0.0100*"]


def test_the_highest_elbo_is_the_best() -> None:
    rows = [row("realnvp", run(elbo__test=-2.0)), row("ffjord", run(elbo__test=-1.0))]
    assert table(*rows, metrics=("elbo/test",)).best("elbo/test") == {1}


def test_where_neither_way_is_better_there_is_no_best() -> None:
    rows = [row("realnvp", run(mass__test=0.999)), row("ffjord", run(mass__test=1.0))]
    assert table(*rows, metrics=("mass/test",)).best("mass/test") == set()


def test_a_row_is_called_by_what_tells_it_from_others_on_the_same_data() -> None:
    keys = ("model", "data", "data.noise", "optimizer.lr", "model.width", "solver.width")

    def labels(*values: tuple[str, ...]) -> list[str]:
        rows = [Row(each, [run()]) for each in values]
        comparison = Comparison(keys, (), rows, [])
        return [comparison.label(row) for row in rows]

    one = ("realnvp", "moons", "0.1", "0.01", "64", "-")
    assert labels(one) == ["realnvp"]
    other = ("spline", "moons", "0.1", "0.02", "32", "-")
    assert labels(one, other) == ["realnvp", "spline"]  # the rest follows from the model
    faster = ("realnvp", "moons", "0.1", "0.02", "64", "-")
    assert labels(one, faster, other) == ["realnvp lr=0.01", "realnvp lr=0.02", "spline lr=0.02"]
    wider = ("realnvp", "moons", "0.1", "0.01", "128", "-")
    assert labels(one, wider) == ["realnvp model.width=64", "realnvp model.width=128"]
    assert Comparison(("data",), (), [], []).label(Row(("moons",), [])) == "runs"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (0.1, "0.1"), (1e-3, "0.001"), (1 / 3, "0.333333333333"), (3, "3"),
        (True, "true"), ("a|b", "a|b"), ([1.0, 2], "[1.0, 2]"),
    ],
)  # fmt: skip
def test_a_value_of_a_config_is_shown_as_it_is_typed(value: Any, text: str) -> None:
    assert as_text(value) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (12.3456, "12.3456"), (-3.0, "-3.0000"), (98765.4321, "98765.4"), (6.5e8, "6.5e+08"),
        (0.00012, "0.0001"), (2e-6, "2.0e-06"), (0.0, "0.0000"),
    ],
)  # fmt: skip
def test_a_figure_has_four_decimals_until_they_are_absurd(number: float, text: str) -> None:
    assert [cells[2] for cells in table(row("a", run(kl__test=number))).cells(bold)] == [text]


def test_a_seed_without_a_figure_is_counted_and_its_row_is_not_the_best() -> None:
    lacking = row("a", *(run(kl__test=kl) for kl in (0.010, None, 0.012)))
    comparison = table(lacking, row("b", *(run(kl__test=0.02) for _ in range(3))))
    assert [cells[2] for cells in comparison.cells(bold)] == [
        "0.0110 ± 0.0010 (2 of 3)", "*0.0200 ± 0.0000*",
    ]  # fmt: skip


def test_markdown_and_csv_hold_the_table() -> None:
    comparison = Comparison(
        ("model", "tag"),
        ("kl/test",),
        [
            Row(("realnvp", "a|b"), [run(kl__test=0.1, seconds=1.5), run(kl__test=0.2, seconds=2)]),
            Row(("ffjord", "a|b"), [run(kl__test=0.3, seconds=1234.5)]),
        ],
        ["not in the table: a run"],
    )
    header, rule, first, second, blank, note = render_markdown(comparison).splitlines()
    assert header == "| model | tag | kl/test | runs | parameters | seconds |"
    assert rule == "| --- | --- | --: | --: | --: | --: |"
    assert first == r"| realnvp | a\|b | **0.1500 ± 0.0500** | 2 | 100 | 1.8 |"
    assert second == r"| ffjord | a\|b | 0.3000 | 1 | 100 | 1,234 |"
    assert (blank, note) == ("", "- not in the table: a run")

    rows = [*csv.DictReader(render_csv(comparison).splitlines())]
    assert rows[0]["tag"] == "a|b"
    assert float(rows[0]["kl/test"]) == pytest.approx(0.15)
    assert float(rows[0]["kl/test standard error"]) == pytest.approx(0.05)
    assert rows[1]["kl/test standard error"] == ""
    assert int(rows[0]["runs"]) == 2
    assert float(rows[0]["seconds"]) == 1.75
