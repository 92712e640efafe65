"""A comparison as files: a table, and a picture of the runs' curves."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from flowtrain.comparison.summary import RunSummary
from flowtrain.comparison.table import Comparison, as_text, render_csv, render_markdown
from flowtrain.evaluation.tags import JUDGING, is_evaluation
from flowtrain.files import writing
from flowtrain.text import for_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from flowtrain.comparison.curves import Curves


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write compare.csv, compare.md and compare.png into a folder, and return their paths.

    Raises:
        UserError: a file cannot be written.

    >>> from flowtrain.comparison.compare import compare
    >>> from flowtrain.comparison.summary import find_runs
    >>> written = write_comparison(compare(find_runs([run_folder])), tmp_path)
    >>> [path.name for path in written]
    ['compare.csv', 'compare.md', 'compare.png']
    """
    written = [folder / f"compare.{suffix}" for suffix in ("csv", "md", "png")]
    for path in written:
        write(comparison, path)
    return written


def write(comparison: Comparison, path: Path) -> None:
    """Write a comparison as .csv or .md, or its picture as .png, .pdf or .svg, whole or not at all.

    Raises:
        UserError: the file cannot be written.

    >>> from flowtrain.comparison.compare import compare
    >>> from flowtrain.comparison.summary import find_runs
    >>> write(compare(find_runs([run_folder])), tmp_path / "table.md")
    >>> (tmp_path / "table.md").read_text().splitlines()[0]
    '| model | data | kl/test | nll/test | runs | parameters | seconds |'
    """
    with writing(path) as file:
        match path.suffix.lower():
            case ".csv":
                file.write(render_csv(comparison).encode())
            case ".md":
                file.write(render_markdown(comparison).encode())
            case suffix:
                from flowtrain.evaluation.images import save_figure

                save_figure(picture(comparison), file, suffix, dpi=150)


def picture(comparison: Comparison) -> "Figure":
    """Draw the curves of a comparison's runs.

    >>> from flowtrain.comparison.compare import compare
    >>> from flowtrain.comparison.summary import find_runs
    >>> len(picture(compare(find_runs([run_folder, ffjord_folder]))).axes)  # of two data sets
    6
    """
    from flowtrain.comparison.curves import comparison_figure

    return comparison_figure(
        [
            _curves(run, comparison.label(row), comparison.data_set(run))
            for row in comparison.rows
            for run in row.runs
        ]
    )


def _curves(run: RunSummary, group: str, data: str) -> "Curves":
    from flowtrain.comparison.curves import Curves

    lines = [line for line in run.history() if is_evaluation(line)]
    logged = {tag for line in lines for tag in line}
    tags = {name: f"{name}/val" for name in JUDGING}
    if "nll_paired/val" in logged:
        tags["nll"] = "nll_paired/val"

    def column(tag: str) -> list[float]:
        return [math.nan if (value := line.get(tag)) is None else value for line in lines]

    errors = column("nll_error/val" if "nll_error/val" in logged else "elbo_error/val")
    return Curves(
        group=for_figure(group),
        model=for_figure(as_text(run.value("model"))),
        data=for_figure(data.replace("data.", "")),
        steps=column("step"),
        seconds=column("seconds"),
        found={name: column(tag) for name, tag in tags.items() if tag in logged},
        entropy=run.metrics.get("nll/entropy"),
        parameters=run.result["parameters"],
        final={name: run.metrics.get(f"{name}/test", math.nan) for name in JUDGING},
        error=next((error for error in reversed(errors) if math.isfinite(error)), 0.0),
    )
