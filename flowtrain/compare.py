"""Finished runs side by side: a table over groups of them, and a picture of their curves."""

import difflib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtrain.errors import UserError
from flowtrain.outputs import writing
from flowtrain.records import OWN, RunRecord, find_runs
from flowtrain.report import doubts
from flowtrain.standings import Comparison, Group, as_text

if TYPE_CHECKING:
    from flowtrain.plots import Curves, Image

DEFAULT_METRICS = ("kl/test", "nll/test")
# Settings in which the runs of one group may differ: they do not change what is learned.
NO_DIFFERENCE = {
    "seed", "resume", "trainer.device", "trainer.threads", "trainer.log_every", "trainer.figures",
    "trainer.animation", "evaluation.batch_size",
}  # fmt: skip


def compare(
    folders: Iterable[Path],
    *,
    group_by: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    sort: str | None = None,
) -> Comparison:
    """Compare the completed runs in and below folders, and name the others.

    Args:
        folders: of runs or of sweeps.
        group_by: keys of the config; None is model, data, and what else the runs of one model on
            the same data differ in, but for the seed.
        metrics: tags; None is KL, where the law of the data is known, and NLL.
        sort: a column; None is by data, then by the metrics in their order.

    Raises:
        UserError: there is no completed run, or none has such a key, metric or column.
    """
    folders = list(folders)
    runs = find_runs(folders)
    completed = [run for run in runs if run.status == "completed"]
    others = [run for run in runs if run.status != "completed"]
    if not completed:
        counts = Counter(run.status for run in others).items()
        found = ", ".join(f"{number} {status}" for status, number in counts)
        raise UserError(f"no run below {', '.join(map(str, folders))} is completed: {found}")
    keys = tuple(_chosen_keys(completed, group_by))
    shown = tuple(_chosen_metrics(completed, metrics))
    grouped: dict[tuple[str, ...], list[RunRecord]] = {}
    for run in completed:
        grouped.setdefault(tuple(as_text(run.value(key)) for key in keys), []).append(run)
    groups = [Group(values, those) for values, those in grouped.items()]
    notes = [*_notes_on_groups(keys, groups), *_notes_on_law(completed, metrics)]
    notes += [f"{run.folder}: {line}" for run in completed for line in doubts(run.metrics)]
    notes += [_note_on_absent(run) for run in others]
    comparison = Comparison(keys, shown, groups, notes)
    groups.sort(key=_order(comparison, sort))
    return comparison


def write_comparison(folder: Path) -> list[Path]:
    """Write compare.csv, compare.md and compare.png over the runs below a sweep's folder into it.

    Returns:
        The files; none if no run is completed.

    Raises:
        UserError: there is no run, or a file cannot be written.
    """
    if not any(run.status == "completed" for run in find_runs([folder])):
        return []
    comparison = compare([folder])
    written = [folder / f"compare.{suffix}" for suffix in ("csv", "md", "png")]
    for path in written:
        write(comparison, path)
    return written


def write(comparison: Comparison, path: Path) -> None:
    """Write a comparison as .csv, .md or, its picture, .png; the file appears once whole.

    Raises:
        UserError: the file cannot be written.
    """
    with writing(path) as file:
        match path.suffix.lower():
            case ".csv":
                file.write(comparison.csv().encode())
            case ".md":
                file.write(comparison.markdown().encode())
            case ".png":
                import PIL.Image

                PIL.Image.fromarray(picture(comparison)).save(file, format="PNG")


def picture(comparison: Comparison) -> "Image":
    """Draw the curves of a comparison's runs, as pixels (height, width, 3)."""
    from flowtrain import plots

    curves = [
        _curves(run, comparison.label(group), comparison.data_set(run))
        for group in comparison.groups
        for run in group.runs
    ]
    return plots.pixels(plots.comparison_figure(curves))


def _chosen_keys(runs: list[RunRecord], asked: Sequence[str] | None) -> list[str]:
    known = sorted({*OWN, *(key for run in runs for key in run.config)})
    if asked is None:
        pairs: dict[tuple[Any, Any], list[RunRecord]] = {}
        for run in runs:
            pairs.setdefault((run.value("model"), run.value("data")), []).append(run)
        more = {key for those in pairs.values() for key in _differing(those)}
        return ["model", "data", *sorted(more)]
    for key in asked:
        if key not in known:
            raise UserError(f"--group-by: no run has a key {key!r}; {_suggest(key, known)}")
    return list(asked)


def _chosen_metrics(runs: list[RunRecord], asked: Sequence[str] | None) -> list[str]:
    known = sorted({tag for run in runs for tag in run.metrics})
    if asked is None:
        return [tag for tag in DEFAULT_METRICS if tag in known]
    for tag in asked:
        if tag not in known:
            raise UserError(
                f"--metric: no completed run has {tag!r}; choose from {', '.join(known)}"
            )
    return list(asked)


def _differing(runs: list[RunRecord]) -> list[str]:
    """Return the keys in which the configs of runs differ, a group's own settings not repeated."""
    keys = sorted({key for run in runs for key in run.config} - NO_DIFFERENCE)
    different = [key for key in keys if len({as_text(run.config.get(key)) for run in runs}) > 1]
    named = {key for key in different if f"{key}.name" in different}
    return [key for key in different if not any(key.startswith(f"{group}.") for group in named)]


def _notes_on_groups(keys: Sequence[str], groups: list[Group]) -> Iterator[str]:
    for group in groups:
        mixed = [key for key in _differing(group.runs) if key not in keys]
        if mixed:
            name = ", ".join(
                f"{key}={value}" for key, value in zip(keys, group.values, strict=True)
            )
            yield f"{name}: a mean over runs that differ in {', '.join(mixed)}; see --group-by"


def _notes_on_law(runs: list[RunRecord], asked: Sequence[str] | None) -> Iterator[str]:
    known = {"kl/test", "nll/entropy"}
    without = sorted({as_text(run.value("data")) for run in runs if not known & {*run.metrics}})
    if without and (asked is None or "kl/test" in asked):
        yield f"no KL on {', '.join(without)}, whose law is not known: compare by nll/test there"


def _note_on_absent(run: RunRecord) -> str:
    error = str(run.result.get("error", "")).splitlines()
    hint = f": {error[0]}" if error else ""
    hint = ", or killed" if run.status == "running" else hint
    return f"not in the table: {run.folder}: {run.status}{hint}"


def _order(comparison: Comparison, sort: str | None) -> Callable[[Group], Any]:
    keys, metrics = comparison.keys, comparison.metrics
    if sort is not None and sort not in comparison.columns:
        raise UserError(f"--sort: no column {sort!r}; choose from {', '.join(comparison.columns)}")
    columns = [sort] if sort is not None else [*(["data"] if "data" in keys else []), *metrics]

    def cell(group: Group, column: str) -> tuple[bool, float, str]:
        """Order numbers by value, before texts; what is missing comes last."""
        if column in keys:
            text = group.values[keys.index(column)]
            try:
                return False, float(text), ""
            except ValueError:
                return True, 0.0, text
        if column in metrics:
            number, _ = group.mean(column)
        else:
            number = len(group.runs) if column == "runs" else group.recorded(column)
        return math.isnan(number), 0.0 if math.isnan(number) else number, ""

    return lambda group: [cell(group, column) for column in columns]


def _curves(run: RunRecord, group: str, data: str) -> "Curves":
    from flowtrain import plots

    lines = [line for line in run.history() if line.get("nll/val") is not None]
    law_known = "kl/test" in run.metrics

    def column(tag: str) -> list[float]:
        return [math.nan if (value := line.get(tag)) is None else value for line in lines]

    return plots.Curves(
        group=group,
        data=data,
        steps=column("step"),
        seconds=column("seconds"),
        nll=column("nll/val"),
        kl=column("kl/val") if law_known else None,
        entropy=run.metrics.get("nll/entropy"),
        parameters=run.result["parameters"],
        final=run.metrics.get("kl/test" if law_known else "nll/test", math.nan),
    )


def _suggest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else "see .hydra/config.yaml of a run"
