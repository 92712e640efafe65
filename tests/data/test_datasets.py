"""Points without a known law: splits, doubts about them, and scikit-learn's sets."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from flowtrain.data.datasets import bits_per_dimension, check, load_sklearn, split
from flowtrain.errors import UserError


def refusal(action: Callable[[], Any]) -> str:
    """Return what the user is told, one line."""
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


# --- splitting and checking ---------------------------------------------------------------------


def test_split_deals_every_row_once_by_its_seed() -> None:
    values = torch.arange(200.0).reshape(100, 2)
    parts = split(values, validation=0.1, test=0.25, seed=3)
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 65, "validation": 10, "test": 25,
    }  # fmt: skip
    dealt = torch.cat([*parts.values()])
    assert not torch.equal(dealt, values)
    assert torch.equal(dealt[dealt[:, 0].argsort()], values)
    again = split(values, validation=0.1, test=0.25, seed=3)
    other = split(values, validation=0.1, test=0.25, seed=4)
    assert all(torch.equal(parts[name], again[name]) for name in parts)
    assert not torch.equal(parts["test"], other["test"])


@pytest.mark.parametrize(
    ("rows", "validation", "test", "expected"),
    [
        (12, 0.1, 0.2, "leave 1 for validation; each part needs 2"),
        (12, 0.2, 0.0, "leave 0 for test; each part needs 2"),
        (10, 0.5, 0.5, "leave 0 for train; each part needs 2"),
        (10, 0.8, 0.8, "leave 0 for train; each part needs 2"),
        (1, 0.1, 0.1, "1 rows with validation=0.1 and test=0.1 leave 1 for train"),
    ],
)
def test_split_refuses_parts_without_rows(
    rows: int, validation: float, test: float, expected: str
) -> None:
    values = torch.zeros(rows, 2)
    assert expected in refusal(lambda: split(values, validation=validation, test=test, seed=0))


def normal(n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_check_has_nothing_to_say_about_good_points() -> None:
    assert check(normal(150, 3), ["a", "b", "c"]) == []


def test_check_refuses_constant_columns() -> None:
    values = normal(200, 3)
    values[:, 0], values[:, 2] = 7.0, 0.0
    assert "without a density: 'a', 'c'; choose" in refusal(lambda: check(values, ["a", "b", "c"]))


def test_check_warns_of_rows_that_repeat() -> None:
    values = normal(200, 2)
    values[10:15] = values[0]
    values[20], values[21] = torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0])
    (warning,) = check(values, ["a", "b"])
    assert warning.startswith("6 of 200 rows (3 %) repeat another")


def test_check_warns_of_few_rows() -> None:
    (warning,) = check(normal(149, 3), ["a", "b", "c"])
    assert warning.startswith("149 rows for 3 columns are few")


# --- scikit-learn's sets ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("digits", (1797, 64)),
        ("iris", (150, 4)),
        ("wine", (178, 13)),
        ("breast_cancer", (569, 30)),
    ],
)
def test_sets_of_scikit_learn(name: str, shape: tuple[int, int]) -> None:
    table = load_sklearn(name, generator=torch.Generator().manual_seed(0))
    assert table.values.shape == shape
    assert table.values.dtype == torch.float64
    assert len(set(table.columns)) == shape[1]
    check(table.values, table.columns)


def test_digits_are_dequantised_by_the_generator() -> None:
    first, again, other = (
        load_sklearn("digits", generator=torch.Generator().manual_seed(seed)).values
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.min()) >= 0
    assert float(first.max()) < 1
    pixels: NDArray[np.float64] = load_digits().data
    assert np.array_equal(np.floor(17 * first.numpy()), pixels)
    rest = (17 * first).frac()
    assert float(rest.mean()) == pytest.approx(0.5, abs=0.005)  # standard error 0.0009
    assert float(rest.var()) == pytest.approx(1 / 12, abs=0.002)


def test_an_unknown_set_is_refused() -> None:
    message = refusal(lambda: load_sklearn("mnist", generator=torch.Generator()))
    assert message == (
        "'mnist' is no set of scikit-learn's; choose from digits, iris, wine, breast_cancer"
    )


def test_the_uniform_density_needs_the_bits_of_its_levels() -> None:
    assert bits_per_dimension(0.0, dim=64, levels=17) == pytest.approx(math.log2(17), rel=1e-15)
    assert bits_per_dimension(0.0, dim=1, levels=256) == 8


def test_bits_of_a_density_that_is_constant_in_each_cell_are_the_entropy_of_the_levels() -> None:
    """Pixels with independent levels: a discrete law whose code length is known."""
    generator = torch.Generator().manual_seed(0)
    levels = torch.rand(3, 17, generator=generator, dtype=torch.float64).softmax(1)
    entropy_bits = -float((levels * levels.log2()).sum()) / 3
    # Dequantised, a level of probability P has density 17 P on a cell of length 1 / 17.
    nll = -float((levels * (17 * levels).log()).sum())
    assert bits_per_dimension(nll, dim=3, levels=17) == pytest.approx(entropy_bits, rel=1e-12)
