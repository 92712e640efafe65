"""Points of a text file: CSV or TSV, with or without names in the first line."""

import csv
import io
import math
import re
from array import array
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flowtrain.data.source import LEAVE_OUT, Read, Source, unnamed
from flowtrain.errors import UserError
from flowtrain.untrusted import open_regular, to_float

# What stands in a cell without a value.
NOTHING = {"", "nan", "na", "n/a", "#n/a", "<na>", "null", "none"}
DELIMITERS = {".csv": ",", ".tsv": "\t"}


def open_text(path: Path, header: Literal["auto"] | bool) -> Source:
    """Open a .csv or .tsv; names that it has none of are x0, x1, ...

    The cells of a .csv are separated by commas, or by semicolons where its first line has those
    alone.

    Raises:
        UserError: it is no such file; says at which line.

    >>> _ = (tmp_path / "points.csv").write_text("1.5,2\\n3,4\\n")
    >>> open_text(tmp_path / "points.csv", "auto").names
    ['x0', 'x1']
    """
    with open_regular(path) as file:
        data = file.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: not UTF-8 text; save it as UTF-8") from None
    blanks = "\r\n " if path.suffix.lower() == ".tsv" else "\r\n \t"
    rows = _rows(path, text.rstrip(blanks))
    line, first = next(rows, (1, []))
    if not first:
        raise UserError(f"{path}: " + ("line 1 is blank" if text.strip() else "the file is empty"))
    if len(first) == 1 and re.search(r"[,;|\t]", first[0]):
        raise UserError(f"{path}, line {line}: one column, {first[0]!r}; {_separated(path)}")
    named = header
    if header == "auto":  # an empty cell is a missing number, or the name of a pandas index
        named = not all(holds_number(cell) for cell in first if cell.strip())
    if not named:
        names = unnamed(len(first))
        rows = chain([(line, first)], rows)
    else:
        names = [name.strip() for name in first]

    def cells() -> list[Any]:
        return list(zip(*(row for _, row in rows), strict=True))

    return Source(names, cells, partial(_read_text, path, names, rows), "line")


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row of cells with the line it begins on, as an editor counts them."""
    delimiter = DELIMITERS[path.suffix.lower()]
    first = re.sub(r'"[^"]*"', "", text.partition("\n")[0])
    if delimiter == "," and ";" in first and "," not in first:
        delimiter = ";"
    csv.field_size_limit(2**31 - 1)  # a column that nobody chose may hold anything
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
) -> Read:
    numbers, lines = array("d"), array("q")
    texts: list[list[str]] = [[] for _ in others]
    for line, cells in rows:
        row = cells or [""]  # of a single column, a missing value
        if len(row) != len(names):
            found = f"{len(row)} cell{'s' * (len(row) > 1)}, not {len(names)} as in line 1"
            blank = len(row) == 1 and not row[0].strip()
            raise UserError(f"{path}, line {line}: {'blank; delete it' if blank else found}")
        try:
            numbers.extend([to_float(row[position]) for position in chosen])
        except ValueError:  # a boolean, no value, or a mistake
            for position in chosen:
                where = f"{path}, line {line}, column {names[position]!r}"
                numbers.append(_number(path, where, row[position]))
        for text, position in zip(texts, others, strict=True):
            text.append(row[position])
        lines.append(line)
    values = np.array(numbers).reshape(len(lines), len(chosen))
    return values, [_cells(text) for text in texts], lines


def _cells(texts: list[str]) -> NDArray[Any]:
    """Return a column as it stands there; beside numbers NA is no text, but a missing number."""
    if all(holds_nothing(cell) or holds_number(cell) for cell in texts):
        texts = ["" if holds_nothing(cell) else cell for cell in texts]
    return np.array(texts, dtype=object)


def _number(path: Path, where: str, cell: str) -> float:
    if holds_nothing(cell):
        return math.nan
    if cell.strip().lower() in {"true", "false"}:
        return float(cell.strip().lower() == "true")
    try:
        return to_float(cell)
    except ValueError:
        pieces = re.split(r"[,;|\t ]+", cell.strip())
        numbers = len(pieces) > 1 and all(map(holds_number, pieces))
        hint = _separated(path) if numbers else LEAVE_OUT
        raise UserError(f"{where}: {cell[:40]!r} is no number; {hint}") from None


def _separated(path: Path) -> str:
    suffix = path.suffix.lower()
    cells = "commas or semicolons" if suffix == ".csv" else "tabs"
    return f"{suffix} means cells separated by {cells}, and numbers with a decimal point"


def holds_nothing(cell: str) -> bool:
    """Return whether a cell is blank or says that its value is missing.

    >>> [holds_nothing(cell) for cell in (" ", "NA", "nan", "0")]
    [True, True, True, False]
    """
    return cell.strip().lower() in NOTHING


def holds_number(cell: str) -> bool:
    """Return whether a cell is a number or a boolean.

    >>> [holds_number(cell) for cell in ("1e-3", " true", "n/a", "")]
    [True, True, False, False]
    """
    try:
        to_float(cell)
    except ValueError:
        return cell.strip().lower() in {"true", "false"}
    return True
