"""Points of a user's file: CSV, TSV, NPY, NPZ or Parquet."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowtrain.data.arrays import open_npy, open_npz, open_parquet
from flowtrain.data.condition_column import absent
from flowtrain.data.source import MISSING, Source, in_more_rows, not_finite
from flowtrain.data.text_file import DELIMITERS, holds_nothing, holds_number, open_text
from flowtrain.errors import UserError
from flowtrain.progress import doing
from flowtrain.text import listed

Columns = Sequence[str | int] | None


class NoColumnError(UserError):
    """A file without a column that was asked for.

    >>> error = NoColumnError("points.csv: no column 'age'; it has 'height'", column="age")
    >>> error.column
    'age'
    """

    def __init__(self, message: str, *, column: str) -> None:
        super().__init__(message)
        self.column = column


class MissingError(UserError):
    """A file with a row that lacks a value, of the points or of their condition.

    >>> str(MissingError("points.csv, line 2, column 'age': the value is missing"))
    "points.csv, line 2, column 'age': the value is missing"
    """


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
        categorical: the names of those that are categories, all others being numbers; None leaves
            it to their values.
        rows: positions in the file of the rows that are there; None is all.
        left_out: what to say of the others, which lack a value.
        fingerprint: of the rows as they were read.
        grid: the step between values of each column before they were spread over their cells, 0 of
            a column that lies on no grid; none where nothing was spread.

    >>> table = Table(torch.zeros(3, 2, dtype=torch.float64), columns=("height", "width"))
    >>> table.values.shape, table.columns, table.labels
    (torch.Size([3, 2]), ('height', 'width'), None)
    """

    values: Tensor
    columns: tuple[str, ...]
    labels: Tensor | None = None
    levels: int | None = None
    given: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    categorical: tuple[str, ...] | None = None
    rows: Sequence[int] | None = None
    left_out: str | None = None
    fingerprint: str | None = None
    grid: tuple[float, ...] = ()

    def marked(self) -> "Table":
        """Return the table with the fingerprint of its rows, by which a change is found."""
        digest = hashlib.blake2b(repr(self.columns).encode(), digest_size=16)
        for column in (self.values.numpy(), *self.given.values()):
            told = column if column.dtype.kind in "biuf" else np.array(column, dtype=str)
            digest.update(np.ascontiguousarray(told).tobytes())
        return replace(self, fingerprint=digest.hexdigest())


def read_table(
    path: str | Path,
    *,
    columns: Columns | Callable[[list[str]], Columns],
    header: Literal["auto"] | bool,
    label: str | int | None = None,
    condition: Sequence[str | int] | None = None,
    categorical: Sequence[str | int] | None = None,
    missing: Literal["refuse", "drop"] = "refuse",
) -> Table:
    """Read points from .csv, .tsv, .npy, .npz or .parquet.

    Integers and booleans become floats. Text is UTF-8, its cells may be quoted. An array of shape
    (n,) is one column, one of shape (n, d) is d columns x0, x1, ... In an .npz a 1-D array is a
    column of its own name, a 2-D array `z` gives z0, z1, ... unless it is alone: then x0, x1, ...

    Args:
        columns: those to read, in this order, by name or by position from 0, or what chooses them
            from the names in the file; None for all. Other columns of a .csv, .tsv or .parquet may
            hold anything.
        header: whether the first line of a text holds names; "auto" says so when any of its cells
            is no number. Columns without names are x0, x1, ...
        label: the column of 0 (normal) and 1 (anomaly), which is no part of the values.
        condition: the columns that the points are conditional on, of numbers or text; they are no
            part of the values either.
        categorical: those of the condition that are categories, all others being numbers; None
            leaves it to their values.
        missing: what becomes of a row that lacks a value or a part of its condition.

    Raises:
        UserError: the file cannot be read as finite numbers; says at which line or row.
        MissingError: a row lacks a value, and is to be refused for it.

    >>> file = tmp_path / "points.csv"
    >>> _ = file.write_text("height,width,odd\\n1.5,2,0\\n3,4,1\\n")
    >>> table = read_table(file, columns=None, header="auto", label="odd")
    >>> table.columns, table.values.tolist(), table.labels.tolist()
    (('height', 'width'), [[1.5, 2.0], [3.0, 4.0]], [False, True])
    """
    path = Path(path).expanduser()
    source = _open(path, header)
    names = source.names
    columns = columns(names) if callable(columns) else columns
    chosen, label_index, given = _choose(path, names, columns, label, condition or ())
    kinds = None if categorical is None else _among(path, names, given, categorical)
    guessed = header == "auto" and path.suffix.lower() in DELIMITERS
    heads = [names[i] for i in chosen if not holds_nothing(names[i])]
    numbers = [head for head in heads if holds_number(head)]
    words = [head for head in heads if re.search(r"\w", head)]  # "-" and "?" are none
    if guessed and numbers and numbers == words:
        raise UserError(
            f"{path}, line 1: numbers beside text: say whether it is a header, header=true or false"
        )
    wanted = chosen if label_index is None else [*chosen, label_index]
    with doing(f"reading {path.name}"):
        values, cells, rows = source.read(wanted, given)
    if not len(rows):
        raise UserError(f"{path}: no rows of numbers")

    taken = [names[i] for i in [*wanted, *given]]

    def where(row: int, column: int) -> str:
        return f"{path}, {source.unit} {rows[row]}, column {taken[column]!r}"

    kept = left_out = None
    lacking = np.stack([*np.isnan(values).T, *map(absent, cells)], axis=1)
    if lacking.any():
        if missing == "refuse":
            more = in_more_rows(int(lacking.any(1).sum()) - 1)
            raise MissingError(f"{where(*np.argwhere(lacking)[0])}: {MISSING}{more}")
        kept, left_out = _complete(lacking, taken)
        if not kept:
            raise UserError(f"{path}: {left_out}")
        values, cells = values[kept], [column[kept] for column in cells]
        rows = [rows[row] for row in kept]
    infinite = np.isinf(values)
    for row, column in np.argwhere(infinite)[:1]:
        more = in_more_rows(int(infinite.any(1).sum()) - 1)
        raise UserError(f"{where(row, column)}: {not_finite(values[row, column])}{more}")
    labels = None
    if label_index is not None:
        values, flags = np.ascontiguousarray(values[:, :-1]), values[:, -1]
        for row in np.flatnonzero((flags != 0) & (flags != 1))[:1]:
            told = f"{flags[row]:g} is no label; use 0 (normal) and 1 (anomaly)"
            raise UserError(f"{where(row, len(chosen))}: {told}")
        labels = torch.from_numpy(flags == 1)
    return Table(
        torch.from_numpy(values),
        tuple(names[i] for i in chosen),
        labels,
        given=dict(zip((names[i] for i in given), cells, strict=True)),
        categorical=kinds,
        rows=kept,
        left_out=left_out,
    )


def _complete(lacking: NDArray[np.bool_], names: list[str]) -> tuple[list[int], str]:
    """Return which rows (n, k) lack nothing, and what to say of the others."""
    kept: list[int] = np.flatnonzero(~np.any(lacking, axis=1)).tolist()
    most = lacking.sum(0).argmax()
    return kept, (
        f"{len(lacking) - len(kept):,} of {len(lacking):,} rows lack a value and are left out; "
        f"{lacking[:, most].sum():,} lack {names[most]!r}"
    )


def _open(path: Path, header: Literal["auto"] | bool) -> Source:
    """Open a file of points by its suffix."""
    if path.is_dir():
        raise UserError(f"{path}: this is a folder; name a file")
    if not path.exists():
        raise UserError(f"{path}: no such file")
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise UserError(f"{path}: {suffix or 'no suffix'!r} is unknown; use {', '.join(READERS)}")
    if header != "auto" and suffix not in DELIMITERS:
        raise UserError(f"{path}: header={header} has no effect on {suffix}; leave it auto")
    try:
        with doing(f"reading {path.name}"):
            return READERS[suffix](path, header)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


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


def _choose(
    path: Path,
    names: list[str],
    columns: Sequence[str | int] | None,
    label: str | int | None,
    condition: Sequence[str | int],
) -> tuple[list[int], int | None, list[int]]:
    """Return the positions of the value columns, the label's, and those of the condition."""
    place: dict[str, int] = {}
    again: dict[int, int] = {}  # from a column to another of its name
    for position, name in enumerate(names):
        if (first := place.setdefault(name, position)) != position:
            again |= {first: position, position: first}
    at = partial(_position, path, place, columns=len(names))
    labelled = None if label is None else at(label)
    given = [at(key) for key in condition]
    taken = dict.fromkeys(given, "a condition")
    if labelled is not None:
        taken[labelled] = "the label"
    if columns is None:
        chosen = [position for position in range(len(names)) if position not in taken]
        if nameless := [position for position in chosen if not names[position]]:
            which = f"column {nameless[0]} has no name, as an index that pandas writes"
            if len(nameless) > 1:
                which = f"columns {nameless[0]} and {nameless[1]} have no name"
            others = listed([name for name in names if name])
            raise UserError(f"{path}: {which}; choose the others: {others}")
    else:
        chosen = [at(key) for key in columns]
    if not chosen:
        raise UserError(f"{path}: no column is chosen; it has {listed(names)}")
    for position in (*chosen, *given, *([] if labelled is None else [labelled])):
        if position in again:
            one, other = sorted((position, again[position]))
            raise UserError(
                f"{path}: columns {one} and {other} are both named {names[one]!r}; rename one"
            )
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


def _among(
    path: Path, names: list[str], given: list[int], categorical: Sequence[str | int]
) -> tuple[str, ...]:
    """Return the names of the columns that are categories; each is one of the condition."""
    place = {name: position for position, name in enumerate(names)}
    found = [_position(path, place, key, columns=len(names)) for key in categorical]
    for position in found:
        if position not in given:
            raise UserError(
                f"{path}: column {names[position]!r} is no condition, it cannot be a category; the "
                f"condition is {listed([names[each] for each in given])}"
            )
    return tuple(names[position] for position in found)


def _position(path: Path, place: dict[str, int], key: str | int, *, columns: int) -> int:
    if isinstance(key, str):
        if key not in place:
            raise NoColumnError(
                f"{path}: no column {key!r}; it has {listed(list(place))}", column=key
            )
        return place[key]
    if not 0 <= key < columns:
        named = f"; for the one of that name write '{key}'" if str(key) in place else ""
        raise UserError(f"{path}: no column {key}; its {columns} columns count from 0{named}")
    return key


READERS: dict[str, Callable[[Path, Literal["auto"] | bool], Source]] = {
    ".csv": open_text,
    ".tsv": open_text,
    ".npy": open_npy,
    ".npz": open_npz,
    ".parquet": open_parquet,
}
