"""Rows that make a likelihood doubtful, or impossible."""

import pytest
import torch

from flowtrain.data.check import check_rows, refuse_constant
from flowtrain.errors import UserError


def normal(n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_good_points_raise_no_doubt() -> None:
    assert check_rows(normal(150, 3), ["a", "b", "c"]) == []


def test_constant_columns_are_refused() -> None:
    values = normal(200, 3)
    values[:, 0], values[:, 2] = 7.0, 0.0
    with pytest.raises(UserError, match="without a density: 'a', 'c'; choose"):
        refuse_constant(values, ["a", "b", "c"])


def test_a_warning_names_rows_that_repeat() -> None:
    values = normal(200, 2)
    values[10:15] = values[0]
    values[20], values[21] = torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0])
    (warning,) = check_rows(values, ["a", "b"])
    assert warning.startswith("6 of 200 rows (3 %) repeat another")


def test_a_warning_names_columns_that_follow_from_others() -> None:
    values = normal(400, 4)
    values[:, 2] = 1e6 * (3 * values[:, 0] - values[:, 3]) + 7
    (warning,) = check_rows(values, ["a", "b", "sum", "d"])
    assert warning.startswith("linear functions of one another: 'a', 'sum', 'd': a flow can raise")
    values[:, 2] += 1e2 * normal(500, 1)[100:, 0]  # a ten-thousandth of it
    assert check_rows(values, ["a", "b", "sum", "d"]) == []
    assert check_rows(1e300 * values, ["a", "b", "sum", "d"]) == []


def test_a_warning_names_few_rows() -> None:
    (warning,) = check_rows(normal(149, 3), ["a", "b", "c"])
    assert warning.startswith("149 rows for 3 columns are few")
