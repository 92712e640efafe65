"""Points of a user's file: CSV, TSV, NPY, NPZ or Parquet."""

import csv
import io
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowtrain.errors import UserError
from flowtrain.progress import doing
from flowtrain.untrusted import open_regular


class NoColumnError(UserError):
    """A file without a column that was asked for.

    >>> error = NoColumnError("points.csv: no column 'age'; it has 'height'", column="age")
    >>> error.column
    'age'
    """

    def __init__(self, message: str, *, column: str) -> None:
        super().__init__(message)
        self.column = column


@dataclass(frozen=True)
class Table:
    """Points with names.

    Args:
        values: (n, d) in float64, all finite.
        columns: the d names.
        labels: (n,) booleans, true for an anomaly; None where no column of labels was asked for.
        levels: that each value had before it was dequantised onto [0, 1]; None for others.
        given: by name the columns that the points are conditional on, (n,) each, numbers or texts
            as they stand there.

    >>> table = Table(torch.zeros(3, 2, dtype=torch.float64), columns=("height", "width"))
    >>> table.values.shape, table.columns, table.labels
    (torch.Size([3, 2]), ('height', 'width'), None)
    """

    values: Tensor
    columns: tuple[str, ...]
    labels: Tensor | None = None
    levels: int | None = None
    given: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def read_table(
    path: str | Path,
    *,
    columns: Sequence[str | int] | None,
    header: Literal["auto"] | bool,
    label: str | int | None = None,
    condition: Sequence[str | int] | None = None,
) -> Table:
    """Read points from .csv, .tsv, .npy, .npz or .parquet.

    Integers and booleans become floats. Text is UTF-8, its cells may be quoted. An array of shape
    (n,) is one column, one of shape (n, d) is d columns x0, x1, ... In an .npz a 1-D array is a
    column of its own name, a 2-D array `z` gives z0, z1, ... unless it is alone: then x0, x1, ...

    Args:
        columns: those to read, in this order, by name or by position from 0; None for all.
            Other columns of a .csv, .tsv or .parquet may hold anything.
        header: whether the first line of a text holds names; "auto" says so when any of its cells
            is no number. Columns without names are x0, x1, ...
        label: the column of 0 (normal) and 1 (anomaly), which is no part of the values.
        condition: the columns that the points are conditional on, of numbers or text; they are no
            part of the values either.

    Raises:
        UserError: the file cannot be read as finite numbers; says at which line or row.

    >>> file = tmp_path / "points.csv"
    >>> _ = file.write_text("height,width,odd\\n1.5,2,0\\n3,4,1\\n")
    >>> table = read_table(file, columns=None, header="auto", label="odd")
    >>> table.columns, table.values.tolist(), table.labels.tolist()
    (('height', 'width'), [[1.5, 2.0], [3.0, 4.0]], [False, True])
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise UserError(f"{path}: this is a folder; name a file")
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise UserError(f"{path}: {suffix or 'no suffix'!r} is unknown; use {', '.join(READERS)}")
    if header != "auto" and suffix not in DELIMITERS:
        raise UserError(f"{path}: header={header} has no effect on {suffix}; leave it auto")
    try:
        with doing(f"reading {path.name}"):
            source = READERS[suffix](path, header)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    names = source.names
    chosen, label_index, given = _choose(path, names, columns, label, condition or ())
    if suffix in DELIMITERS and header == "auto" and all(_is_number(names[i]) for i in chosen):
        raise UserError(
            f"{path}, line 1: numbers beside text: say whether it is a header, header=true or false"
        )
    wanted = chosen if label_index is None else [*chosen, label_index]
    with doing(f"reading {path.name}"):
        values, cells, rows = source.read(wanted, given)
    if not len(rows):
        raise UserError(f"{path}: no rows of numbers")
    for row, column in np.argwhere(~np.isfinite(values))[:1]:
        where = f"{path}, {source.unit} {rows[row]}, column {names[wanted[column]]!r}"
        raise UserError(f"{where}: {values[row, column]} is not finite; mend or drop the row")
    labels = None
    if label_index is not None:
        flags = values[:, -1]
        for row in np.flatnonzero((flags != 0) & (flags != 1))[:1]:
            where = f"{path}, {source.unit} {rows[row]}, column {names[label_index]!r}"
            raise UserError(f"{where}: {flags[row]:g} is no label; use 0 (normal) and 1 (anomaly)")
        labels = torch.from_numpy(flags == 1)
        values = np.ascontiguousarray(values[:, :-1])
    beside = dict(zip((names[i] for i in given), cells, strict=True))
    return Table(torch.from_numpy(values), tuple(names[i] for i in chosen), labels, given=beside)


def read_cells(path: Path, *, header: Literal["auto"] | bool) -> dict[str, Any]:
    """Return every column of a file as it stands there, by name: of a text file its cells.

    Args:
        path: of a file that `read_table` has read.
        header: as `read_table` has it.

    >>> file = tmp_path / "points.csv"
    >>> _ = file.write_text("who,height\\nAda,1.50\\nBob,2\\n")
    >>> read_cells(file, header="auto")
    {'who': ('Ada', 'Bob'), 'height': ('1.50', '2')}
    """
    source = READERS[path.suffix.lower()](path, header)
    return dict(zip(source.names, source.cells(), strict=True))


@dataclass(frozen=True)
class _Source:
    """An open file.

    Args:
        names: of all its columns.
        cells: gives all columns as they stand there; it or `read` can be asked once.
        read: takes the columns asked for, k positions of numbers and others of anything; returns
            the numbers, (n, k), the others as they stand there, (n,) each, and where in the file
            each row lies.
        unit: what counts the rows there.
    """

    names: list[str]
    cells: Callable[[], list[Any]]
    read: Callable[[list[int], list[int]], "_Read"]
    unit: str


_Read = tuple[NDArray[np.float64], list[NDArray[Any]], Sequence[int]]


def _choose(
    path: Path,
    names: list[str],
    columns: Sequence[str | int] | None,
    label: str | int | None,
    condition: Sequence[str | int],
) -> tuple[list[int], int | None, list[int]]:
    """Return the positions of the value columns, the label's, and those of the condition."""
    place: dict[str, int] = {}
    for position, name in enumerate(names):
        if place.setdefault(name, position) != position:
            raise UserError(
                f"{path}: columns {place[name]} and {position} are both named {name!r}; rename one"
            )
    labelled = None if label is None else _position(path, place, label)
    given = [_position(path, place, key) for key in condition]
    taken = dict.fromkeys(given, "a condition")
    if labelled is not None:
        taken[labelled] = "the label"
    if columns is None:
        chosen = [position for position in range(len(names)) if position not in taken]
        if any(not names[position] for position in chosen):
            raise UserError(f"{path}: column {names.index('')} has no name; choose columns")
    else:
        chosen = [_position(path, place, key) for key in columns]
    if not chosen:
        raise UserError(f"{path}: no column is chosen; it has {listed(names)}")
    for what, positions in (("data", chosen), ("a condition", given)):
        once: set[int] = set()
        for position in positions:
            name, role = names[position], taken.get(position, what)
            if position in once:
                raise UserError(f"{path}: column {name!r} is chosen twice")
            if role != what:
                raise UserError(f"{path}: column {name!r} is {role}, it cannot be {what}")
            once.add(position)
    return chosen, labelled, given


def _position(path: Path, place: dict[str, int], key: str | int) -> int:
    if isinstance(key, str):
        if key not in place:
            raise NoColumnError(
                f"{path}: no column {key!r}; it has {listed(list(place))}", column=key
            )
        return place[key]
    if not 0 <= key < len(place):
        raise UserError(f"{path}: no column {key}; its {len(place)} columns count from 0")
    return key


def listed(names: Sequence[str]) -> str:
    """Return the first ten names, quoted, in a line; "none" where there are none.

    >>> listed(["height", "width"])
    "'height', 'width'"
    """
    shown = [repr(name) for name in names[:10]]
    return ", ".join(shown + ["..."] * (len(names) > 10)) or "none"


DELIMITERS = {".csv": ",", ".tsv": "\t"}


def _open_text(path: Path, header: Literal["auto"] | bool) -> _Source:
    with open_regular(path) as file:
        data = file.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: not UTF-8 text; save it as UTF-8") from None
    rows = _rows(path, text.rstrip("\r\n "))
    line, first = next(rows, (1, []))
    if not first:
        raise UserError(f"{path}: " + ("line 1 is blank" if text.strip() else "the file is empty"))
    if len(first) == 1 and re.search(r"[,;|\t]", first[0]):
        raise UserError(f"{path}, line {line}: one column, {first[0]!r}; {_separated(path)}")
    named = header
    if header == "auto":  # an empty cell is a missing number, or the name of a pandas index
        named = not all(_is_number(cell) for cell in first if cell.strip())
    if not named:
        names = [f"x{position}" for position in range(len(first))]
        rows = chain([(line, first)], rows)
    else:
        names = [name.strip() for name in first]

    def cells() -> list[Any]:
        return list(zip(*(row for _, row in rows), strict=True))

    return _Source(names, cells, partial(_read_text, path, names, rows), "line")


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row of cells with the line it begins on, as an editor counts them."""
    delimiter = DELIMITERS[path.suffix.lower()]
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    line = 1
    try:
        for row in reader:
            yield line, row
            line = reader.line_num + 1
    except csv.Error:
        raise UserError(
            f"{path}, line {line}: a quoted cell does not end, or text follows it"
        ) from None


def _read_text(
    path: Path,
    names: list[str],
    rows: Iterable[tuple[int, list[str]]],
    chosen: list[int],
    others: list[int],
) -> _Read:
    numbers, lines = array("d"), array("q")
    texts: list[list[str]] = [[] for _ in others]
    for line, row in rows:
        if len(row) != len(names):
            found = f"{len(row)} cell{'s' * (len(row) > 1)}, not {len(names)} as in line 1"
            raise UserError(f"{path}, line {line}: {found if row else 'blank'}")
        try:
            numbers.extend([float(row[position]) for position in chosen])
        except ValueError:  # a boolean, or a mistake
            for position in chosen:
                where = f"{path}, line {line}, column {names[position]!r}"
                numbers.append(_number(path, where, row[position]))
        for text, position in zip(texts, others, strict=True):
            text.append(row[position])
        lines.append(line)
    values = np.array(numbers).reshape(len(lines), len(chosen))
    return values, [np.array(text, dtype=object) for text in texts], lines


def _number(path: Path, where: str, cell: str) -> float:
    if not cell.strip():
        raise UserError(f"{where}: the cell is empty; fill it or drop the row")
    if cell.strip().lower() in {"true", "false"}:
        return float(cell.strip().lower() == "true")
    try:
        return float(cell)
    except ValueError:
        pieces = re.split(r"[,;|\t ]+", cell.strip())
        hint = f"; {_separated(path)}" if len(pieces) > 1 and all(map(_is_number, pieces)) else ""
        raise UserError(f"{where}: {cell[:40]!r} is no number{hint}") from None


def _separated(path: Path) -> str:
    suffix = path.suffix.lower()
    return f"{suffix} means cells separated by a {'comma' if suffix == '.csv' else 'tab'}"


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.strip().lower() in {"true", "false"}
    return True


def _open_npy(path: Path, _: object) -> _Source:
    with open_regular(path) as file:
        values = _load(path, lambda: np.lib.format.read_array(file, allow_pickle=False))
    return _from_arrays(path, {"x": values}, lone=True)


def _open_npz(path: Path, _: object) -> _Source:
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


def _from_arrays(path: Path, arrays: dict[str, Any], *, lone: bool) -> _Source:
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

    def read(chosen: list[int], others: list[int]) -> _Read:
        parts = [_real(path, names[position], columns[names[position]]) for position in chosen]
        beside = [columns[names[position]] for position in others]
        return np.stack(parts, axis=1), beside, range(len(parts[0]))

    return _Source(names, lambda: list(columns.values()), read, "row (from 0)")


def _real(path: Path, name: str, values: NDArray[Any]) -> NDArray[np.float64]:
    if values.dtype.kind not in "biuf":
        raise UserError(f"{path}, column {name!r}: {values.dtype} is no kind of real number")
    return values.astype(np.float64)


def _open_parquet(path: Path, _: object) -> _Source:
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
            raise UserError(f"{path}, column {name!r}: {kind} is no kind of real number")
        column = table.column(position).cast(pa.float64(), safe=False)
        return np.asarray(column.to_numpy(), dtype=np.float64)

    def read(chosen: list[int], others: list[int]) -> _Read:
        beside = [np.array(table.column(i).to_pylist(), dtype=object) for i in others]
        values = np.stack([real(position) for position in chosen], axis=1)
        return values, beside, range(table.num_rows)

    def cells() -> list[Any]:
        return [column.to_pylist() for column in table.columns]

    return _Source(table.column_names, cells, read, "row (from 0)")


READERS: dict[str, Callable[[Path, Literal["auto"] | bool], _Source]] = {
    ".csv": _open_text,
    ".tsv": _open_text,
    ".npy": _open_npy,
    ".npz": _open_npz,
    ".parquet": _open_parquet,
}
