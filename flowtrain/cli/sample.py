"""`flowrun sample`: points from the flow of a run, into a file."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flowtrain.cli import options as shared
from flowtrain.progress import doing, part

if TYPE_CHECKING:
    import torch

SUMMARY = "draw points from a run's flow into a file"


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    shared.add_run_options(command)
    command.add_argument("-n", type=shared.at_least(1), required=True, help="number of points")
    command.add_argument(
        "-o", "--output", metavar="FILE", required=True,
        help=".npy, .csv, .tsv, .npz or .parquet; - is CSV on standard output",
    )  # fmt: skip
    shared.add_seed_option(command)


def run(options: argparse.Namespace) -> None:
    """Draw points into a file or, as CSV, onto standard output, a batch at a time."""
    from flowtrain.cli.console import say, working
    from flowtrain.files import check_output

    path = None if options.output == "-" else Path(options.output)
    with working(quiet=path is None and sys.stdout.isatty()):
        with doing("loading torch"):
            from flowtrain.data.write import WRITERS, write_rows
        if path is not None:
            check_output(path, WRITERS)
        saved, batch_size = shared.open_chosen(options)
        generator = shared.seeded(options)

        def blocks() -> Iterator["torch.Tensor"]:
            for start in range(0, options.n, batch_size):
                rows = min(batch_size, options.n - start)
                with part(start / options.n, (start + rows) / options.n):
                    block = saved.flow.sample(rows, generator).cpu()
                yield block

        with doing(f"sampling {options.n:,} points"):
            write_rows(path, saved.columns, blocks(), rows=options.n)
    columns = ",".join(saved.columns)
    say(f"wrote {options.n:,} points, {columns}, to {path or 'standard output'}")
    say(f"they are of {shared.about(saved, options)}, seed {options.seed}")
