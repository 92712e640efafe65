"""`flowrun score`: the log-density of each row of a file, and what it says of anomalies."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flowtrain.cli import options as shared
from flowtrain.errors import UserError
from flowtrain.progress import doing

if TYPE_CHECKING:
    from torch import Tensor

    from flowtrain.runs.load import SavedRun

SUMMARY = "give each row of a file its log-density, beside the columns it has"


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    shared.add_run_options(command)
    shared.add_given_option(command)
    command.add_argument(
        "file", metavar="FILE", type=Path, help=".csv, .tsv, .npy, .npz or .parquet"
    )
    command.add_argument(
        "-o", "--output", metavar="FILE", default="-",
        help="as for sample (default: CSV on standard output)",
    )  # fmt: skip
    shared.add_file_options(command)
    command.add_argument(
        "--label", metavar="COLUMN", type=shared.column,
        help="of FILE: 1 for anomalies, 0 for the others; reports the AUROC of -log_prob",
    )  # fmt: skip
    command.add_argument(
        "--threshold-quantile", metavar="Q", type=shared.quantile,
        help="add a column `anomaly`: 1 below this quantile of the run's validation points",
    )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Write each row of a file with its log-density, and report how well it finds anomalies."""
    from flowtrain.cli.console import say, working
    from flowtrain.files import check_output

    path = None if options.output == "-" else Path(options.output)
    with working():
        with doing("loading torch"):
            from flowtrain.data.write import WRITERS
        if path is not None:
            check_output(path, WRITERS)
            if path.exists() and path.samefile(options.file):
                raise UserError(f"{path} is the file that is read; write another")
        columns, lines = score(options, path)
    write(path, columns)
    for line in lines:
        say(line)


def score(
    options: argparse.Namespace, path: Path | None
) -> tuple[dict[str, Sequence[Any]], list[str]]:
    """Return the columns of a file and those that a flow adds, and what there is to say of them.

    Args:
        options: of the command.
        path: to be written; a format without names has room for the numbers that were scored alone.
    """
    from flowtrain.cli.points import as_split, log_likelihood, read_points
    from flowtrain.data.read import read_cells
    from flowtrain.data.write import MIXED

    saved, batch_size = shared.open_chosen(options, conditional=True, mixture=True)
    if options.threshold_quantile is not None:
        shared.refuse_without_points(saved, "that a quantile could be of")
    header = shared.header(options)
    table = read_points(
        saved, options.file, columns=options.columns, header=header, missing=options.missing,
        label=options.label,
    )  # fmt: skip
    labels = table.labels
    if labels is not None and bool(labels.all() or not labels.any()):
        raise UserError(
            f"{options.file}: column {options.label!r} is {int(labels[0])} in every row; "
            "an AUROC needs rows of both kinds"
        )
    points = as_split(saved, table, options.file)
    columns: dict[str, Sequence[Any]] = dict(zip(table.columns, table.values.T, strict=True))
    if path is None or path.suffix.lower() in MIXED:
        columns = read_cells(Path(options.file).expanduser(), header=header)
        if table.rows is not None:
            columns = {name: [each[row] for row in table.rows] for name, each in columns.items()}
    added = ["log_prob", *(["anomaly"] if options.threshold_quantile is not None else [])]
    for name in added:
        if name in columns:
            raise UserError(f"{options.file}: it has a column {name!r} already; rename it")
    with doing("scoring"):
        log_q = log_likelihood(saved, points, batch_size=batch_size)
    used = ",".join(table.columns[:10]) + ",..." * (len(table.columns) > 10)
    if table.given:
        used += f" given {','.join(table.given)}"
    lines = [
        f"scored {len(log_q):,} rows of {options.file} by {used}: {shared.about(saved, options)}"
    ]
    if saved.grid:
        lines.append(
            "log_prob is of the rows as written, in the middle of their cells: the run's NLL is of "
            "rows that were spread over them, as that of flowrun evaluate --points is"
        )
    columns["log_prob"] = cast("Sequence[Any]", log_q)
    if options.threshold_quantile is not None:
        quantile = options.threshold_quantile
        with doing("validation points"):
            limit, number = threshold(saved, quantile, batch_size=batch_size)
        anomalous = ~(log_q >= limit)  # so that NaN is an anomaly
        columns["anomaly"] = cast("Sequence[Any]", anomalous.int())
        lines.append(
            f"anomaly: log_prob below {limit:.6g} nats, the {quantile:g} quantile of {number:,} "
            f"validation points: {int(anomalous.sum()):,} of {len(log_q):,} rows"
        )
    if labels is not None:
        lines.append(
            f"AUROC of -log_prob: {auroc(log_q, labels):.4f}, "
            f"{int(labels.sum()):,} anomalies of {len(log_q):,} rows"
        )
    lines.append(f"wrote {path or 'standard output'}: the file's columns, {', '.join(added)}")
    return columns, lines


def write(path: Path | None, columns: dict[str, Sequence[Any]]) -> None:
    """Write columns in the format that the path's suffix names, or as CSV on standard output."""
    import torch

    from flowtrain.data.write import MIXED, write_columns, write_rows

    if path is None or path.suffix.lower() in MIXED:
        write_columns(path, columns)
        return
    numbers = [cast("torch.Tensor", each) for each in columns.values()]
    block = torch.stack([each.to(numbers[0].dtype) for each in numbers], -1)
    write_rows(path, list(columns), [block], rows=len(block))


def threshold(saved: "SavedRun", quantile: float, *, batch_size: int) -> tuple[float, int]:
    """Return the quantile of log q over the run's own validation points, and their number.

    They are taken as they were written, as the rows of the file are.
    """
    import numpy as np

    from flowtrain.cli.points import log_likelihood

    log_q = log_likelihood(saved, saved.as_written().splits.val, batch_size=batch_size)
    return float(np.quantile(log_q.double().numpy(), quantile, method="lower")), len(log_q)


def auroc(log_q: "Tensor", anomalous: "Tensor") -> float:
    """Return the probability that an anomaly has a lower log q than a normal point.

    Args:
        log_q: (n,).
        anomalous: (n,) booleans, both values among them.
    """
    import torch
    from sklearn.metrics import roc_auc_score

    # Only the order counts: ranks are finite where a log q is -inf, or NaN, the least likely.
    _, ranks = torch.unique(-log_q, return_inverse=True)
    return float(roc_auc_score(anomalous.numpy(), ranks.numpy()))
