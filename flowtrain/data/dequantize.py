"""Whole and rounded numbers spread over the cells they stand for: so they have a density."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowtrain.data.check import repeated_rows
from flowtrain.data.read import Table
from flowtrain.text import listed

DECIMALS = 6  # at most, of values that were rounded
TIED = 0.05  # of the rows at least repeat a value of a column that is taken for a grid
COPIED = 0.01  # of the rows at least repeat another where that is named
NEARLY = 0.95  # of the rows hold one value of a column that is named for it


def dequantize(table: Table, *, seed: int = 0) -> tuple[Table, list[str]]:
    """Add uniform noise of a cell's width to each column that lies on a grid; say what was done.

    A column lies on a grid where its values are whole multiples of a step, apart from an offset,
    and some are repeated. No density has such points: a flow can raise its likelihood on the grid
    without bound. With x + u, u uniform on a cell around 0, it has a density q whose NLL bounds
    what the values as written are worth: -log P(x) <= E[-log q(x + u)] - Σ log step (Theis et al.
    2016, arXiv 1511.01844). A value as written is the middle of its cell.

    Args:
        table: the rows.
        seed: of the noise. It belongs to the data: runs with other seeds have the same noise.

    Returns:
        the table, and notes for the log; none where nothing lies on a grid.

    >>> values = torch.tensor([[1.0, 0.31], [2.0, 0.17], [1.0, 0.94], [3.0, 0.52]]).double()
    >>> table, notes = dequantize(Table(values, columns=("count", "length")))
    >>> bool(((table.values - values)[:, 0].abs() <= 0.5).all()), notes[0][:32]
    (True, "dequantised: 'count' (step 1). N")
    """
    steps = [grid_step(column) for column in table.values.numpy().T]
    on_grid = np.flatnonzero(steps)
    spread_table, notes = table, []
    if len(on_grid):
        values = spread(table.values, steps, seed=seed)
        spread_table = replace(table, values=values, grid=tuple(steps))
        named = ", ".join(f"{table.columns[i]!r} (step {steps[i]:g})" for i in on_grid[:10])
        more = ", ..." * (len(on_grid) > 10)
        worth = sum(math.log(1 / steps[i]) for i in on_grid)
        notes.append(
            f"dequantised: {named}{more}. NLLs are of the rows with uniform noise of a step around "
            f"each value; add {worth:+.4f} nats for a bound on the NLL of the rows as written"
        )
        if copies := _copies(table.values):
            notes.append(copies)
    spread_columns = spread_table.values.numpy().T
    tied = [len(np.unique(column)) < (1 - TIED) * len(column) for column in spread_columns]
    if odd := [name for name, some in zip(table.columns, tied, strict=True) if some]:
        notes.append(
            f"values repeat, but lie on no grid: {listed(odd)}; a flow can raise its likelihood "
            "without bound there"
        )
    shares = [_largest_share(column) for column in table.values.numpy().T]
    if near := [name for name, share in zip(table.columns, shares, strict=True) if share > NEARLY]:
        notes.append(f"nearly constant, one value in over {NEARLY:.0%} of the rows: {listed(near)}")
    if numbers := [
        name
        for name, column in zip(table.columns, table.values.numpy().T, strict=True)
        if _counts_rows(column)
    ]:
        notes.append(
            f"rises by the same step from row to row, as the number of a row: {listed(numbers)}; "
            "choose the other columns if it is one"
        )
    return spread_table, notes


def spread(values: Tensor, grid: Sequence[float], *, seed: int = 0) -> Tensor:
    """Return values (n, d) in float64 with uniform noise of each column's step around them.

    Args:
        values: as written.
        grid: the step of each column, (d,); 0 leaves one as it is.
        seed: of the noise.

    >>> x = torch.ones(100, 2, dtype=torch.float64)
    >>> moved = spread(x, [0.5, 0.0]) - x
    >>> bool((moved[:, 0].abs() <= 0.25).all()), moved[:, 1].any().item()
    (True, False)
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(values.shape, generator=generator, dtype=torch.float64) - 0.5
    return values + torch.tensor(grid, dtype=torch.float64) * noise


def _copies(values: Tensor) -> str | None:
    """Return a note on rows (n, d) that repeat others more often than their columns make them."""
    n, d = values.shape
    if d == 1 or (repeated := repeated_rows(values)) <= COPIED * n:
        return None
    counts = [np.unique(column, return_counts=True)[1] for column in values.numpy().T]
    # Pairs of equal rows, were the columns independent: of few levels, rows are equal by chance.
    by_chance = n * n / 2 * math.prod(float(((count / n) ** 2).sum()) for count in counts)
    if repeated <= 10 * by_chance:
        return None
    return (
        f"{repeated} of {n} rows ({100 * repeated / n:.2g} %) repeat another: if they are copies, "
        "train and test share points, and figures of held-out rows are too good; keep one of each"
    )


def grid_step(values: NDArray[np.float64]) -> float:
    """Return the step of the grid that values (n,) lie on; 0 where there is none.

    >>> grid_step(np.array([5.1, 5.2, 5.1, 6.3, 6.3])), grid_step(np.array([0.0, 0.5, 0.7, 0.5]))
    (0.1, 0.1)
    >>> grid_step(np.array([0.123, 3.14159265358, 3.14159265358, 17.2]))
    0.0
    """
    levels = np.unique(values)
    # What differs by a few roundings is one level: 0.1 + 0.2 and 0.3. They are those of the usual
    # size: beside a single 1e30 all other values would be one.
    usual = np.median(np.abs(values[values != 0])) if values.any() else 0.0
    apart = np.diff(levels) > 16 * np.spacing(np.maximum(np.abs(levels[1:]), usual))
    levels = levels[np.append(True, apart)]
    if not 1 < len(levels) <= (1 - TIED) * len(values):
        return 0.0
    gap = float(np.diff(levels).min())
    if gap > 1e-9 * np.abs(levels).max() and _whole((levels - levels[0]) / gap):
        return float(f"{gap:.9g}")  # 0.1, not 0.09999999999999964
    for digits in range(DECIMALS + 1):
        # Levels keep apart: shares below 1e-4 are all next to 0, and on no grid of step 1.
        if gap * 10.0**digits > 0.5 and _whole(levels * 10.0**digits):
            return float(10.0**-digits)
    return 0.0


def _whole(values: NDArray[np.float64]) -> bool:
    return bool(np.abs(values - values.round()).max() < 1e-4)


def _counts_rows(values: NDArray[np.float64]) -> bool:
    steps = np.unique(np.diff(values))
    return len(values) > 2 and len(steps) == 1 and steps[0] != 0


def _largest_share(values: NDArray[np.float64]) -> float:
    return float(np.unique(values, return_counts=True)[1].max() / len(values))
