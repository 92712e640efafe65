"""`flowrun score`: the log-density of each row of a file, and what it says of anomalies."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flowtrain.cli import options as shared
from flowtrain.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from flowtrain.runs.load import SavedRun

SUMMARY = "give each row of a file its log-density"


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    shared.add_run_options(command)
    command.add_argument(
        "file", metavar="FILE", type=Path, help=".csv, .tsv, .npy, .npz or .parquet"
    )
    command.add_argument(
        "-o", "--output", metavar="FILE", default="-",
        help="as for sample (default: CSV on standard output)",
    )  # fmt: skip
    shared.add_columns_options(command)
    command.add_argument(
        "--label", metavar="COLUMN", type=shared.column,
        help="of FILE: 1 for anomalies, 0 for the others; reports the AUROC of -log_prob",
    )  # fmt: skip
    command.add_argument(
        "--threshold-quantile", metavar="Q", type=shared.quantile,
        help="add a column `anomaly`: 1 below this quantile of the run's validation points",
    )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Write the log-density of each row of a file, and report how well it finds anomalies."""
    import torch

    from flowtrain.cli.points import log_likelihood, read_points
    from flowtrain.data.write import WRITERS, write_rows
    from flowtrain.files import check_output

    path = None if options.output == "-" else Path(options.output)
    if path is not None:
        check_output(path, WRITERS)
    saved, batch_size = shared.open_chosen(options)
    table = read_points(
        saved,
        options.file,
        columns=options.columns,
        header=shared.header(options),
        label=options.label,
    )
    labels = table.labels
    if labels is not None and bool(labels.all() or not labels.any()):
        raise UserError(
            f"{options.file}: column {options.label!r} is {int(labels[0])} in every row; "
            "an AUROC needs rows of both kinds"
        )
    log_q = log_likelihood(saved, table.values, batch_size=batch_size)
    columns = {"log_prob": log_q}
    lines = []
    if options.threshold_quantile is not None:
        quantile = options.threshold_quantile
        limit, number = threshold(saved, quantile, batch_size=batch_size)
        anomalous = ~(log_q >= limit)  # so that NaN is an anomaly
        columns["anomaly"] = anomalous.to(log_q)
        lines.append(
            f"anomaly: log_prob below {limit:.6g} nats, the {quantile:g} quantile of {number:,} "
            f"validation points: {int(anomalous.sum()):,} of {len(log_q):,} rows"
        )
    if labels is not None:
        lines.append(
            f"AUROC of -log_prob: {auroc(log_q, labels):.4f}, "
            f"{int(labels.sum()):,} anomalies of {len(log_q):,} rows"
        )
    write_rows(path, list(columns), [torch.stack([*columns.values()], -1)], rows=len(log_q))
    for line in lines:
        sys.stderr.write(f"flowrun: {line}\n")


def threshold(saved: "SavedRun", quantile: float, *, batch_size: int) -> tuple[float, int]:
    """Return the quantile of log q over the run's own validation points, and their number."""
    import numpy as np

    from flowtrain.cli.points import log_likelihood

    x = saved.splits.val.x
    log_q = log_likelihood(saved, x, batch_size=batch_size)
    return float(np.quantile(log_q.double().numpy(), quantile, method="lower")), len(x)


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
