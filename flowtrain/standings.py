"""A table over groups of runs: their means, which is best, and the table as text."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from flowtrain.records import RunRecord
from flowtrain.report import doubts

LOWER_IS_BETTER = {
    "nll", "kl", "kl_paired", "bits_per_dimension", "energy", "mmd", "sliced_w2",
    "inverse_error", "inverse_error_rms",
}  # fmt: skip
ABSENT = "-"  # in the place of what a run does not have


@dataclass(frozen=True)
class Group:
    """Completed runs, at least one, that agree in every key of the comparison.

    Attributes:
        values: of the keys, as text.
        runs: they differ in their seeds, if the keys are well chosen.
    """

    values: tuple[str, ...]
    runs: list[RunRecord]

    def mean(self, metric: str) -> tuple[float, float]:
        """Return a metric's mean over the runs that have it, and the mean's standard error.

        Without such a run both are NaN, and the error of a single one is.
        """
        found = [run.metrics[metric] for run in self.runs if metric in run.metrics]
        if len(found) < 2 or not all(map(math.isfinite, found)):
            return (fmean(found) if found else math.nan), math.nan
        return fmean(found), stdev(found) / len(found) ** 0.5

    def recorded(self, key: str) -> float:
        """Return the mean of a number that every result.json holds, parameters or seconds."""
        return fmean(run.result[key] for run in self.runs)


@dataclass(frozen=True)
class Comparison:
    """A table over groups of runs.

    Attributes:
        keys: what tells the groups apart.
        metrics: tags, a column each.
        groups: in the order of the table.
        notes: lines that belong below the table.
    """

    keys: tuple[str, ...]
    metrics: tuple[str, ...]
    groups: list[Group]
    notes: list[str]

    @property
    def columns(self) -> list[str]:
        """The columns' names."""
        return [*self.keys, *self.metrics, "runs", "parameters", "seconds"]

    def best(self, metric: str) -> set[int]:
        """Return the positions of the groups with the lowest mean among those on the same data.

        None where lower is not better, where there is nothing to compare with, and none that
        has a run whose KL cannot be true.
        """
        rivals: dict[str, list[tuple[float, int]]] = {}
        for position, group in enumerate(self.groups):
            mean, _ = group.mean(metric)
            if not math.isnan(mean):
                data = " ".join(sorted({self.data_set(run) for run in group.runs}))
                rivals.setdefault(data, []).append((mean, position))
        if metric.split("/")[0] not in LOWER_IS_BETTER:
            return set()
        true = [
            [each for each in those if not any(map(_too_good, self.groups[each[1]].runs))]
            for those in rivals.values()
            if len(those) > 1
        ]
        return {min(those)[1] for those in true if those}

    def cells(self, emphasise: Callable[[str], str]) -> Iterator[list[str]]:
        """Yield each row as text, the best figures emphasised."""
        best = {metric: self.best(metric) for metric in self.metrics}
        for position, group in enumerate(self.groups):
            figures = []
            for metric in self.metrics:
                text = _figure(*group.mean(metric))
                figures.append(emphasise(text) if position in best[metric] else text)
            parameters, seconds = group.recorded("parameters"), group.recorded("seconds")
            yield [
                *group.values,
                *figures,
                str(len(group.runs)),
                f"{parameters:,.0f}",
                f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.2g}",
            ]

    def markdown(self) -> str:
        """Return the table and its notes as Markdown."""
        numbers = len(self.columns) - len(self.keys)
        rows = [
            self.columns,
            ["---"] * len(self.keys) + ["--:"] * numbers,
            *self.cells(lambda text: f"**{text}**"),
        ]
        lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
        if self.notes:
            lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """Return the table as CSV; each metric's standard error is a column beside its mean."""
        figures = [name for metric in self.metrics for name in (metric, f"{metric} standard error")]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*self.keys, *figures, "runs", "parameters", "seconds"])
        for group in self.groups:
            numbers = [number for metric in self.metrics for number in group.mean(metric)]
            written = ["" if math.isnan(number) else number for number in numbers]
            recorded = [group.recorded(key) for key in ("parameters", "seconds")]
            writer.writerow([*group.values, *written, len(group.runs), *recorded])
        return text.getvalue()

    def data_set(self, run: RunRecord) -> str:
        """Name the data of a run, with the settings that tell it from other data of its name."""
        settings = [key for key in self.keys if key.startswith("data.")]
        named = [f"{key}={as_text(run.value(key))}" for key in settings]
        return " ".join([as_text(run.value("data")), *named])

    def label(self, group: Group) -> str:
        """Name a group by what tells it from others on the same data."""
        pairs = zip(self.keys, group.values, strict=True)
        named = [
            value if key == "model" else f"{key}={value}"
            for key, value in pairs
            if key.split(".")[0] != "data" and value != ABSENT
        ]
        return " ".join(named) or "runs"


def as_text(value: Any) -> str:
    """Return what a run has for a key as a cell of the table."""
    if value is None:
        return ABSENT
    if isinstance(value, float):
        return f"{value:.12g}"
    return value if isinstance(value, str) else json.dumps(value)


def _too_good(run: RunRecord) -> bool:
    """Say whether a run's KL is below zero by more than its error: then it is wrong, not good."""
    return any(
        doubts({tag: v for tag, v in run.metrics.items() if tag in ("kl/test", "kl_error/test")})
    )


def _figure(mean: float, error: float) -> str:
    if math.isnan(mean):
        return ABSENT
    number = ".4f" if abs(mean) < 1e4 else ".4g"
    return f"{mean:{number}}" + ("" if math.isnan(error) else f" ± {error:{number}}")
