"""`flowrun sample`: points from the flow of a run, into a file."""

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flowtrain.cli import options as shared
from flowtrain.errors import UserError
from flowtrain.progress import doing, part

if TYPE_CHECKING:
    from torch import Generator, Tensor, dtype

    from flowtrain.flows.flow import Flow
    from flowtrain.runs.load import SavedRun

SUMMARY = "draw points from a run's flow into a file"


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    shared.add_run_options(command)
    shared.add_given_option(command)
    command.add_argument("-n", type=shared.at_least(1), required=True, help="number of points")
    command.add_argument(
        "-o", "--output", metavar="FILE", required=True,
        help=".npy, .csv, .tsv, .npz or .parquet; - is CSV on standard output",
    )  # fmt: skip
    command.add_argument(
        "--log-prob",
        action="store_true",
        help="add a column log_prob: log q of each point, in nats",
    )
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
        saved, batch_size = shared.open_chosen(options, mixture=True)
        columns = [*saved.columns, *(["log_prob"] if options.log_prob else [])]
        if path is not None:
            refuse_beyond_disk(path, options.n, len(columns), saved.flow.points_dtype)
        draw = with_log_prob if options.log_prob else points
        generator = shared.seeded(options)

        def blocks() -> Iterator["Tensor"]:
            for start in range(0, options.n, batch_size):
                rows = min(batch_size, options.n - start)
                with part(start / options.n, (start + rows) / options.n):
                    block = draw(saved.flow, rows, generator).cpu()
                yield block

        with doing(f"sampling {options.n:,} points"):
            write_rows(path, columns, blocks(), rows=options.n, beside=given(saved))
    say(f"wrote {options.n:,} points, {','.join(columns)}, to {path or 'standard output'}")
    say(f"they are of {shared.about(saved, options)}, seed {options.seed}")


def refuse_beyond_disk(path: Path, n: int, columns: int, dtype: "dtype") -> None:
    """Refuse points that the disk has no room for, before they are drawn.

    Raises:
        UserError: says how much they take, and how much there is.
    """
    from flowtrain.config.memory import in_words
    from flowtrain.data.write import expected_bytes

    folder = next(each for each in path.absolute().parents if each.exists())
    free = shutil.disk_usage(folder).free
    size = expected_bytes(path, columns=columns, rows=n, dtype=dtype)
    if size > free:
        raise UserError(
            f"{path}: {n:,} points take about {in_words(size)}; its disk has {in_words(free)} free"
        )


def given(saved: "SavedRun") -> dict[str, str | float]:
    """Return the condition that points are drawn at, by name, which stands beside them."""
    if saved.condition is None or saved.context is None:
        return {}
    return {name: v[0] for name, v in saved.condition.decode(saved.context[None]).items()}


def points(flow: "Flow", n: int, generator: "Generator") -> "Tensor":
    """Draw points, (n, d)."""
    return flow.sample(n, generator)


def with_log_prob(flow: "Flow", n: int, generator: "Generator") -> "Tensor":
    """Draw points and, as a last column, their log q, (n, d + 1)."""
    import torch

    x, log_q = flow.sample_with_log_prob(n, generator)
    return torch.cat([x, log_q[:, None]], 1)
