"""Rows of numbers written to a file as they come, so that millions of them need little memory."""

import csv
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO
from zipfile import ZipFile

import numpy as np
import torch
from torch import Tensor

from flowtrain.errors import UserError
from flowtrain.files import writing

Write = Callable[[IO[bytes], Sequence[str], Iterator[Tensor], int], None]


def write_rows(
    path: Path | None, columns: Sequence[str], blocks: Iterable[Tensor], *, rows: int
) -> None:
    """Write blocks of rows in the format that the suffix names; the file appears once whole.

    Args:
        path: ending in one of `WRITERS`; None is CSV on standard output.
        columns: the d names; a .npy and a .npz have no room for them.
        blocks: of shape (n_i, d), one dtype, on the CPU, at least one.
        rows: of all blocks together.

    Raises:
        UserError: the file cannot be written.

    >>> file = tmp_path / "points.csv"
    >>> write_rows(file, ["height", "width"], [torch.zeros(2, 2), torch.ones(1, 2)], rows=3)
    >>> file.read_text().splitlines()
    ['height,width', '0,0', '0,0', '1,1']
    """
    if path is None:
        _write_csv(sys.stdout.buffer, columns, iter(blocks), rows)
        sys.stdout.buffer.flush()
        return
    with writing(path) as file:
        WRITERS[path.suffix.lower()](file, columns, iter(blocks), rows)


def _write_csv(
    file: IO[bytes], columns: Sequence[str], blocks: Iterator[Tensor], _: int, delimiter: str = ","
) -> None:
    header = io.StringIO()
    csv.writer(header, delimiter=delimiter, lineterminator="\n").writerow(columns)
    file.write(header.getvalue().encode())
    for block in blocks:
        digits = 17 if block.dtype == torch.float64 else 9  # enough to read back the same bits
        line = delimiter.join([f"%.{digits}g"] * len(columns)) + "\n"
        # One formatting of a whole block is three times as fast as one a row.
        file.write((line * len(block) % tuple(block.flatten().tolist())).encode())


def _write_tsv(
    file: IO[bytes], columns: Sequence[str], blocks: Iterator[Tensor], rows: int
) -> None:
    _write_csv(file, columns, blocks, rows, delimiter="\t")


def _write_npy(
    file: IO[bytes], columns: Sequence[str], blocks: Iterator[Tensor], rows: int
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
    file: IO[bytes], columns: Sequence[str], blocks: Iterator[Tensor], rows: int
) -> None:
    with ZipFile(file, "w") as archive, archive.open("x.npy", "w", force_zip64=True) as member:
        _write_npy(member, columns, blocks, rows)


def _write_parquet(
    file: IO[bytes], columns: Sequence[str], blocks: Iterator[Tensor], _: int
) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError("writing Parquet needs pyarrow: pip install 'flowtrain[parquet]'") from None

    def table(block: Tensor) -> "pa.Table":
        return pa.table(dict(zip(columns, block.T.contiguous().numpy(), strict=True)))

    first = table(next(blocks))
    with pq.ParquetWriter(file, first.schema) as writer:
        for group in chain([first], map(table, blocks)):
            writer.write_table(group)


WRITERS: dict[str, Write] = {
    ".npy": _write_npy,
    ".csv": _write_csv,
    ".tsv": _write_tsv,
    ".npz": _write_npz,
    ".parquet": _write_parquet,
}
