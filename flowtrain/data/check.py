"""Rows of a table held to what a density needs: no column constant, no row that repeats others."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from flowtrain.errors import UserError
from flowtrain.text import listed

# Even a Gaussian fitted to n rows of d columns loses about d (d + 3) / 4n nats of held-out NLL to
# the noise in its own parameters; at 50 rows a column that is 0.025 nats for d = 2, 0.3 for d = 64.
ROWS_PER_COLUMN = 50
WIDEST = 500  # columns whose linear dependence is looked for


def refuse_constant(values: Tensor, columns: Sequence[str]) -> None:
    """Refuse rows (n, d) with a column that is constant: no density on R^d has such points.

    Raises:
        UserError: names the columns.

    >>> refuse_constant(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), ["a", "b"])
    Traceback (most recent call last):
        ...
    flowtrain.errors.UserError: data: constant, so without a density: 'b'; choose the other columns
    """
    constant = (values == values[0]).all(0)
    if constant.any():
        names = listed([name for name, same in zip(columns, constant, strict=True) if same])
        raise UserError(f"data: constant, so without a density: {names}; choose the other columns")


def repeated_rows(values: Tensor) -> int:
    """Return how many of the rows (n, d) repeat another.

    >>> repeated_rows(torch.tensor([[0.0, 1.0], [-0.0, 1.0], [3.0, 1.0]]))
    1
    """
    rows = np.ascontiguousarray(values.numpy() + 0.0)  # -0.0 and 0.0 differ in bytes
    row = np.dtype((np.void, rows.itemsize * rows.shape[1]))
    return len(rows) - len(np.unique(rows.view(row)))


def check_rows(values: Tensor, columns: Sequence[str]) -> list[str]:
    """Return a warning for each thing about rows (n, d) that makes a likelihood doubtful.

    >>> values = torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 1.0], [2.0, 3.0]]).double()
    >>> [warning.split(":")[0] for warning in check_rows(values, ["height", "width"])]
    ['1 of 4 rows (25 %) repeat another', '4 rows for 2 columns are few']
    """
    n, d = values.shape
    warnings = []
    if repeated := repeated_rows(values):
        warnings.append(
            f"{repeated} of {n} rows ({100 * repeated / n:.2g} %) repeat another: a flow can raise "
            "its likelihood without bound there, and train and test may share points"
        )
    if dependent := _dependent(values, columns):
        warnings.append(
            f"linear functions of one another: {listed(dependent)}: a flow can raise its "
            "likelihood without bound; leave one out"
        )
    if n < ROWS_PER_COLUMN * d:
        warnings.append(
            f"{n} rows for {d} columns are few: below {ROWS_PER_COLUMN} a column even a Gaussian "
            "overfits; watch nll/val, and stop early"
        )
    return warnings


def _dependent(values: Tensor, columns: Sequence[str]) -> list[str]:
    """Return the columns of rows (n, d) of which one follows exactly from the others."""
    n, d = values.shape
    if not 1 < d <= min(n - 1, WIDEST):
        return []
    scaled = values / values.abs().amax(0)  # no square overflows
    centred = scaled - scaled.mean(0)
    correlation = torch.corrcoef(centred.T)
    if not correlation.isfinite().all():
        return []
    least, vectors = torch.linalg.eigh(correlation)
    if least[0] > 1e-12:
        return []
    return [name for name, part in zip(columns, vectors[:, 0], strict=True) if abs(part) > 0.1]
