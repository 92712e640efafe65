"""Points in memory: arrays, tensors and data frames become the same table, or are refused."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from flowtrain.data.frame import as_table, holds, save_points
from flowtrain.data.read import read_table
from flowtrain.errors import UserError

VALUES = [[1.5, 2.0], [3.0, 4.0], [0.0, -1.0]]


class Frame:
    """What pandas and polars have in common: column names, and columns by name."""

    def __init__(self, columns: dict[Any, Any]) -> None:
        self.columns = list(columns)
        self.by_name = columns

    def __getitem__(self, name: Any) -> Any:
        return self.by_name[name]


@pytest.mark.parametrize(
    "x",
    [
        VALUES,
        np.array(VALUES),
        np.array(VALUES, dtype=np.float32),
        np.array(VALUES, order="F"),
        np.array(VALUES, dtype=object),
        torch.tensor(VALUES, requires_grad=True),
        torch.tensor(VALUES, dtype=torch.bfloat16),
        pa.table({"x0": [1.5, 3.0, 0.0], "x1": [2, 4, -1]}),
        Frame({"x0": np.array([1.5, 3.0, 0.0]), "x1": np.array([2, 4, -1])}),
        Frame({0: [1.5, 3.0, 0.0], 1: [Decimal(2), Decimal(4), -1]}),
    ],
    ids=lambda x: type(x).__name__,
)
def test_points_of_every_kind_are_the_same_table(x: Any) -> None:
    table = as_table(x)
    assert (table.values.tolist(), table.columns) == (VALUES, ("x0", "x1"))
    assert table.values.dtype == torch.float64
    assert as_table(x, columns=["x1"]).values.tolist() == [[2.0], [4.0], [-1.0]]
    assert as_table(x, columns=[1, 0]).columns == ("x1", "x0")


def test_one_dimension_is_one_column() -> None:
    assert as_table(torch.arange(3)).values.tolist() == [[0.0], [1.0], [2.0]]
    assert as_table(np.array([True, False])).values.tolist() == [[1.0], [0.0]]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_with_names_and_missing_values(library: str) -> None:
    frames = pytest.importorskip(library)
    frame = frames.DataFrame({"height": [1.5, 2.5], "age": [3, 4], "city": ["Bern", "Rom"]})
    table = as_table(frame, columns=["height", "age"])
    assert table.columns == ("height", "age")
    assert table.values.tolist() == [[1.5, 3.0], [2.5, 4.0]]
    with pytest.raises(UserError, match=r"column 'city'.*choose other columns"):
        as_table(frame)
    dtype = {"dtype": "Int64"} if library == "pandas" else {}
    missing = frames.DataFrame({"age": frames.Series([3, None], **dtype)})
    with pytest.raises(UserError, match=r"x, row \(from 0\) 1, column 'age'"):
        as_table(missing)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[1.0, np.nan]], "x, row (from 0) 0, column 'x1': the value is missing; "
         "fill it or drop the row"),
        ([1.0, -np.inf], "x, row (from 0) 1, column 'x0': -inf is not finite; "
         "mend or drop the row"),
        (np.ma.masked_equal([1.0, 2.0], 2.0), "x, row (from 0) 1, column 'x0': the value is "
         "missing; fill it or drop the row"),
        (np.zeros((0, 2)), "x has no rows"),
        (np.zeros((2, 0)), "x: no column is chosen; it has none"),
        (np.zeros((2, 2, 2)), "x has shape (2, 2, 2); use (rows, columns)"),
        (3.0, "x has shape (); use (rows, columns)"),
        ("p.csv", "x is text; of a file: flowtrain.train(['data=table', 'data.path=p.csv'])"),
        (np.array([1j]), "x, column 'x0': complex128 is no kind of real number; "
         "choose other columns"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), "x, column 'x0': datetime64[D] is no "
         "kind of real number; choose other columns"),
        (np.array([1.0, "2"], dtype=object), "x, row (from 0) 1, column 'x0': '2' is no number; "
         "mend or drop the row, or choose other columns"),
        (np.array([1.0, None], dtype=object), "x, row (from 0) 1, column 'x0': None is no number; "
         "mend or drop the row, or choose other columns"),
        (Frame({0: [1.0], "x0": [2.0]}), "x has two columns 'x0'; rename one"),
    ],
)  # fmt: skip
def test_what_is_no_finite_number_is_refused_with_its_place(x: Any, message: str) -> None:
    with pytest.raises(UserError) as told:
        as_table(x)
    assert str(told.value) == message


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["x2"], "x has no column 'x2'; it has 'x0', 'x1'"),
        ([2], "x has no column 2; its 2 columns count from 0"),
        (["x0", 0], "x: a column is chosen twice: 'x0', 'x0'"),
        ([], "x: no column is chosen; it has 'x0', 'x1'"),
    ],
)
def test_columns_that_are_not_there_are_refused(columns: list[Any], message: str) -> None:
    with pytest.raises(UserError) as told:
        as_table(VALUES, columns)
    assert str(told.value) == message


def test_what_a_run_keeps_reads_back_bit_for_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(50, 3)) * 1e9
    names = ["sepal length (cm)", "file", "1/x"]
    table = as_table(Frame(dict(zip(names, values.T, strict=True))))
    save_points(tmp_path / "points.npz", table)
    kept = read_table(tmp_path / "points.npz", columns=None, header="auto")
    assert kept.columns == tuple(names)
    assert torch.equal(kept.values, torch.from_numpy(values))
    assert holds(tmp_path / "points.npz", table)
    assert not holds(tmp_path / "points.npz", as_table(values))


LABELS = ["a", "b", "a"]


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        (LABELS, {"c0": LABELS}),
        (np.array(LABELS), {"c0": LABELS}),
        (torch.tensor([1, 2, 1]), {"c0": [1, 2, 1]}),
        (np.array([[1.5, 2.0], [3.0, 4.0], [0.0, -1.0]]), {"c0": [1.5, 3, 0], "c1": [2, 4, -1]}),
        ({"kind": LABELS, "age": [3, 4, 5]}, {"kind": LABELS, "age": [3, 4, 5]}),
        (Frame({"kind": LABELS, 1: [3, 4, 5]}), {"kind": LABELS, "c1": [3, 4, 5]}),
        (np.array([Decimal(3), 1, 2], dtype=object), {"c0": [3.0, 1.0, 2.0]}),
        (np.array(["01", 1, 2], dtype=object), {"c0": ["01", "1", "2"]}),
        (np.array([True, False, True]), {"c0": [True, False, True]}),
    ],
)
def test_a_context_of_every_kind_is_kept_by_name_beside_the_points(
    tmp_path: Path, context: Any, expected: dict[str, list[Any]]
) -> None:
    table = as_table(VALUES, context=context)
    assert table.values.tolist() == VALUES
    assert {name: column.tolist() for name, column in table.given.items()} == expected
    file = tmp_path / "points.npz"
    save_points(file, table)
    kept = read_table(file, columns=None, header="auto", condition=[*expected])
    assert torch.equal(kept.values, table.values)
    assert {name: column.tolist() for name, column in kept.given.items()} == expected
    assert holds(file, table)
    assert not holds(file, as_table(VALUES))
    others = {name: np.roll(column, 1) for name, column in table.given.items()}
    assert not holds(file, as_table(VALUES, context=others))


def test_a_series_keeps_its_name() -> None:
    pandas = pytest.importorskip("pandas")
    series = pandas.Series(["a", "b", "a"], name="kind", dtype="category")
    assert {n: c.tolist() for n, c in as_table(VALUES, context=series).given.items()} == {
        "kind": LABELS
    }


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (["a", "b"], "x has 3 rows, context 'c0' has shape (2,)"),
        ({"k": np.zeros((3, 2))}, "x has 3 rows, context 'k' has shape (3, 2)"),
        (np.zeros((3, 1, 1)), "context has shape (3, 1, 1); use (rows, columns)"),
        ({"x1": LABELS}, "'x1': a name of both x and context; rename one"),
        (["a", None, "b"], "condition 'c0', row (from 0) 1: the value is missing; fill it or "
         "drop the row"),
        ([1.0, np.nan, 2.0], "condition 'c0', row (from 0) 1: the value is missing; fill it or "
         "drop the row"),
    ],
)  # fmt: skip
def test_a_context_that_does_not_fit_is_refused(context: Any, message: str) -> None:
    with pytest.raises(UserError) as told:
        as_table(VALUES, context=context)
    assert str(told.value) == message
