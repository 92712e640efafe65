"""Points of a file of numbers: NPY, NPZ or Parquet."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowtrain.data.source import LEAVE_OUT, Read, Source
from flowtrain.errors import UserError
from flowtrain.untrusted import open_regular


def open_npy(path: Path, _: object) -> Source:
    """Open a .npy: an array of shape (n,) is the column x0, one of (n, d) is x0, x1, ...

    Raises:
        UserError: it holds no such array.

    >>> np.save(tmp_path / "points.npy", np.zeros((3, 2)))
    >>> open_npy(tmp_path / "points.npy", "auto").names
    ['x0', 'x1']
    """
    with open_regular(path) as file:
        values = _load(path, lambda: np.lib.format.read_array(file, allow_pickle=False))
    return _from_arrays(path, {"x": values}, lone=True)


def open_npz(path: Path, _: object) -> Source:
    """Open a .npz: an array of shape (n,) is a column of its name, `z` of (n, d) is z0, z1, ...

    Raises:
        UserError: it holds something else, or arrays of different lengths.

    >>> np.savez(tmp_path / "points.npz", age=np.zeros(3), z=np.zeros((3, 2)))
    >>> open_npz(tmp_path / "points.npz", "auto").names
    ['age', 'z0', 'z1']
    """

    def load() -> dict[str, Any]:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as archive:
            return dict(archive)

    arrays = _load(path, load)
    return _from_arrays(path, arrays, lone=len(arrays) == 1)


def _load(path: Path, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (OSError, UserError):
        raise
    except Exception as error:  # a damaged file breaks zip, zlib or numpy's header: any of a dozen
        fault = f"no whole {path.suffix} file; was it cut short?"
        if "allow_pickle" in str(error):
            fault = "Python objects are not read; save an array of numbers"
        raise UserError(f"{path}: {fault}") from None


def _from_arrays(path: Path, arrays: dict[str, Any], *, lone: bool) -> Source:
    columns: dict[str, NDArray[Any]] = {}
    lengths: dict[str, int] = {}
    for name, values in arrays.items():
        label = "the array" if lone else f"array {name!r}"
        if not isinstance(values, np.ndarray) or values.ndim not in (1, 2):
            shape = getattr(values, "shape", "none")
            raise UserError(f"{path}: {label} has shape {shape}; use (rows,) or (rows, columns)")
        lengths[name] = len(values)
        if values.ndim == 1:
            parts = {"x0" if lone and path.suffix.lower() == ".npy" else name: values}
        else:
            parts = {f"{'x' if lone else name}{i}": part for i, part in enumerate(values.T)}
        for column in parts.keys() & columns.keys():
            raise UserError(f"{path}: two arrays give a column {column!r}; rename one")
        columns |= parts
    if len({*lengths.values()}) > 1:
        rows = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
        raise UserError(f"{path}: the arrays differ in rows: {rows}")
    if not columns:
        raise UserError(f"{path}: no columns")
    names = list(columns)

    def read(chosen: list[int], others: list[int]) -> Read:
        parts = [_real(path, names[position], columns[names[position]]) for position in chosen]
        beside = [columns[names[position]] for position in others]
        return np.stack(parts, axis=1), beside, range(len(parts[0]))

    return Source(names, lambda: list(columns.values()), read, "row (from 0)")


def _real(path: Path, name: str, values: NDArray[Any]) -> NDArray[np.float64]:
    if values.dtype.kind not in "biuf":
        raise UserError(
            f"{path}, column {name!r}: {values.dtype} is no kind of real number; {LEAVE_OUT}"
        )
    return values.astype(np.float64)


def open_parquet(path: Path, _: object) -> Source:
    """Open a .parquet by pyarrow, of the extra [parquet].

    Raises:
        UserError: pyarrow is not there, or it is no such file.

    >>> import pyarrow, pyarrow.parquet
    >>> pyarrow.parquet.write_table(pyarrow.table({"age": [1.0, 2.0]}), tmp_path / "a.parquet")
    >>> open_parquet(tmp_path / "a.parquet", "auto").names
    ['age']
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(
            f"{path}: reading Parquet needs pyarrow: pip install 'flowtrain[parquet]'"
        ) from None
    try:
        with open_regular(path) as file:
            table = pq.ParquetFile(file).read()
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError):
        raise UserError(f"{path}: no whole .parquet file; was it cut short?") from None
    if not table.num_columns:
        raise UserError(f"{path}: no columns")

    def real(position: int) -> NDArray[np.float64]:
        name, kind = table.column_names[position], table.schema.types[position]
        tests = ("is_integer", "is_floating", "is_boolean", "is_decimal")
        if not any(getattr(pa.types, test)(kind) for test in tests):
            raise UserError(
                f"{path}, column {name!r}: {kind} is no kind of real number; {LEAVE_OUT}"
            )
        column = table.column(position).cast(pa.float64(), safe=False)
        return np.asarray(column.to_numpy(), dtype=np.float64)

    def read(chosen: list[int], others: list[int]) -> Read:
        beside = [np.array(table.column(i).to_pylist(), dtype=object) for i in others]
        values = np.stack([real(position) for position in chosen], axis=1)
        return values, beside, range(table.num_rows)

    def cells() -> list[Any]:
        return [column.to_pylist() for column in table.columns]

    # What pandas calls the rows' numbers, where its index has no name.
    index = re.compile(r"__index_level_\d+__")
    names = ["" if index.fullmatch(name) else name for name in table.column_names]
    return Source(names, cells, read, "row (from 0)")
