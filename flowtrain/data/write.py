"""Rows of numbers written to a file as they come, so that millions of them need little memory."""

import csv
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

import numpy as np
import torch
from torch import Tensor

from flowtrain.errors import UserError
from flowtrain.files import writing

Beside = Mapping[str, str | float]
Write = Callable[[IO[bytes], Sequence[str], Iterator[Tensor], int, Beside], None]


def write_rows(
    path: Path | None,
    columns: Sequence[str],
    blocks: Iterable[Tensor],
    *,
    rows: int,
    beside: Beside | None = None,
) -> None:
    """Write blocks of rows in the format that the suffix names; the file appears once whole.

    Args:
        path: ending in one of `WRITERS`; None is CSV on standard output.
        columns: the d names; a .npy and a .npz have no room for them.
        blocks: of shape (n_i, d), one dtype, on the CPU, at least one.
        rows: of all blocks together.
        beside: further columns that hold one value in every row, text or number; a .npy and a
            .npz have no room for them.

    Raises:
        UserError: the file cannot be written.

    >>> file = tmp_path / "points.csv"
    >>> write_rows(file, ["height", "width"], [torch.zeros(2, 2), torch.ones(1, 2)], rows=3)
    >>> file.read_text().splitlines()
    ['height,width', '0,0', '0,0', '1,1']
    """
    beside = beside or {}
    if path is None:
        _write_csv(sys.stdout.buffer, columns, iter(blocks), rows, beside)
        sys.stdout.buffer.flush()
        return
    with writing(path) as file:
        WRITERS[path.suffix.lower()](file, columns, iter(blocks), rows, beside)


def expected_bytes(path: Path, *, columns: int, rows: int, dtype: torch.dtype) -> int:
    """Return about how many bytes a file of rows takes.

    >>> expected_bytes(Path("points.npy"), columns=2, rows=10, dtype=torch.float64)
    160
    """
    text = path.suffix.lower() in (".csv", ".tsv")
    number = _digits(dtype) + 2 if text else dtype.itemsize  # a point, and a comma or a newline
    return rows * columns * number


def write_columns(path: Path | None, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of any content, by name; the file appears once whole.

    Args:
        path: ending in one of `MIXED`; None is CSV on standard output.
        columns: all of one length; a tensor's numbers can be read back to the same bits.

    Raises:
        UserError: the file cannot be written.

    >>> file = tmp_path / "scores.csv"
    >>> write_columns(file, {"who": ["Ada", "Bob"], "log_prob": torch.tensor([-1.5, -2.0])})
    >>> file.read_text().splitlines()
    ['who,log_prob', 'Ada,-1.5', 'Bob,-2']
    """
    if path is None:
        _write_mixed_text(sys.stdout.buffer, columns, ",")
        sys.stdout.buffer.flush()
        return
    suffix = path.suffix.lower()
    with writing(path) as file:
        if suffix == ".parquet":
            pa, pq = _pyarrow()
            arrays = {k: v.numpy() if isinstance(v, Tensor) else v for k, v in columns.items()}
            pq.write_table(pa.table(arrays), file)
        else:
            _write_mixed_text(file, columns, "\t" if suffix == ".tsv" else ",")


def _write_mixed_text(
    file: IO[bytes], columns: Mapping[str, Sequence[Any]], delimiter: str
) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns)
    cells = (
        [f"%.{_digits(column.dtype)}g" % number for number in column.tolist()]
        if isinstance(column, Tensor)
        else column
        for column in columns.values()
    )
    writer.writerows(zip(*cells, strict=True))
    text.detach()


def _digits(dtype: torch.dtype) -> int:
    return 17 if dtype == torch.float64 else 9  # enough to read back the same bits


def _write_csv(
    file: IO[bytes],
    columns: Sequence[str],
    blocks: Iterator[Tensor],
    _: int,
    beside: Beside,
    delimiter: str = ",",
) -> None:
    header, constant = (
        _csv_line(cells, delimiter) for cells in ([*columns, *beside], beside.values())
    )
    file.write(header.encode())
    end = f"{delimiter}{constant.replace('%', '%%')}" if beside else "\n"
    for block in blocks:
        line = delimiter.join([f"%.{_digits(block.dtype)}g"] * len(columns)) + end
        # One formatting of a whole block is three times as fast as one a row.
        file.write((line * len(block) % tuple(block.flatten().tolist())).encode())


def _csv_line(cells: Iterable[Any], delimiter: str) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _write_tsv(
    file: IO[bytes], columns: Sequence[str], blocks: Iterator[Tensor], rows: int, beside: Beside
) -> None:
    _write_csv(file, columns, blocks, rows, beside, delimiter="\t")


def _write_npy(
    file: IO[bytes], columns: Sequence[str], blocks: Iterator[Tensor], rows: int, _: Beside
) -> None:
    first = next(blocks).numpy()
    header = {
        "descr": np.lib.format.dtype_to_descr(first.dtype),
        "fortran_order": False,
        "shape": (rows, len(columns)),
    }
    np.lib.format.write_array_header_1_0(file, header)
    for block in chain([first], (each.numpy() for each in blocks)):
        file.write(np.ascontiguousarray(block).data)


def _write_npz(
    file: IO[bytes], columns: Sequence[str], blocks: Iterator[Tensor], rows: int, beside: Beside
) -> None:
    with ZipFile(file, "w") as archive, archive.open("x.npy", "w", force_zip64=True) as member:
        _write_npy(member, columns, blocks, rows, beside)


def _write_parquet(
    file: IO[bytes], columns: Sequence[str], blocks: Iterator[Tensor], _: int, beside: Beside
) -> None:
    pa, pq = _pyarrow()

    def table(block: Tensor) -> Any:
        named = dict(zip(columns, block.T.contiguous().numpy(), strict=True))
        return pa.table(named | {name: [value] * len(block) for name, value in beside.items()})

    first = table(next(blocks))
    with pq.ParquetWriter(file, first.schema) as writer:
        for group in chain([first], map(table, blocks)):
            writer.write_table(group)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError("writing Parquet needs pyarrow: pip install 'flowtrain[parquet]'") from None
    return pyarrow, pyarrow.parquet


MIXED = (".csv", ".tsv", ".parquet")  # formats of columns that hold anything, with names

WRITERS: dict[str, Write] = {
    ".npy": _write_npy,
    ".csv": _write_csv,
    ".tsv": _write_tsv,
    ".npz": _write_npz,
    ".parquet": _write_parquet,
}
