"""What every kind of file is to a reader: columns with names, and a way to take some of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What to do with a column that holds no numbers, and with a cell that holds nothing.
LEAVE_OUT = "choose the other columns, or take it as a condition"
MISSING = "the value is missing; fill it or drop the row"
# The numbers asked for, (n, k), nan where one is missing, the others as they stand there, (n,)
# each, and where each row lies.
Read = tuple[NDArray[np.float64], list[NDArray[Any]], Sequence[int]]


@dataclass(frozen=True)
class Source:
    """An open file.

    Args:
        names: of all its columns.
        cells: gives all columns as they stand there; it or `read` can be asked once.
        read: takes the columns asked for, k positions of numbers and others of anything; returns
            a `Read`.
        unit: what counts the rows there.

    >>> from flowtrain.data.arrays import open_npy
    >>> np.save(tmp_path / "points.npy", np.array([[1.5, 2.0], [3.0, 4.0]]))
    >>> source = open_npy(tmp_path / "points.npy", "auto")
    >>> source.names, source.unit
    (['x0', 'x1'], 'row (from 0)')
    >>> values, _, rows = source.read([1], [])
    >>> values.tolist(), list(rows)
    ([[2.0], [4.0]], [0, 1])
    """

    names: list[str]
    cells: Callable[[], list[Any]]
    read: Callable[[list[int], list[int]], Read]
    unit: str


def not_finite(value: float) -> str:
    """Say why a value is refused that is no finite number.

    >>> not_finite(math.inf)
    'inf is not finite; mend or drop the row'
    """
    return MISSING if math.isnan(value) else f"{value} is not finite; mend or drop the row"


def in_more_rows(more: int) -> str:
    """Say in how many more rows there is what one row is refused for.

    >>> in_more_rows(0), in_more_rows(2)
    ('', '; so is one in 2 more rows')
    """
    return f"; so is one in {more:,} more row{'s' * (more > 1)}" if more else ""


def unnamed(number: int) -> list[str]:
    """Return what columns without names are called.

    >>> unnamed(2)
    ['x0', 'x1']
    """
    return [f"x{position}" for position in range(number)]
