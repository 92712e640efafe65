"""How likely a user's own points are under the flow of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from flowtrain.config import Table as TableConfig
from flowtrain.data.pools import Pool
from flowtrain.data.tables import Table, read_table
from flowtrain.errors import UserError
from flowtrain.evaluate import in_batches, likelihood
from flowtrain.runs import SavedRun


def read_points(
    run: SavedRun,
    path: Path,
    *,
    columns: Sequence[str | int] | None,
    header: Literal["auto"] | bool,
    label: str | int | None = None,
) -> Table:
    """Read points that have the dimension of a run's flow.

    Args:
        run: if it chose columns of a table, these are the default ones.
        path: of the file.
        columns: by name or position; None for the default ones, or for all.
        header: as `read_table` has it.
        label: the column of labels.

    Raises:
        UserError: the file cannot be read, or has another number of columns.
    """
    if columns is None and isinstance(run.config.data, TableConfig):
        columns = run.config.data.columns
    table = read_table(path, columns=columns, header=header, label=label)
    found = len(table.columns)
    if found != run.flow.dim:
        names = ", ".join(table.columns[:10]) + ", ..." * (found > 10)
        raise UserError(
            f"{run.folder} models {run.flow.dim} columns, {path} has {found}: {names}; "
            "choose with --columns"
        )
    return table


def log_likelihood(run: SavedRun, values: Tensor, *, batch_size: int) -> Tensor:
    """Return log q of points, (n, d) -> (n,) in nats, in the run's dtype, on the CPU."""
    log_q: Tensor = in_batches(
        lambda rows: run.flow.log_prob(rows.to(run.flow.like)), values, batch_size
    )
    return log_q.cpu()


def point_figures(run: SavedRun, values: Tensor, *, batch_size: int) -> dict[str, float]:
    """Return the NLL of points (n, d) in nats, and KL where the law is known, by tag.

    `kl/points` is the mean of log p - log q: it estimates KL(p|q) if the points follow the law.
    Errors are standard errors of the mean, for two points or more.
    """
    pool = Pool(values.to(run.flow.like), run.law())
    found = likelihood(run.flow, pool, batch_size=batch_size)
    several = len(values) > 1
    return {f"{k}/points": v for k, v in found.items() if several or not k.endswith("_error")}


def threshold(run: SavedRun, quantile: float, *, batch_size: int) -> tuple[float, int]:
    """Return the quantile of log q over the run's own validation points, and their number."""
    x = run.pools()["validation"].x
    log_q = log_likelihood(run, x, batch_size=batch_size)
    return float(np.quantile(log_q.double().numpy(), quantile, method="lower")), len(x)


def auroc(log_q: Tensor, anomalous: Tensor) -> float:
    """Return the probability that an anomaly has a lower log q than a normal point.

    Args:
        log_q: (n,).
        anomalous: (n,) booleans, both values among them.
    """
    from sklearn.metrics import roc_auc_score

    # Only the order counts: ranks are finite where a log q is -inf, or NaN, the least likely.
    _, ranks = torch.unique(-log_q, return_inverse=True)
    return float(roc_auc_score(anomalous.numpy(), ranks.numpy()))
