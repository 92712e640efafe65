"""`flowrun sample`: points from the flow of a run, into a file."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flowtrain.cli import options as shared

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
    from flowtrain.cli.console import with_bar
    from flowtrain.data.write import WRITERS, write_rows
    from flowtrain.files import check_output

    path = None if options.output == "-" else Path(options.output)
    if path is not None:
        check_output(path, WRITERS)
    saved, batch_size = shared.open_chosen(options)
    generator = shared.seeded(options)

    def blocks() -> Iterator["torch.Tensor"]:
        for start in range(0, options.n, batch_size):
            yield saved.flow.sample(min(batch_size, options.n - start), generator).cpu()

    write_rows(path, saved.columns, with_bar(blocks(), options.n, path), rows=options.n)
