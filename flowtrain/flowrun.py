"""The command `flowrun`: evaluate, sample, score, compare and animate runs from their folders.

Nothing heavy is imported here: help and a mistyped option stay fast.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from flowtrain import __version__
from flowtrain.errors import UserError


def main() -> None:
    """Run the command line. Exits 0 only for success, and tells a user's mistake in one line."""
    logging.basicConfig(format="flowrun: warning: %(message)s", level=logging.WARNING)
    # As after Ctrl-C, a file that is half written is removed on the way out.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(execute(sys.argv[1:]))


def execute(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    from flowtrain.commands import COMMANDS

    try:
        COMMANDS[options.command](options)
        sys.stdout.flush()
    except UserError as error:
        sys.stderr.write(f"flowrun: {' '.join(str(error).splitlines())}\n")
        return 1
    except OSError as error:  # the disk or the network, no defect
        if error.filename is None:  # it was standard output: what is left in its buffer is lost
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # the reader, `head` say, has seen enough
            where = error.filename or "standard output"
            sys.stderr.write(f"flowrun: {where}: {error.strerror or error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("flowrun: interrupted\n")
        return 128 + signal.SIGINT
    return 0


# --- the options --------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every command; `command` of its result is the chosen one's name."""
    parser = argparse.ArgumentParser(
        prog="flowrun",
        description="Use trained flows: everything comes from the folder of a run.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"flowrun {__version__}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, summary, declare in (
        ("evaluate", "measure a run again, or its NLL on points of your own", _evaluate_options),
        ("sample", "draw points from a run's flow into a file", _sample_options),
        ("score", "give each row of a file its log-density", _score_options),
        ("compare", "one table, and one picture, over many runs", _compare_options),
        ("animate", "write a continuous flow's way from base to data", _animate_options),
    ):
        about = f"{summary[0].upper()}{summary[1:]}."
        command = commands.add_parser(name, help=summary, description=about, allow_abbrev=False)
        command.set_defaults(command=name)
        declare(command)
    return parser


def _run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN", type=Path, help="the folder of a run")
    command.add_argument(
        "--checkpoint", choices=("best", "last"), default="best",
        help="the weights: best by validation NLL (default), or last",
    )  # fmt: skip
    command.add_argument("--device", default="auto", help="auto (default), cpu, mps, cuda, cuda:1")
    command.add_argument(
        "--batch-size", metavar="ROWS", type=int,
        help="rows at a time; bounds the memory (default: the run's evaluation.batch_size)",
    )  # fmt: skip


def _columns_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--columns", metavar="NAMES", type=_listed,
        help="those of FILE to use, by name or by position from 0: x,y or 0,2 "
        "(default: those that the run chose, or all)",
    )  # fmt: skip
    command.add_argument(
        "--header", choices=("auto", "true", "false"), default="auto",
        help="whether the first line of FILE holds names (default: auto)",
    )  # fmt: skip


def _evaluate_options(command: argparse.ArgumentParser) -> None:
    _run_options(command)
    solver = command.add_argument_group(
        "solver of a continuous flow", "what is not given stays as in the run's evaluation.solver"
    )
    solver.add_argument("--solver", metavar="METHOD", help="dopri5, dopri8, rk4, ...")
    solver.add_argument("--rtol", type=float, help="relative tolerance of an adaptive method")
    solver.add_argument("--atol", type=float, help="absolute tolerance, in whitened coordinates")
    solver.add_argument("--step-size", type=float, help="of a fixed-step method, within [0, 1]")
    solver.add_argument("--dtype", choices=("float32", "float64"), help="while solving")
    command.add_argument(
        "--points", metavar="FILE", type=Path,
        help="measure the NLL of these points instead: .csv, .tsv, .npy, .npz or .parquet",
    )  # fmt: skip
    _columns_option(command)
    command.add_argument("--json", metavar="FILE", help="write the figures; - is standard output")


def _sample_options(command: argparse.ArgumentParser) -> None:
    _run_options(command)
    command.add_argument("-n", type=int, required=True, help="number of points")
    command.add_argument(
        "-o", "--output", metavar="FILE", required=True,
        help=".npy, .csv, .tsv, .npz or .parquet; - is CSV on standard output",
    )  # fmt: skip
    command.add_argument("--seed", type=int, default=0, help="(default: 0)")


def _score_options(command: argparse.ArgumentParser) -> None:
    _run_options(command)
    command.add_argument(
        "file", metavar="FILE", type=Path, help=".csv, .tsv, .npy, .npz or .parquet"
    )
    command.add_argument(
        "-o", "--output", metavar="FILE", default="-",
        help="as for sample (default: CSV on standard output)",
    )  # fmt: skip
    _columns_option(command)
    command.add_argument(
        "--label", metavar="COLUMN", type=_column,
        help="of FILE: 1 for anomalies, 0 for the others; tells the AUROC of -log_prob",
    )  # fmt: skip
    command.add_argument(
        "--threshold-quantile", metavar="Q", type=float,
        help="add a column `anomaly`: 1 below this quantile of the run's validation points",
    )  # fmt: skip


def _compare_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "folders",
        metavar="RUN_OR_SWEEP",
        nargs="+",
        type=Path,
        help="folders with runs at any depth",
    )
    command.add_argument(
        "--group-by", metavar="KEYS", type=_names,
        help="what makes a row, keys of the config: model,data,optimizer.lr (default: model,data "
        "and what else their runs differ in, but for the seed)",
    )  # fmt: skip
    command.add_argument(
        "--metric", metavar="TAGS", type=_names,
        help="columns (default: kl/test,nll/test, as far as known)",
    )  # fmt: skip
    command.add_argument("--sort", metavar="COLUMN", help="(default: data, then the metrics)")
    command.add_argument("-o", "--output", metavar="FILE", type=Path, help="table: .csv or .md")
    command.add_argument("--figure", metavar="FILE", type=Path, help="picture: .png")


def _animate_options(command: argparse.ArgumentParser) -> None:
    _run_options(command)
    command.add_argument(
        "-o", "--output", metavar="FILE", type=Path,
        help=".gif or .mp4 (default: figures/flow.gif in the run's folder)",
    )  # fmt: skip
    command.add_argument("--frames", type=int, default=31, help="from base to data (default: 31)")
    command.add_argument("--points", type=int, default=2000, help="on their way (default: 2000)")
    command.add_argument("--seed", type=int, default=0, help="of the points (default: 0)")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _column(text: str) -> str | int:
    return int(text) if text.isdecimal() else text


def _listed(text: str) -> list[str | int]:
    return [_column(name) for name in _names(text)]
