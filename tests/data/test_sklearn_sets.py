"""The sets that come with scikit-learn, and the bits that the digits are counted in."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from flowtrain.data.check import check_rows
from flowtrain.data.condition import ContextEncoder
from flowtrain.data.condition_column import Category, Number
from flowtrain.data.sklearn_sets import SETS, load_sklearn
from flowtrain.errors import UserError
from flowtrain.evaluation.metrics import bits_per_dimension

SHAPES = {
    "digits": (1797, 64),
    "iris": (150, 4),
    "wine": (178, 13),
    "breast_cancer": (569, 30),
    "diabetes": (442, 10),
}


@pytest.mark.parametrize("name", SETS)
def test_sets_of_scikit_learn(name: str) -> None:
    table = load_sklearn(name)
    assert table.values.shape == SHAPES[name]
    assert table.values.dtype == torch.float64
    assert len(set(table.columns)) == SHAPES[name][1]
    assert table.levels == (17 if name == "digits" else None)
    if name != "digits":  # they alone are drawn from the seed
        assert torch.equal(table.values, load_sklearn(name, seed=1).values)
    check_rows(table.values, table.columns)


def test_digits_are_dequantised_by_their_seed() -> None:
    first, again, other = (load_sklearn("digits", seed=seed).values for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.min()) >= 0
    assert float(first.max()) < 1
    pixels: NDArray[np.float64] = load_digits().data
    assert np.array_equal(np.floor(17 * first.numpy()), pixels)
    rest = (17 * first).frac()
    assert float(rest.mean()) == pytest.approx(0.5, abs=0.005)  # standard error 0.0009
    assert float(rest.var()) == pytest.approx(1 / 12, abs=0.002)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("digits", {*map(str, range(10))}),
        ("iris", {"setosa", "versicolor", "virginica"}),
        ("wine", {"class_0", "class_1", "class_2"}),
        ("breast_cancer", {"malignant", "benign"}),
        ("diabetes", None),
    ],
)
def test_points_given_the_target_know_their_class_or_number(
    name: str, known: set[str] | None
) -> None:
    table = load_sklearn(name, condition="target")
    assert torch.equal(table.values, load_sklearn(name).values)
    (column,) = ContextEncoder.fit(table.given).columns
    assert column.name == "target"
    if known is None:
        assert isinstance(column, Number)
    else:
        assert isinstance(column, Category)
        assert {*column.values} == known
    assert load_sklearn(name).given == {}


def test_an_unknown_set_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        load_sklearn("mnist")
    assert str(caught.value) == (
        "'mnist' is no set of scikit-learn's; choose from "
        "digits, iris, wine, breast_cancer, diabetes"
    )


def test_the_uniform_density_needs_the_bits_of_its_levels() -> None:
    assert bits_per_dimension(0.0, dim=64, levels=17) == pytest.approx(math.log2(17), rel=1e-15)
    assert bits_per_dimension(0.0, dim=1, levels=256) == 8


def test_bits_of_a_density_that_is_constant_in_each_cell_are_the_entropy_of_the_levels() -> None:
    """Pixels with independent levels: a discrete density whose code length is known."""
    generator = torch.Generator().manual_seed(0)
    levels = torch.rand(3, 17, generator=generator, dtype=torch.float64).softmax(1)
    entropy_bits = -float((levels * levels.log2()).sum()) / 3
    # Dequantised, a level of probability P has density 17 P on a cell of length 1 / 17.
    nll = -float((levels * (17 * levels).log()).sum())
    assert bits_per_dimension(nll, dim=3, levels=17) == pytest.approx(entropy_bits, rel=1e-12)
