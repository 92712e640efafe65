"""Points of a user's own under the flow of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor

from flowtrain.batching import in_batches
from flowtrain.data.read import Table, read_table
from flowtrain.errors import UserError
from flowtrain.runs.load import SavedRun


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
    if columns is None:
        columns = getattr(run.config.data, "columns", None)
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
    """Return log q of points, (n, d) -> (n,) in nats, in the type of its points, on the CPU."""
    flow = run.flow
    log_q: Tensor = in_batches(
        lambda rows: flow.log_prob(rows.to(flow.device, flow.points_dtype)), values, batch_size
    )
    return log_q.cpu()
