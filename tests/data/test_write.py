"""Rows written as they come: what is read back, in every format, and what is left of a failure."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowtrain.data.read import READERS, read_table
from flowtrain.data.write import WRITERS, write_rows
from flowtrain.errors import UserError


def points(dtype: torch.dtype) -> torch.Tensor:
    x = torch.randn(100, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return (x * torch.tensor([1e-8, 1.0, 1e8])).to(dtype)


def test_what_can_be_written_can_be_read() -> None:
    assert WRITERS.keys() == READERS.keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("suffix", WRITERS)
def test_rows_come_back_to_the_bit_however_they_were_cut_into_blocks(
    tmp_path: Path, suffix: str, dtype: torch.dtype
) -> None:
    x = points(dtype)
    names = ("a", 'b "m"', "c,d")
    kept = names if suffix in (".csv", ".tsv", ".parquet") else ("x0", "x1", "x2")
    contents = []
    for cut in ([100], [1, 60, 39]):
        path = tmp_path / f"{len(cut)}{suffix}"
        write_rows(path, names, x.split(cut), rows=100)
        table = read_table(path, columns=None, header="auto")
        assert table.columns == kept
        assert torch.equal(table.values.to(dtype), x)
        contents.append(path.read_bytes())
    assert suffix in (".npz", ".parquet") or contents[0] == contents[1]


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_value_of_every_row_is_written_beside_them(tmp_path: Path, suffix: str) -> None:
    x, path = points(torch.float32), tmp_path / f"points{suffix}"
    beside: dict[str, str | float] = {"kind, or sort": '100 % "a",\tb', "age": 0.1}
    write_rows(path, ("a", "b", "c"), x.split(60), rows=100, beside=beside)
    if suffix in (".npy", ".npz"):  # there is no room for them
        table = read_table(path, columns=None, header="auto")
    else:
        table = read_table(path, columns=None, header="auto", condition=[*beside])
        assert table.given["kind, or sort"].tolist() == [beside["kind, or sort"]] * 100
        assert [float(age) for age in table.given["age"]] == [0.1] * 100
    assert torch.equal(table.values.float(), x)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_keep_their_precision(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"points{suffix}"
    write_rows(path, ("a", "b", "c"), [points(torch.float32)], rows=100)
    loaded: Any = np.load(path)
    assert (loaded["x"] if suffix == ".npz" else loaded).dtype == np.float32


def test_without_a_path_csv_goes_to_standard_output(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    write_rows(None, ("a", "b"), torch.tensor([[1.5, -2.0], [0.25, 1e-3]]).split(1), rows=2)
    assert capsysbinary.readouterr().out == b"a,b\n1.5,-2\n0.25,0.00100000005\n"


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_failure_halfway_leaves_the_file_that_was_there(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"points{suffix}"
    path.write_text("before")

    def blocks() -> Iterator[torch.Tensor]:
        yield points(torch.float64)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(path, ("a", "b", "c"), blocks(), rows=200)
    assert path.read_text() == "before"
    assert [*tmp_path.iterdir()] == [path]


def test_a_full_disk_is_told_in_one_line(
    tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "points.csv"
    with full_disk(4096), pytest.raises(UserError) as caught:
        write_rows(path, ("a", "b", "c"), [points(torch.float64)] * 100, rows=10_000)
    assert str(caught.value).startswith(f"cannot write {path}: ")
    assert [*tmp_path.iterdir()] == []


def test_parquet_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'flowtrain\[parquet\]'"):
        write_rows(tmp_path / "points.parquet", ("a",), [torch.zeros(2, 1)], rows=2)
    assert [*tmp_path.iterdir()] == []
