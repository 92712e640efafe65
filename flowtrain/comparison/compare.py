"""Finished runs side by side: which are compared, by what, and what is to be said of them."""

import difflib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flowtrain.comparison.summary import OWN, RunSummary, untelling
from flowtrain.comparison.table import Comparison, Row, as_text
from flowtrain.config.schema import Config
from flowtrain.config.section import Mark, marked
from flowtrain.errors import UserError
from flowtrain.evaluation.checks import of_several, start_kept, warnings_about
from flowtrain.evaluation.tags import JUDGING, better, telling
from flowtrain.runs.lock import owner

NAMED = 4  # as many absent runs have a line each on a terminal; more are counted
INCIDENTAL = frozenset(marked(Config, Mark.INCIDENTAL))


def compare(
    runs: Sequence[RunSummary],
    *,
    group_by: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    sort: str | None = None,
) -> Comparison:
    """Compare the completed ones of some runs, and name the others, or count them if they are many.

    Args:
        runs: as `find_runs` returns them.
        group_by: keys of the config; None is model, data, and what else the runs of one model on
            the same data differ in, but for the seed.
        metrics: tags; None is KL, where the density of the data is known, and NLL; for runs that
            are judged by others KL(model | data), or the ELBO and ESS.
        sort: a column; None is by data, then by the metrics in their order.

    Raises:
        UserError: there is no completed run, or none has such a key, metric or column.

    >>> from flowtrain.comparison.summary import find_runs
    >>> comparison = compare(find_runs([run_folder, ffjord_folder]), sort="kl/test")
    >>> [row.values for row in comparison.rows]
    [('realnvp', 'pinwheel'), ('ffjord', 'two_spirals')]
    """
    completed = [run for run in runs if run.status == "completed"]
    others = [run for run in runs if run.status != "completed"]
    if not completed:
        raise UserError(f"none of {len(runs)} runs is completed: {_counted(others)}")
    keys = tuple(_chosen_keys(completed, group_by))
    shown = tuple(_chosen_metrics(completed, metrics))
    grouped: dict[tuple[str, ...], list[RunSummary]] = {}
    for run in completed:
        grouped.setdefault(tuple(as_text(run.value(key)) for key in keys), []).append(run)
    rows = [Row(values, _once_a_seed(alike)) for values, alike in grouped.items()]
    notes = [*_notes_on_rows(keys, rows), *_notes_on_density(completed, metrics)]
    notes += _notes_on_repeats(completed, rows)
    notes += of_several(_warnings(completed))
    details = [_note_on_absent(run) for run in others]
    if len(others) <= NAMED:
        notes, details = [*notes, *details], []
    else:
        absent = f"{len(others)} runs are not in the table: {_counted(others)}"
        notes.append(f"{absent}; flowrun list shows them")
    comparison = Comparison(keys, shown, rows, notes, details)
    rows.sort(key=_order(comparison, sort))
    return comparison


def _chosen_keys(runs: list[RunSummary], asked: Sequence[str] | None) -> list[str]:
    known = sorted({*OWN, *(key for run in runs for key in run.config)})
    if asked is None:
        pairs: dict[tuple[Any, Any], list[RunSummary]] = {}
        for run in runs:
            pairs.setdefault((run.value("model"), run.value("data")), []).append(run)
        more = {key for alike in pairs.values() for key in _differing(alike)}
        for name in {run.value("data") for run in runs}:  # data of one name may differ, too
            named = [run for run in runs if run.value("data") == name]
            of_data = {key for run in named for key in run.data_settings}
            more |= of_data & {*_differing(named)}
        return ["model", "data", *sorted(more)]
    for key in asked:
        if key not in known:
            raise UserError(f"--group-by: no run has a key {key!r}; {_suggest(key, known)}")
    return list(asked)


def _chosen_metrics(runs: list[RunSummary], asked: Sequence[str] | None) -> list[str]:
    known = sorted({tag for run in runs for tag in run.metrics})
    if asked is None:
        judging = {
            name
            for run in runs
            for name in telling(run.metrics, objective=as_text(run.value("objective")))
        }
        found = [name for name in JUDGING if name in judging]
        found += ["ess"] if "elbo" in judging else []
        return [tag for name in found if (tag := f"{name}/test") in known]
    for tag in asked:
        if tag not in known:
            raise UserError(
                f"--metric: no completed run has {tag!r}; choose from {', '.join(known)}"
            )
    return list(asked)


def _differing(runs: list[RunSummary]) -> list[str]:
    """Return the keys in which the configs of runs differ, a group's own settings not repeated."""
    keys = sorted({key for run in runs for key in run.config} - INCIDENTAL - untelling(runs))
    different = [key for key in keys if len({as_text(run.config.get(key)) for run in runs}) > 1]
    named = {key for key in different if f"{key}.name" in different}
    return [key for key in different if not any(key.startswith(f"{group}.") for group in named)]


def _once_a_seed(runs: list[RunSummary]) -> list[RunSummary]:
    """Leave out runs that repeat another's settings and seed: they are no further sample."""
    incidental = (INCIDENTAL | untelling(runs)) - {"seed"}
    distinct: dict[Any, RunSummary] = {}
    for run in runs:
        settings = {key: as_text(v) for key, v in run.config.items() if key not in incidental}
        distinct.setdefault(frozenset(settings.items()) or run.folder, run)
    return list(distinct.values())


def _notes_on_repeats(runs: list[RunSummary], rows: list[Row]) -> Iterator[str]:
    counted = {run.folder for row in rows for run in row.runs}
    for run in runs:
        if run.folder not in counted:
            yield f"not counted: {run.folder}: it repeats the settings and the seed of another run"


def _notes_on_rows(keys: Sequence[str], rows: list[Row]) -> Iterator[str]:
    for row in rows:
        mixed = [key for key in _differing(row.runs) if key not in keys]
        if mixed:
            name = ", ".join(f"{key}={value}" for key, value in zip(keys, row.values, strict=True))
            yield f"{name}: a mean over runs that differ in {', '.join(mixed)}; see --group-by"


def _notes_on_density(runs: list[RunSummary], asked: Sequence[str] | None) -> Iterator[str]:
    known = {"kl/test", "nll/entropy"}
    without = [run for run in runs if not known & {*run.metrics}]
    names = ", ".join(sorted({as_text(run.value("data")) for run in without}))
    if without and (asked is None or "kl/test" in asked):
        by = "nll/test" if any("nll/test" in run.metrics for run in without) else "elbo/test"
        yield f"no KL on {names}, whose density is not known: compare by {by}"


def _warnings(runs: list[RunSummary]) -> Iterator[tuple[str, str]]:
    for run in runs:
        kept = start_kept(
            best_step=run.result.get("best_step"),
            step=run.result.get("step", 0),
            init_from=run.config.get("init_from"),
            whitening=as_text(run.value("model.whitening")),
        )
        base = as_text(run.value("model.base"))
        for line in warnings_about(run.metrics, untrained=kept == "untrained", base=base):
            yield str(run.folder), line


def _counted(runs: list[RunSummary]) -> str:
    counts = Counter(run.status for run in runs).items()
    return ", ".join(f"{number} {status}" for status, number in counts)


def _note_on_absent(run: RunSummary) -> str:
    error = str(run.result.get("error", "")).splitlines()
    hint = f": {error[0]}" if error else ""
    gone = run.status == "running" and owner(run.folder) is None
    status = "killed" if gone else run.status
    return f"not in the table: {run.folder}: {status}{hint}"


def _order(comparison: Comparison, sort: str | None) -> Callable[[Row], Any]:
    keys, metrics = comparison.keys, comparison.metrics
    if sort is not None and sort not in comparison.columns:
        raise UserError(f"--sort: no column {sort!r}; choose from {', '.join(comparison.columns)}")
    columns = [sort] if sort is not None else [*(["data"] if "data" in keys else []), *metrics]

    def cell(row: Row, column: str) -> tuple[bool, float, str]:
        """Order numbers by value, the best first, before texts; what is missing comes last."""
        if column in keys:
            text = row.values[keys.index(column)]
            try:
                return False, float(text), ""
            except ValueError:
                return True, 0.0, text
        if column in metrics:
            number, _ = row.mean(column)
            if better(column) == "higher":
                number = -number
        else:
            number = len(row.runs) if column == "runs" else row.recorded(column)
        return math.isnan(number), 0.0 if math.isnan(number) else number, ""

    return lambda row: [cell(row, column) for column in columns]


def _suggest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return (
        f"did you mean {' or '.join(close)}?"
        if close
        else "see the config in the result.json of a run"
    )
