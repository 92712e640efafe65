"""Points of a user's own under the flow of a run, and what they are conditional on."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from torch import Tensor

from flowtrain.batching import in_batches
from flowtrain.data.read import Columns, MissingError, NoColumnError, Table, read_table
from flowtrain.data.source import unnamed
from flowtrain.data.splits import Split
from flowtrain.densities.density import Density
from flowtrain.errors import UserError
from flowtrain.runs.load import SavedRun
from flowtrain.text import listed

log = logging.getLogger("flowtrain")


def read_points(
    run: SavedRun,
    path: Path,
    *,
    columns: Sequence[str | int] | None,
    header: Literal["auto"] | bool,
    missing: Literal["refuse", "drop"],
    label: str | int | None = None,
) -> Table:
    """Read points that have the dimension of a run's flow, and its conditions beside them.

    Of a run of p(x | c) the file has a column for each condition, unless the run is at one.

    Columns are those of the run by their names, in its order. A file without names, or of a run
    without, is taken as it stands.

    Args:
        run: that is asked about them.
        path: of the file.
        columns: by name or position, in the run's order; None finds them by the run's names.
        header, missing: as `read_table` has them.
        label: the column of labels.

    Raises:
        UserError: the file cannot be read, has other columns than the run, or lacks a condition.
    """
    by_name = columns is None or {*columns} == {*run.columns}
    chosen = partial(_columns_of, run, path) if by_name else columns
    given = () if run.condition is None or run.context is not None else run.condition.names
    try:
        table = read_table(
            path, columns=chosen, header=header, label=label, condition=given, missing=missing
        )
    except NoColumnError as error:
        if error.column not in given:
            raise
        raise UserError(f"{error}; it is a condition: name the column so, or say --given") from None
    except MissingError as error:
        raise UserError(f"{error}; --missing drop leaves such rows out") from None
    if table.left_out:
        log.warning("%s: %s", path, table.left_out)
    found = len(table.columns)
    if found != run.flow.dim:
        names = ", ".join(table.columns[:10]) + ", ..." * (found > 10)
        raise UserError(
            f"{run.folder} models {run.flow.dim} columns, {path} has {found}: {names}; "
            "choose with --columns"
        )
    return table


def _columns_of(run: SavedRun, path: Path, names: list[str]) -> Columns:
    """Return which of the columns of a file a run models, by the run's names; None for all of them.

    Raises:
        UserError: run and file both have names, and the file lacks some of the run's.
    """
    own = list(run.columns)
    if run.condition is not None or {*own} <= {*names} != {*unnamed(len(names))}:
        return own
    if names == unnamed(len(names)):
        chosen = getattr(run.config.data, "columns", None) or ()
        return chosen if chosen and all(isinstance(each, int) for each in chosen) else None
    if own == unnamed(len(own)):
        return None
    missing = listed([name for name in own if name not in names])
    raise UserError(
        f"{path}: no column {missing}; {run.folder} models {listed(own)}: name the columns to "
        "take, in this order, with --columns"
    )


def as_split(run: SavedRun, table: Table, path: Path) -> Split:
    """Return a user's points as those of a run: on its device, in its types, with their context.

    Args:
        run: that is asked about them.
        table: as `read_points` has read it.
        path: of its file, for messages.

    Raises:
        UserError: a condition is unknown or missing, with its row.
    """
    flow, context = run.flow, None
    if table.given:
        assert run.condition is not None
        try:
            context = run.condition.encode(table.given).to(flow.device, flow.dtype)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        for line in run.condition.beyond(table.given):
            log.warning("%s: %s", path, line)
    x = table.values.to(flow.device, flow.points_dtype)
    density = run.law if run.context is None else run.density
    if isinstance(density, Density) and not density.normalized:
        density = None  # its points have no KL
    return Split(x, density, columns=table.columns, context=context, condition=run.condition)


def log_likelihood(run: SavedRun, points: Split, *, batch_size: int) -> Tensor:
    """Return log q of points in nats, (n,), in the type of the points, on the CPU."""
    return in_batches(run.flow.log_prob, points.x, batch_size, points.context).cpu()
