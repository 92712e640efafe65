"""A table over groups of runs: their means, which is best, and the table as text."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any

from flowtrain.comparison.summary import RunSummary, untelling
from flowtrain.evaluation.checks import kl_is_negative
from flowtrain.evaluation.spread import Spread
from flowtrain.evaluation.tags import better
from flowtrain.text import for_markdown

ABSENT = "-"  # in the place of what a run does not have


@dataclass(frozen=True)
class Row:
    """Completed runs, at least one, that agree in every key of the comparison.

    Attributes:
        values: of the keys, as text.
        runs: they differ in their seeds, if the keys are well chosen.

    >>> from flowtrain.comparison.summary import find_runs
    >>> row = Row(("realnvp",), find_runs([run_folder]))
    >>> row.mean("kl/test")[0] == row.runs[0].metrics["kl/test"], row.recorded("parameters")
    (True, 68.0)
    """

    values: tuple[str, ...]
    runs: list[RunSummary]

    def mean(self, metric: str) -> tuple[float, float]:
        """Return a metric's mean over the runs that have it, and the mean's standard error.

        Without such a run both are NaN, and the error of a single one is.
        """
        found = Spread(tuple(run.metrics[metric] for run in self.runs if metric in run.metrics))
        return (found.mean, found.error) if found.each else (math.nan, math.nan)

    def having(self, metric: str) -> int:
        """Return how many of the runs have a metric; of the others it is not a number."""
        return sum(metric in run.metrics for run in self.runs)

    def recorded(self, key: str) -> float:
        """Return the mean of a number that every result.json holds, parameters or seconds."""
        return fmean(run.result[key] for run in self.runs)


@dataclass(frozen=True)
class Comparison:
    """A table over groups of runs.

    Attributes:
        keys: what tells the rows apart.
        metrics: tags, a column each.
        rows: in the order of the table.
        notes: lines that belong below the table.
        details: lines on single runs, too many for a terminal.

    >>> from flowtrain.comparison.summary import find_runs
    >>> rows = [Row((run.value("model"),), [run]) for run in find_runs([run_folder, ffjord_folder])]
    >>> comparison = Comparison(keys=("model",), metrics=("kl/test",), rows=rows, notes=[])
    >>> comparison.columns
    ['model', 'kl/test', 'runs', 'parameters', 'seconds']
    """

    keys: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: list[Row]
    notes: list[str]
    details: list[str] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """The names of the columns: keys, metrics, and what every run records."""
        return [*self.keys, *self.metrics, "runs", "parameters", "seconds"]

    def best(self, metric: str) -> set[int]:
        """Return the positions of the rows with the best mean among those on the same data.

        None where neither way is better, where there is nothing to compare with, and none that
        has a run whose KL cannot be true, or one that lacks the metric.
        """
        way = better(metric)
        if way is None:
            return set()
        rivals: dict[str, list[tuple[float, int]]] = {}
        for position, row in enumerate(self.rows):
            mean, _ = row.mean(metric)
            if not math.isnan(mean):
                data = " ".join(sorted({self.data_set(run) for run in row.runs}))
                rivals.setdefault(data, []).append((mean, position))
        true = [
            [rival for rival in same if not self._denied(rival[1], metric)]
            for same in rivals.values()
            if len(same) > 1
        ]
        choose = min if way == "lower" else max
        return {choose(same)[1] for same in true if same}

    def _denied(self, position: int, metric: str) -> bool:
        row = self.rows[position]
        lacking = row.having(metric) < len(row.runs)
        return lacking or any(kl_is_negative(run.metrics) for run in row.runs)

    def cells(self, emphasise: Callable[[str], str]) -> Iterator[list[str]]:
        """Yield each row as text, the best figures emphasised."""
        best = {metric: self.best(metric) for metric in self.metrics}
        for position, row in enumerate(self.rows):
            figures = []
            for metric in self.metrics:
                text = _figure(*row.mean(metric))
                if 0 < (having := row.having(metric)) < len(row.runs):
                    text += f" ({having} of {len(row.runs)})"
                figures.append(emphasise(text) if position in best[metric] else text)
            parameters, seconds = row.recorded("parameters"), row.recorded("seconds")
            yield [
                *row.values,
                *figures,
                str(len(row.runs)),
                f"{parameters:,.0f}",
                f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.2g}",
            ]

    def data_set(self, run: RunSummary) -> str:
        """Name the data of a run, with the settings that tell it from other data of its name."""
        name = as_text(run.value("data"))
        return " ".join([name, *(f"{k}={as_text(run.value(k))}" for k in self._telling[name])])

    def label(self, row: Row) -> str:
        """Name a row, as shortly as tells it from others on the same data."""
        named = []
        for key, value in zip(self.keys, row.values, strict=True):
            if key in self._labelling and value != ABSENT:
                named.append(value if key == "model" else f"{self._short[key]}={value}")
        return " ".join(named) or "runs"

    @cached_property
    def _labelling(self) -> set[str]:
        """The fewest keys that tell rows on the same data apart, the model before others."""
        places = {key: place for place, key in enumerate(self.keys)}
        of_data = {key for row in self.rows for run in row.runs for key in run.data_settings}
        left = [key for key in self.keys if key != "data" and key not in of_data]
        chosen = ["model"] if "model" in left else []
        left = [key for key in left if key not in chosen]
        data = [sorted({self.data_set(run) for run in row.runs}) for row in self.rows]

        def apart(keys: list[str]) -> int:
            told = (
                (*where, *(row.values[places[key]] for key in keys))
                for where, row in zip(data, self.rows, strict=True)
            )
            return len({*told})

        while left and apart(chosen) < apart([*chosen, *left]):
            best = max(left, key=lambda key: apart([*chosen, key]))
            chosen.append(best)
            left.remove(best)
        return {*chosen}

    @cached_property
    def _short(self) -> dict[str, str]:
        """By key, its last word, or more of it where another key ends alike."""
        last = [key.rpartition(".")[2] for key in self.keys]
        return {
            key: word if last.count(word) == 1 else key
            for key, word in zip(self.keys, last, strict=True)
        }

    @cached_property
    def _telling(self) -> dict[str, list[str]]:
        """For the data of each name, the settings in which the runs' data differ."""
        named: dict[str, list[RunSummary]] = {}
        for run in (run for row in self.rows for run in row.runs):
            named.setdefault(as_text(run.value("data")), []).append(run)
        telling = {}
        for name, runs in named.items():
            values: dict[str, set[str]] = {}
            for run in runs:
                for key, value in run.data_settings.items():
                    values.setdefault(key, set()).add(as_text(value))
            different = {key for key, texts in values.items() if len(texts) > 1}
            telling[name] = sorted(different - untelling(runs))
        return telling


def render_markdown(comparison: Comparison) -> str:
    """Return the table and its notes as Markdown.

    >>> from flowtrain.comparison.compare import compare
    >>> from flowtrain.comparison.summary import find_runs
    >>> print(render_markdown(compare(find_runs([run_folder]))), end="")
    | model | data | kl/test | nll/test | runs | parameters | seconds |
    | --- | --- | --: | --: | --: | --: | --: |
    | realnvp | pinwheel | 0.9931 | 3.6907 | 1 | 68 | 0.025 |
    """
    left, cells = len(comparison.keys), comparison.cells(lambda text: f"**{text}**")
    rows = [
        [for_markdown(name) for name in comparison.columns],
        ["---"] * left + ["--:"] * (len(comparison.columns) - left),
        *([*map(for_markdown, row[:left]), *row[left:]] for row in cells),
    ]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    if notes := [*comparison.notes, *comparison.details]:
        lines += ["", *(f"- {for_markdown(note)}" for note in notes)]
    return "\n".join(lines) + "\n"


def render_csv(comparison: Comparison) -> str:
    """Return the table as CSV; each metric's standard error is a column beside its mean.

    >>> from flowtrain.comparison.compare import compare
    >>> from flowtrain.comparison.summary import find_runs
    >>> print(render_csv(compare(find_runs([run_folder]), metrics=["kl/test"])), end="")
    model,data,kl/test,kl/test standard error,runs,parameters,seconds
    realnvp,pinwheel,0.9930552800165707,,1,68,0.025
    """
    metrics = [name for tag in comparison.metrics for name in (tag, f"{tag} standard error")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*comparison.keys, *metrics, "runs", "parameters", "seconds"])
    for row in comparison.rows:
        numbers = [number for tag in comparison.metrics for number in row.mean(tag)]
        written = ["" if math.isnan(number) else number for number in numbers]
        recorded = [as_text(row.recorded(key)) for key in ("parameters", "seconds")]
        writer.writerow([*row.values, *written, len(row.runs), *recorded])
    return text.getvalue()


def as_text(value: Any) -> str:
    """Return what a run has for a key as a cell of the table.

    >>> as_text("moons"), as_text(0.5), as_text([1, 2]), as_text(None)
    ('moons', '0.5', '[1, 2]', '-')
    """
    if value is None:
        return ABSENT
    if isinstance(value, float):
        return f"{value:.12g}"
    return value if isinstance(value, str) else json.dumps(value)


def _figure(mean: float, error: float) -> str:
    if math.isnan(mean):
        return ABSENT
    return _number(mean) + ("" if math.isnan(error) else f" ± {_number(error)}")


def _number(value: float) -> str:
    size = abs(value)
    if 0 < size < 5e-5:  # four decimals would be zeros
        return f"{value:.1e}"
    return f"{value:.4f}" if size < 1e4 else f"{value:.1f}" if size < 1e7 else f"{value:.4g}"
