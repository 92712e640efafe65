"""Reading users' points: what comes back, and what each mistake is told."""

import io
import math
import pickle
import sys
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from flowtrain.data.read import READERS, MissingError, Table, read_table
from flowtrain.errors import UserError

XY = np.array([[1.5, -2.0], [0.25, 1e-3], [3.0, 4.0]])
Header = Literal["auto"] | bool


def read(
    path: Path,
    columns: Sequence[str | int] | None = None,
    header: Header = "auto",
    label: str | int | None = None,
    condition: Sequence[str | int] | None = None,
) -> Table:
    return read_table(path, columns=columns, header=header, label=label, condition=condition)


def npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def npz(*values: Any, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, *values, **arrays)
    return buffer.getvalue()


def parquet(*columns: Any, names: Sequence[str] = ("x", "y")) -> bytes:
    buffer = io.BytesIO()
    arrays = [pa.array(column) for column in columns]
    pq.write_table(pa.Table.from_arrays(arrays, names=list(names)[: len(arrays)]), buffer)
    return buffer.getvalue()


# --- what is read -------------------------------------------------------------------------------

CSV = "1.5,-2\n0.25,1e-3\n3,4"
READABLE: dict[str, tuple[str, bytes, tuple[str, ...]]] = {
    "csv": (".csv", CSV.encode(), ("x0", "x1")),
    "header": (".csv", f"a,b\n{CSV}\n".encode(), ("a", "b")),
    "bom": (".csv", f"\ufeffa,b\n{CSV}\n".encode(), ("a", "b")),
    "bom without header": (".csv", f"\ufeff{CSV}\n".encode(), ("x0", "x1")),
    "crlf": (".csv", f"a,b\n{CSV}\n".replace("\n", "\r\n").encode(), ("a", "b")),
    "blank lines at the end": (".csv", f"{CSV}\n\n  \n\r\n".encode(), ("x0", "x1")),
    "quoted": (".csv", b'"a, m","b ""m"""\n"1.5","-2"\n0.25,1e-3\n3, "4"', ("a, m", 'b "m"')),
    "a line break in a name": (".csv", f'"a\nm",b\n{CSV}'.encode(), ("a\nm", "b")),
    "spaces": (".csv", b"a , b\n 1.5 , -2\n0.25,1e-3 \n3,4", ("a", "b")),
    "upper case": (".CSV", CSV.encode(), ("x0", "x1")),
    "semicolons": (".csv", f'"a b";b\n{CSV}'.replace(",", ";").encode(), ("a b", "b")),
    "semicolons without header": (".csv", CSV.replace(",", ";").encode(), ("x0", "x1")),
    "semicolons in a name": (".csv", f'a,"b;c"\n{CSV}'.encode(), ("a", "b;c")),
    "tsv": (".tsv", f"a\tb\n{CSV}".replace(",", "\t").encode(), ("a", "b")),
    "npy": (".npy", npy(XY), ("x0", "x1")),
    "fortran, big-endian": (".npy", npy(np.asfortranarray(XY.astype(">f8"))), ("x0", "x1")),
    "npz": (".npz", npz(XY), ("x0", "x1")),
    "npz of a matrix with a name": (".npz", npz(z=XY), ("x0", "x1")),
    "npz of columns": (".npz", npz(a=XY[:, 0], b=XY[:, 1]), ("a", "b")),
    "npz of matrices": (".npz", npz(a=XY[:, :1], b=XY[:, 1:]), ("a0", "b0")),
    "parquet": (".parquet", parquet(*XY.T), ("x", "y")),
    "single precision": (".parquet", parquet(*XY.astype("f4").T), ("x", "y")),
}


@pytest.mark.parametrize("case", READABLE)
def test_formats(tmp_path: Path, case: str) -> None:
    suffix, content, columns = READABLE[case]
    path = tmp_path / f"points{suffix}"
    path.write_bytes(content)
    table = read(path)
    assert table.columns == columns
    assert table.labels is None
    assert table.values.dtype == torch.float64
    assert table.values.is_contiguous()
    assert table.values.numpy() == pytest.approx(XY, rel=1e-7)


@pytest.mark.parametrize("dtype", ["i4", "u1", "?", "f2", "f4"])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".parquet"])
def test_kinds_of_numbers(tmp_path: Path, suffix: str, dtype: str) -> None:
    values = np.array([0, 1, 1], dtype=dtype)
    path = tmp_path / f"points{suffix}"
    write: dict[str, Callable[[Any], bytes]] = {".npy": npy, ".npz": npz, ".parquet": parquet}
    path.write_bytes(write[suffix](values))
    table = read(path)
    assert table.values.tolist() == [[0.0], [1.0], [1.0]]
    assert table.columns == ({".npy": "x0", ".npz": "arr_0", ".parquet": "x"}[suffix],)


def test_booleans_as_pandas_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("True,1.5\nfalse,2\n")
    assert read(path).values.tolist() == [[1.0, 1.5], [0.0, 2.0]]


@pytest.mark.parametrize(
    ("columns", "names", "values"),
    [
        (["c", "a"], ("c", "a"), [[3.0, 1.0], [6.0, 4.0]]),
        ([2, 0], ("c", "a"), [[3.0, 1.0], [6.0, 4.0]]),
        ([2, "a"], ("c", "a"), [[3.0, 1.0], [6.0, 4.0]]),
        (["a"], ("a",), [[1.0], [4.0]]),
    ],
)
def test_columns_are_chosen_in_order_and_others_may_hold_anything(
    tmp_path: Path, columns: list[str | int], names: tuple[str, ...], values: list[list[float]]
) -> None:
    text, frame = tmp_path / "points.csv", tmp_path / "points.parquet"
    text.write_text("a,day,c\n1,monday,3\n4,,6\n")
    frame.write_bytes(parquet([1, 4], ["monday", None], [3, 6], names=("a", "day", "c")))
    for path in (text, frame):
        table = read(path, columns)
        assert table.columns == names
        assert table.values.tolist() == values


@pytest.mark.parametrize(
    ("header", "names", "rows"),
    [("auto", ("x0", "x1"), 2), (False, ("x0", "x1"), 2), (True, ("2019", "2020"), 1)],
)
def test_a_header_of_numbers_can_be_forced(
    tmp_path: Path, header: Header, names: tuple[str, ...], rows: int
) -> None:
    path = tmp_path / "points.csv"
    path.write_text("2019,2020\n1,2\n")
    table = read(path, header=header)
    assert table.columns == names
    assert len(table.values) == rows


def test_a_first_row_of_numbers_is_not_lost_to_a_text_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("1,2,red\n3,4,blue\n")
    with pytest.raises(UserError, match="line 1: numbers beside text"):
        read(path, [0, 1])
    assert read(path, [0, 1], header=False).values.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert read(path, [0, 1], header=True).values.tolist() == [[3.0, 4.0]]


def test_columns_that_are_not_chosen_may_hold_anything(tmp_path: Path) -> None:
    path, long = tmp_path / "points.csv", "x" * 200_000
    path.write_text(f"a,b,b,,\n1,2,,,{long}\n3,4,,,\n \t\n")
    assert read(path, ["a"]).values.tolist() == [[1.0], [3.0]]
    with pytest.raises(UserError, match="columns 1 and 2 are both named 'b'; rename one"):
        read(path, ["b"])


def test_a_blank_line_of_a_single_column_is_a_missing_value(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("a\n1\n\n3\n")
    found = read_table(path, columns=None, header="auto", missing="drop")
    assert (found.values.tolist(), found.rows) == ([[1.0], [3.0]], [0, 2])


def test_a_quoted_comma_separates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text('"Temp, C";Hum\n1.5;2\n3;4\n')
    assert read(path).columns == ("Temp, C", "Hum")


def test_a_column_whose_name_is_a_number_is_named_in_quotes(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("2019,2020,k\n1,2,3\n4,5,6\n")
    assert read(path, ["2020"], header=True).values.tolist() == [[2.0], [5.0]]
    message = "no column 2020; its 3 columns count from 0; for the one of that name write '2020'"
    with pytest.raises(UserError, match=message):
        read(path, [2020], header=True)


@pytest.mark.parametrize("condition", [["who", "age"], [1, 3]])
@pytest.mark.parametrize("columns", [None, ["a", "b"]])
def test_conditions_are_taken_out_and_may_be_text(
    tmp_path: Path, columns: list[str | int] | None, condition: list[str | int]
) -> None:
    text, arrays, frame = (tmp_path / f"points{s}" for s in (".csv", ".npz", ".parquet"))
    text.write_text("a,who,b,age\n1,Ada,2,31\n3,Cid,4,28\n5,Bob,6,45\n")
    columns_of = {"a": [1.0, 3, 5], "who": ["Ada", "Cid", "Bob"], "b": [2.0, 4, 6]}
    columns_of["age"] = [31, 28, 45]
    arrays.write_bytes(npz(**{name: np.array(part) for name, part in columns_of.items()}))
    frame.write_bytes(parquet(*columns_of.values(), names=[*columns_of]))
    for path in (text, arrays, frame):
        table = read(path, columns, condition=condition)
        assert table.columns == ("a", "b")
        assert table.values.tolist() == [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
        assert [*table.given] == ["who", "age"]
        assert table.given["who"].tolist() == ["Ada", "Cid", "Bob"]
        assert [float(age) for age in table.given["age"]] == [31.0, 28.0, 45.0]


def test_rows_that_lack_a_value_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    text, arrays, frame = (tmp_path / f"points{s}" for s in (".csv", ".npz", ".parquet"))
    text.write_text("a,who,b,c\n1,Ada,2,9\n,Bob,4,9\n5,,6,9\n7,Eve,NA,9\n8,Ida,nan,\n9,Una,3,\n")
    hole = math.nan
    columns: dict[str, list[Any]] = {
        "a": [1.0, hole, 5, 7, 8, 9],
        "who": ["Ada", "Bob", "", "Eve", "Ida", "Una"],
        "b": [2.0, 4, 6, hole, hole, 3],
    }
    arrays.write_bytes(npz(**{name: np.array(part) for name, part in columns.items()}))
    columns["a"][1] = columns["who"][2] = None
    frame.write_bytes(parquet(*columns.values(), names=[*columns]))
    for path in (text, arrays, frame):
        asked = partial(read_table, path, header="auto", condition=["who"])
        table = asked(columns=["a", "b"], missing="drop")
        assert table.values.tolist() == [[1.0, 2.0], [9.0, 3.0]]
        assert table.given["who"].tolist() == ["Ada", "Una"]
        assert table.left_out == "4 of 6 rows lack a value and are left out; 2 lack 'b'"
        more = asked(columns=["a"], missing="drop").values
        assert more.flatten().tolist() == [1.0, 7.0, 8.0, 9.0]
        with pytest.raises(MissingError, match="the value is missing; fill it or drop the row"):
            asked(columns=["a", "b"])
    full = tmp_path / "full.csv"
    full.write_text("a,b\n1,2\n3,4\n")
    assert read_table(full, columns=None, header="auto", missing="drop").left_out is None


def test_a_condition_without_a_value_is_refused_as_a_number_is(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("a,who,code,age\n1,Ada,NA,31\n2,,DE,28\n3,Bob,FR, NA\n4,,DE,nan\n")
    read = partial(read_table, path, columns=["a"], header="auto")
    lacking = "the value is missing; fill it or drop the row; so is one in 1 more row"
    assert refusal(lambda: read(condition=["who"])) == f"{path}, line 3, column 'who': {lacking}"
    assert refusal(lambda: read(condition=["age"])) == f"{path}, line 4, column 'age': {lacking}"
    ages = read(condition=["age", "code"], missing="drop")
    assert [float(age) for age in ages.given["age"]] == [31.0, 28.0]
    assert ages.given["code"].tolist() == ["NA", "DE"]  # a text among texts


def test_where_every_row_lacks_a_value_the_emptiest_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("a,b\n1,\n,\n3,\n")
    told = refusal(lambda: read_table(path, columns=None, header="auto", missing="drop"))
    assert told == f"{path}: 3 of 3 rows lack a value and are left out; 3 lack 'b'"
    path.write_text("a,b\n1,\n2,inf\n")
    told = refusal(lambda: read_table(path, columns=None, header="auto", missing="drop"))
    assert told == f"{path}, line 3, column 'b': inf is not finite; mend or drop the row"


def test_a_first_row_that_lacks_a_value_is_not_taken_for_names(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("NA,2\n3,4\n")
    with pytest.raises(UserError, match="line 1: numbers beside text"):
        read(path)
    left = read_table(path, columns=None, header=False, missing="drop")
    assert left.values.tolist() == [[3.0, 4.0]]
    path.write_text("Na,Mg\n3,4\n")
    assert read(path).columns == ("Na", "Mg")


def test_a_text_without_names_beside_a_condition_needs_to_be_told_so(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("1,2,red\n3,4,blue\n")
    with pytest.raises(UserError, match="line 1: numbers beside text"):
        read(path, condition=[2])
    assert read(path, header=False, condition=["x2"]).given["x2"].tolist() == ["red", "blue"]


@pytest.mark.parametrize("label", ["kind", 1])
@pytest.mark.parametrize("columns", [None, ["a", "b"]])
def test_labels_are_taken_out(
    tmp_path: Path, columns: list[str | int] | None, label: str | int
) -> None:
    text, arrays = tmp_path / "points.csv", tmp_path / "points.npz"
    text.write_text("a,kind,b\n1,0,2\n3,1,4\n5,false,6\n")
    a, b = np.array([1.0, 3, 5]), np.array([2.0, 4, 6])
    arrays.write_bytes(npz(a=a, kind=np.array([False, True, False]), b=b))
    for path in (text, arrays):
        table = read(path, columns, label=label)
        assert table.columns == ("a", "b")
        assert table.values.tolist() == [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
        assert table.labels is not None
        assert table.labels.tolist() == [False, True, False]


# --- mistakes in a file -------------------------------------------------------------------------

HOLE = XY.copy()
HOLE[2, 1] = math.nan
MISTAKES: dict[str, tuple[str, bytes, str]] = {
    "empty": (".csv", b"", ": the file is empty"),
    "only blank lines": (".csv", b"\n\n", ": the file is empty"),
    "only a BOM": (".csv", b"\xef\xbb\xbf", ": the file is empty"),
    "a header alone": (".csv", b"a,b\n", ": no rows of numbers"),
    "first line blank": (".csv", b"\na,b\n1,2", ": line 1 is blank"),
    "blank in between": (".csv", b"a,b\n1,2\n\n3,4", ", line 3: blank; delete it"),
    "blanks in between": (".csv", b"a,b\n1,2\n  \n3,4", ", line 3: blank; delete it"),
    "blank in a column": (".csv", b"a\n1\n\n3\n", ", line 3, column 'a': the value is missing"),
    "a dash in the first row": (".csv", b"1,-,3\n4,5,6", ", line 1: numbers beside text: say"),
    "short row": (".csv", b"a,b\n1,2\n3\n", ", line 3: 1 cell, not 2 as in line 1"),
    "long row": (".csv", b"1,2\r\n3,4\r\n5,6,7\r\n", ", line 3: 3 cells, not 2 as in line 1"),
    "text": (".csv", b"a,b\n1,2\n3,four\n", ", line 3, column 'b': 'four' is no number"),
    "underscores": (".csv", b"a,b\n1,2\n3,12_3\n", ", line 3, column 'b': '12_3' is no number"),
    "text without header": (".csv", b"1,2\n3,4\nfive,6", ", line 3, column 'x0': 'five' is no"),
    "after a long name": (".csv", b'"a\nm",b\n1,2\n3,x', ", line 4, column 'b': 'x' is no number"),
    "empty cell": (".csv", b"a,b\n1,2\n3,\n", ", line 3, column 'b': the value is missing; fi"),
    "first cell empty": (".csv", b",2\n1,2\n", ", line 1, column 'x0': the value is missing"),
    "blank cell": (".tsv", b"a\tb\n1\t2\n \t4\n", ", line 3, column 'a': the value is missing"),
    "empty cells": (
        ".csv", b"a,b\n1,2\n3,\n,\n5,6\n,1\n",
        ", line 3, column 'b': the value is missing; fill it or drop the row; so is one in 2 m",
    ),
    "nans": (
        ".csv", b"a,b\n1,nan\nnan,4\n",
        ", line 2, column 'b': the value is missing; fill it or drop the row; so is one in 1 m",
    ),
    "a column of text": (
        ".csv", b"a,b\n1,fox\n",
        ", line 2, column 'b': 'fox' is no number; choose the other columns, or take it as a",
    ),
    "last cell of a tsv": (".tsv", b"a\tb\n1\t\n", ", line 2, column 'b': the value is missing"),
    "nan": (".csv", b"a,b\n1,2\nnan,4\n", ", line 3, column 'a': the value is missing; fill"),
    "nan first": (".csv", b"nan,4\n1,2", ", line 1, column 'x0': the value is missing"),
    "inf": (".csv", b"a,b\n1,2\n3,-inf\n", ", line 3, column 'b': -inf is not finite"),
    "too large": (".csv", b"a,b\n1,1e999\n", ", line 2, column 'b': inf is not finite"),
    "latin-1": (".csv", "a,b\n1,2\ngrün,3".encode("latin-1"), ", line 3: not UTF-8 text; save"),
    "utf-16": (".csv", "a,b\n1,2".encode("utf-16"), ", line 1: not UTF-8 text"),
    "bars": (".csv", b"a|b\n1|2", ", line 1: one column, 'a|b'; .csv means cells separated by"),
    "semicolons in a tsv": (".tsv", b"a;b\n1;2", ", line 1: one column, 'a;b'; .tsv means cells"),
    "tabs in a csv": (".csv", b"1\t2\n", ", line 1: one column, '1\\t2'; .csv means cells sep"),
    "commas in a tsv": (".tsv", b"a,b\n1,2", ", line 1: one column, 'a,b'; .tsv means cells separ"),
    "decimal commas": (".csv", b"1,5;2,5\n3,5;4,5", ", line 2, column '5;2': '5;4' is no number;"),
    "decimal commas under names": (
        ".csv", b"a;b\n1,5;2,5\n",
        ", line 2, column 'a': '1,5' is no number; .csv means cells separated by commas or "
        "semicolons, and numbers with a decimal point",
    ),
    "blanks": (".csv", b"a b\n1 2\n", ", line 2, column 'a b': '1 2' is no number; .csv means"),
    "open quote": (".csv", b'a,b\n1,2\n"3,4\n5,6\n', ", line 3: a quoted cell does not end"),
    "text after a quote": (".csv", b'a,b\n"1"x,2\n', ", line 2: a quoted cell does not end, or te"),
    "names twice": (".csv", b"a,b,a\n1,2,3\n", ": columns 0 and 2 are both named 'a'; rename one"),
    "an index of pandas": (
        ".parquet", parquet(*XY.T, names=("a", "__index_level_0__")), ": column 1 has no name"
    ),
    "names missing": (
        ".csv", b"a,b,,\n1,2,,\n", ": columns 2 and 3 have no name; choose the others: 'a', 'b'"
    ),
    "an index": (".csv", b",a,b\n0,1,2\n", ": column 0 has no name, as an index"),
    "3-D": (".npy", npy(np.zeros((2, 3, 4))), ": the array has shape (2, 3, 4); use (rows,) or"),
    "0-D": (".npy", npy(np.zeros(())), ": the array has shape (); use (rows,) or (rows, columns)"),
    "no columns": (".npy", npy(np.zeros((5, 0))), ": no columns"),
    "no rows": (".npy", npy(np.zeros((0, 2))), ": no rows of numbers"),
    "nan in an array": (".npy", npy(HOLE), ", row (from 0) 2, column 'x1': the value is missing"),
    "complex": (".npy", npy(XY + 1j), ", column 'x0': complex128 is no kind of real number"),
    "strings": (".npy", npy(XY.astype(str)), ", column 'x0': <U32 is no kind of real number"),
    "dates": (".npy", npy(np.zeros(3, "M8[s]")), ", column 'x0': datetime64[s] is no kind of"),
    "objects": (".npy", npy(XY.astype(object)), ": Python objects are not read; save an array of"),
    "cut npy": (".npy", npy(XY)[:-8], ": no whole .npy file; was it cut short?"),
    "cut header": (".npy", npy(XY)[:20], ": no whole .npy file; was it cut short?"),
    "empty npy": (".npy", b"", ": no whole .npy file; was it cut short?"),
    "absurd npy": (".npy", npy(XY).replace(b"(3, 2), ", b"(3e9,), "), ": no whole .npy file"),
    "text as npy": (".npy", b"1,2\n3,4\n", ": no whole .npy file; was it cut short?"),
    "pickle as npy": (".npy", pickle.dumps(XY), ": no whole .npy file; was it cut short?"),
    "cut npz": (".npz", npz(XY)[:-30], ": no whole .npz file; was it cut short?"),
    "empty npz": (".npz", b"", ": no whole .npz file; was it cut short?"),
    "npy as npz": (".npz", npy(XY), ": no whole .npz file; was it cut short?"),
    "objects in npz": (".npz", npz(XY.astype(object)), ": Python objects are not read; save an"),
    "nothing in npz": (".npz", npz(), ": no columns"),
    "different rows": (".npz", npz(a=XY, b=XY[:2, 0]), ": the arrays differ in rows: 'a' has 3, '"),
    "a number in npz": (".npz", npz(a=XY, b=3.0), ": array 'b' has shape (); use (rows,) or (rows"),
    "names meet": (".npz", npz(a=XY, a1=XY[:, 0]), ": two arrays give a column 'a1'; rename one"),
    "inf in npz": (".npz", npz(a=XY[:, 0], b=XY[:, 1] * math.inf), ", row (from 0) 0, col"),
    "nan in parquet": (".parquet", parquet([1.0, 2], [3, math.nan]), ", row (from 0) 1, column 'y"),
    "null in parquet": (".parquet", parquet([1, None], [3, 4]), ", row (from 0) 1, column 'x'"),
    "text in parquet": (".parquet", parquet([1, 2], ["a", "b"]), ", column 'y': string is no kind"),
    "cut parquet": (".parquet", parquet([1, 2])[:-10], ": no whole .parquet file; was it cut sho"),
    "no parquet": (".parquet", b"1,2\n3,4\n", ": no whole .parquet file; was it cut short?"),
    "empty parquet": (".parquet", parquet(np.zeros(0)), ": no rows of numbers"),
    "no columns in parquet": (".parquet", parquet(), ": no columns"),
    "parquet names twice": (".parquet", parquet([1], [2], names="xx"), ": columns 0 and 1 are bot"),
    "unknown suffix": (".xlsx", b"PK", ": '.xlsx' is unknown; use .csv, .tsv, .npy, .npz, .parqu"),
    "no suffix": ("", b"1,2", ": 'no suffix' is unknown; use .csv, .tsv, .npy, .npz, .parquet"),
}  # fmt: skip


def refusal(action: Callable[[], Any]) -> str:
    """Return what the user is told, one line."""
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_in_a_file_is_told_in_one_line(tmp_path: Path, case: str) -> None:
    suffix, content, expected = MISTAKES[case]
    path = tmp_path / f"points{suffix}"
    path.write_bytes(content)
    assert refusal(lambda: read(path)).startswith(f"{path}{expected}")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for missing in (tmp_path / "points.csv", tmp_path / "moons"):
        assert refusal(partial(read, missing)) == f"{missing}: no such file"
    assert refusal(lambda: read(tmp_path)) == f"{tmp_path}: this is a folder; name a file"


def test_a_foreign_member_of_an_npz(tmp_path: Path) -> None:
    path = tmp_path / "points.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "none")
    assert "the array has shape none" in refusal(lambda: read(path))


def test_a_damaged_member_of_an_npz(tmp_path: Path) -> None:
    path = tmp_path / "points.npz"
    content = bytearray(npz(np.zeros((100, 2))))
    content[500] ^= 0xFF  # the checksum tells
    path.write_bytes(content)
    assert refusal(lambda: read(path)) == f"{path}: no whole .npz file; was it cut short?"


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "points.csv"
    path.write_text(CSV)

    def deny(path: Path, header: Header) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setitem(READERS, ".csv", deny)
    assert refusal(lambda: read(path)) == f"{path}: Permission denied"


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "points.parquet"
    path.write_bytes(parquet([1.0]))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'flowtrain[parquet]'" in refusal(lambda: read(path))


# --- mistakes in what is asked for --------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"columns": ["a", "c"]}, ": no column 'c'; it has 'a', 'b', 'kind'"),
        ({"columns": [0, 3]}, ": no column 3; its 3 columns count from 0"),
        ({"columns": [-1]}, ": no column -1; its 3 columns count from 0"),
        ({"columns": ["a", "b", "a"]}, ": column 'a' is chosen twice"),
        ({"columns": ["b", 1]}, ": column 'b' is chosen twice"),
        ({"condition": ["kind", "kind"]}, ": column 'kind' is chosen twice"),
        ({"condition": ["b"], "columns": ["a", "b"]}, ": column 'b' is a condition, it cannot be"),
        (
            {"condition": ["kind"], "label": "kind"},
            ": column 'kind' is the label, it cannot",
        ),
        ({"condition": ["nobody"]}, ": no column 'nobody'; it has"),
        ({"columns": []}, ": no column is chosen; it has 'a', 'b', 'kind'"),
        ({"columns": ["a", "kind"], "label": "kind"}, ": column 'kind' is the label, it cannot be"),
        ({"label": "sort"}, ": no column 'sort'; it has 'a', 'b', 'kind'"),
        (
            {"columns": ["a"], "label": "b"},
            ", line 3, column 'b': 2 is no label; use 0 (normal) and 1 (anomaly)",
        ),
        ({"label": "kind"}, ", line 3, column 'kind': 'odd' is no number"),
        ({"header": False}, ", line 1, column 'x0': 'a' is no number"),
    ],
)
def test_a_wrong_choice_is_told_in_one_line(
    tmp_path: Path, asked: dict[str, Any], expected: str
) -> None:
    path = tmp_path / "points.csv"
    path.write_text("a,b,kind\n1,1,0\n2,2,odd\n")
    assert refusal(lambda: read(path, **asked)).startswith(f"{path}{expected}")


def test_a_label_that_is_none_in_an_array(tmp_path: Path) -> None:
    path = tmp_path / "points.npy"
    path.write_bytes(npy(np.array([[1.0, 1], [2, 0], [3, -1]])))
    assert ", row (from 0) 2, column 'x1': -1 is no label" in refusal(lambda: read(path, label=1))
    path.write_bytes(npy(np.array([1.0, 0.0])))
    assert ": no column is chosen; it has 'x0'" in refusal(lambda: read(path, label=0))


def test_a_header_has_no_effect_on_arrays(tmp_path: Path) -> None:
    path = tmp_path / "points.npy"
    path.write_bytes(npy(XY))
    assert "header=True has no effect on .npy" in refusal(lambda: read(path, header=True))


def test_many_columns_are_not_all_listed(tmp_path: Path) -> None:
    path = tmp_path / "points.npy"
    path.write_bytes(npy(np.zeros((2, 64))))
    assert refusal(lambda: read(path, ["z"])).endswith("'x8', 'x9', ...")
