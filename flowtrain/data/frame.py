"""Points in memory as a table: arrays, tensors and data frames, and the file a run keeps of them.

Data frames are known by their column names alone, so that pandas, polars and pyarrow need not be
installed.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from flowtrain.data.condition_column import as_numbers, refuse_missing
from flowtrain.data.read import Table, read_table
from flowtrain.data.source import not_finite
from flowtrain.errors import UserError
from flowtrain.files import writing
from flowtrain.text import listed


def as_table(x: Any, columns: Sequence[str | int] | None = None, context: Any = None) -> Table:
    """Return points as a table in float64.

    Args:
        x: rows of numbers: an array or a tensor (n, d) or (n,), or a data frame of pandas, polars
            or pyarrow. Integers and booleans become floats. Columns without names are x0, x1, ...
        columns: those to take, in this order, by name or by position from 0; None is all.
        context: what the rows are conditional on, as many: an array (n,) or (n, k), a data frame,
            a series, or columns by name; of numbers or text. Without names they are c0, c1, ...

    Raises:
        UserError: what is no finite number, with its row and column, or no rows; a condition is
            missing, or of another number of rows.

    >>> as_table(np.array([[1, 2], [3, 4]]), columns=["x1"]).values.tolist()
    [[2.0], [4.0]]
    >>> as_table(np.array([1.0, np.nan]))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    flowtrain.errors.UserError: x, row (from 0) 1, column 'x0': the value is missing; fill it ...
    """
    parts = dict(_parts(x))
    names = list(parts)
    chosen = names if columns is None else [_name(key, names) for key in columns]
    if not chosen:
        raise UserError(f"x: no column is chosen; it has {listed(names)}")
    if len({*chosen}) < len(chosen):
        raise UserError(f"x: a column is chosen twice: {listed(chosen)}")
    values = np.stack([_real(name, parts[name]) for name in chosen], axis=1)
    if not len(values):
        raise UserError("x has no rows")
    for row, column in np.argwhere(~np.isfinite(values))[:1]:
        where = f"x, row (from 0) {row}, column {chosen[column]!r}"
        raise UserError(f"{where}: {not_finite(values[row, column])}")
    given = {} if context is None else dict(_given(context, len(values)))
    if twice := [name for name in given if name in chosen]:
        raise UserError(f"{listed(twice)}: a name of both x and context; rename one")
    return Table(torch.from_numpy(values), tuple(chosen), given=given)


def save_points(path: Path, table: Table) -> None:
    """Write a table as an .npz, each column an array of its name; `read_table` reads it back.

    What the rows are conditional on are columns among them.

    Raises:
        UserError: the file cannot be written.

    >>> save_points(tmp_path / "points.npz", as_table(np.eye(2)))
    >>> read_table(tmp_path / "points.npz", columns=None, header="auto").columns
    ('x0', 'x1')
    """
    with writing(path) as file, ZipFile(file, "w") as archive:
        columns = dict(zip(table.columns, table.values.numpy().T, strict=True))
        columns |= table.given
        for name, values in columns.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(values), allow_pickle=False)


def holds(path: Path, table: Table) -> bool:
    """Return whether a file written by `save_points` holds the same table.

    >>> save_points(tmp_path / "points.npz", as_table(np.eye(2)))
    >>> holds(tmp_path / "points.npz", as_table(np.eye(2))), holds(
    ...     tmp_path / "points.npz", as_table(np.eye(3)))
    (True, False)
    """
    with ZipFile(path) as archive:
        names = [member.removesuffix(".npy") for member in archive.namelist()]
    if names != [*table.columns, *table.given]:
        return False
    kept = read_table(path, columns=None, header="auto", condition=[*table.given])
    same = all(np.array_equal(kept.given[name], table.given[name]) for name in table.given)
    return same and torch.equal(kept.values, table.values)


def _given(context: Any, rows: int) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the columns of a condition with their names, as numbers or text."""
    name = getattr(context, "name", None)  # a series of pandas or polars
    columns = {name: context} if isinstance(name, str) else context
    for column, values in _parts(columns, called="context"):
        if values.shape != (rows,):
            raise UserError(f"x has {rows:,} rows, context {column!r} has shape {values.shape}")
        refuse_missing(column, values)
        if values.dtype.kind not in "biuf":
            texts = values.dtype.kind != "O" or any(isinstance(v, str) for v in values)
            numbers = None if texts else as_numbers(values)
            values = values.astype(str) if numbers is None else numbers
        yield column, values


def _parts(x: Any, called: str = "x") -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the columns with their names."""
    names = getattr(x, "column_names", None)  # pyarrow, whose `columns` are the data
    names = getattr(x, "columns", None) if names is None else names
    names = [*x] if isinstance(x, Mapping) else names
    if names is not None:
        texts = [name if isinstance(name, str) else f"{called[0]}{name}" for name in names]
        for position, text in enumerate(texts):
            if text in texts[:position]:
                raise UserError(f"{called} has two columns {text!r}; rename one")
        for name, text in zip(names, texts, strict=True):
            yield text, np.asarray(x[name])
        return
    if isinstance(x, str | Path):
        raise UserError(
            f"{called} is text; of a file: flowtrain.train(['data=table', 'data.path={x}'])"
        )
    if isinstance(x, torch.Tensor):
        x = x.detach().cpu()
        x = (x.double() if x.is_floating_point() else x).numpy()
    if np.ma.isMaskedArray(x):
        x = np.ma.filled(x.astype(np.float64), np.nan)
    values = np.asarray(x)
    if values.ndim not in (1, 2):
        raise UserError(f"{called} has shape {values.shape}; use (rows, columns)")
    for position, column in enumerate(values.T if values.ndim == 2 else [values]):
        yield f"{called[0]}{position}", column


def _name(key: str | int, names: list[str]) -> str:
    if isinstance(key, str):
        if key not in names:
            raise UserError(f"x has no column {key!r}; it has {listed(names)}")
        return key
    if not 0 <= key < len(names):
        raise UserError(f"x has no column {key}; its {len(names)} columns count from 0")
    return names[key]


def _real(name: str, values: NDArray[Any]) -> NDArray[np.float64]:
    """Return a column in float64."""
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    if values.dtype.kind != "O":
        raise UserError(
            f"x, column {name!r}: {values.dtype} is no kind of real number; choose other columns"
        )
    for row, value in enumerate(values):  # missing values of integers, decimals, or text
        try:
            if isinstance(value, str | bytes):
                raise TypeError
            float(value)
        except (TypeError, ValueError):
            where = f"x, row (from 0) {row}, column {name!r}"
            raise UserError(
                f"{where}: {value!r} is no number; mend or drop the row, or choose other columns"
            ) from None
    return values.astype(np.float64)
