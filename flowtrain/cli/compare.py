"""`flowrun compare`: one table, and one picture, over many runs; a sweep ends with them, too."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flowtrain.cli import options as shared
from flowtrain.errors import UserError
from flowtrain.progress import doing

if TYPE_CHECKING:
    from flowtrain.comparison.table import Comparison

SUMMARY = "one table, and one picture, over many runs"


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    command.add_argument(
        "folders",
        metavar="RUN_OR_SWEEP",
        nargs="+",
        type=Path,
        help="folders with runs at any depth",
    )
    command.add_argument(
        "--group-by", metavar="KEYS", type=shared.names,
        help="what makes a row, keys of the config: model,data,optimizer.lr (default: model,data "
        "and what else their runs differ in, but for the seed)",
    )  # fmt: skip
    command.add_argument(
        "--metric", metavar="TAGS", type=shared.names,
        help="columns (default: kl/test,nll/test, as far as known; kl_reverse/test, elbo/test and "
        "ess/test where runs are judged by them)",
    )  # fmt: skip
    command.add_argument("--sort", metavar="COLUMN", help="(default: data, then the metrics)")
    command.add_argument("-o", "--output", metavar="FILE", type=Path, help="table: .csv or .md")
    command.add_argument("--figure", metavar="FILE", type=Path, help="picture: .png, .pdf or .svg")


def run(options: argparse.Namespace) -> None:
    """Print a table over many runs, and write table and picture."""
    from flowtrain.cli.console import say, working
    from flowtrain.files import check_output

    pictures = (".png", ".pdf", ".svg")
    for path, suffixes in ((options.output, (".csv", ".md")), (options.figure, pictures)):
        if path is not None:
            check_output(path, suffixes)
    with working(), doing("reading the runs"):
        from flowtrain.comparison.compare import compare
        from flowtrain.comparison.summary import find_runs
        from flowtrain.comparison.write import write

        comparison = compare(
            find_runs(options.folders),
            group_by=options.group_by,
            metrics=options.metric,
            sort=options.sort,
        )
    print_comparison(comparison)
    for path in (options.output, options.figure):
        if path is not None:
            with working(), doing(f"writing {path}"):
                write(comparison, path)
            say(f"wrote {path}")


def print_comparison(comparison: "Comparison") -> None:
    """Print a comparison's table, in a narrow terminal its rows one by one, and its notes."""
    from rich.markup import escape

    from flowtrain.cli.console import fits, print_stacked, print_table
    from flowtrain.text import one_line

    left, columns = len(comparison.keys), comparison.columns
    found = comparison.cells(lambda text: f"[bold]{text}[/bold]")
    rows = [[escape(one_line(cell)) for cell in row[:left]] + row[left:] for row in found]
    print_as = print_table if fits(columns, rows) else print_stacked
    print_as(columns, rows, left=left)
    for note in comparison.notes:
        print(one_line(note))


def compare_sweep(folder: Path) -> None:
    """Print a table over all jobs of a sweep, finished or not; leave it and a picture there."""
    if not any(folder.glob("*/result.json")):
        return
    from flowtrain.cli.messages import explain
    from flowtrain.comparison.compare import compare
    from flowtrain.comparison.summary import find_runs
    from flowtrain.comparison.write import write_comparison
    from flowtrain.config.logger import TensorBoard

    try:
        runs = find_runs([folder])
        if not any(run.status == "completed" for run in runs):
            return  # each job has said why
        comparison = compare(runs)
        print_comparison(comparison)
        for path in write_comparison(comparison, folder):
            print(path)
        if any(run.config.get("logger") == "tensorboard" for run in runs):
            for line in TensorBoard(name="tensorboard").view(folder):
                print(line)
    except UserError as error:  # the runs are there: a table that is not is no reason to fail
        sys.stderr.write(f"flowtrain: no comparison of the sweep: {explain(error)}\n")
