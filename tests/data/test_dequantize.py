"""Columns on a grid become densities whose NLL bounds what the values as written are worth."""

import math

import numpy as np
import pytest
import torch

from flowtrain.data.dequantize import dequantize, grid_step
from flowtrain.data.read import Table
from flowtrain.data.sklearn_sets import load_sklearn


def drawn(n: int = 400) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(n)


@pytest.mark.parametrize(
    ("values", "step"),
    [
        (np.round(10 * drawn()), 1.0),
        (1.6e9 + np.round(10 * drawn()), 1.0),
        (np.round(drawn(), 2), 0.01),
        (100 * np.round(3 * drawn()) - 7, 100.0),
        ((drawn() > 0) * 0.0951, 0.0951),
        (np.float32(np.round(drawn(), 1)).astype(float), 0.1),
        (drawn(), 0.0),
        (np.where(drawn() > 0, drawn(), 0.0), 0.0),  # half of them are zero
        (np.where(drawn() > 0, 1e-5 * drawn(), 0.0), 0.0),  # all of them next to a whole number
        (7 + 1e-5 * np.repeat(drawn(), 2), 0.0),
        (np.repeat([0.1 + 0.2, 0.3, 0.4, 0.1], 100), 0.1),  # the first two differ by a rounding
        (np.append(drawn(), 1e30), 0.0),  # beside which the others are one rounding
        (np.repeat([0.0, 0.1 * 3 - 0.3, 0.1, 0.2], 100), 0.1),  # so do these, next to 0
        (np.ones(400), 0.0),
        (np.arange(400.0), 0.0),  # none is repeated: as good as a density already
    ],
)
def test_the_step_of_a_grid_is_found(values: np.ndarray, step: float) -> None:
    assert grid_step(values) == pytest.approx(step, rel=1e-5)


def test_a_value_is_the_middle_of_its_cell_and_the_seed_decides() -> None:
    values = torch.from_numpy(np.stack([np.round(3 * drawn()), drawn()], 1))
    table = Table(values, columns=("count", "length"))
    once, notes = dequantize(table)
    apart = (once.values - values)[:, 0]
    assert apart.abs().max() <= 0.5
    assert apart.mean().item() == pytest.approx(0, abs=0.05)
    assert apart.var().item() == pytest.approx(1 / 12, rel=0.1)
    assert torch.equal(once.values[:, 1], values[:, 1])
    assert torch.equal(once.values, dequantize(table)[0].values)
    assert not torch.equal(once.values, dequantize(table, seed=1)[0].values)
    assert notes == [
        "dequantised: 'count' (step 1). NLLs are of the rows with uniform noise of a step around "
        "each value; add +0.0000 nats for a bound on the NLL of the rows as written"
    ]


def test_the_bound_is_that_of_the_rows_as_written() -> None:
    """Of a coin worth log 2 nats, under the density that is flat on its two cells."""
    values = torch.tensor([0.0, 2.0]).double().repeat(500)[:, None]
    table, notes = dequantize(Table(values, columns=("coin",)))
    inside = (table.values > -1) & (table.values < 3)
    assert inside.all()
    nll = math.log(4)  # flat on [-1, 3]
    told = float(notes[0].split("add ")[1].split(" nats")[0])
    assert nll + told == pytest.approx(math.log(2), abs=1e-4)


def test_copies_are_named_before_noise_tells_them_apart() -> None:
    rounded = np.round(np.stack([drawn(), drawn()[::-1]], 1), 3)
    copied = torch.from_numpy(np.repeat(rounded[:60], 5, axis=0))
    _, notes = dequantize(Table(copied, columns=("a", "b")))
    assert notes[1].startswith("240 of 300 rows (80 %) repeat another: if they are copies, train")


def test_rows_that_are_equal_by_chance_are_no_copies() -> None:
    few = torch.from_numpy(np.round(np.stack([drawn(), drawn()[::-1]], 1)))
    _, notes = dequantize(Table(few, columns=("a", "b")))
    assert len(notes) == 1
    _, notes = dequantize(Table(few[:, :1], columns=("a",)))
    assert len(notes) == 1


def test_what_is_doubtful_is_named() -> None:
    half = np.where(drawn() > 0, drawn(), 0.0)
    rare = (np.arange(400) < 3).astype(float)
    values = torch.from_numpy(np.stack([half, rare, drawn()], 1))
    _, notes = dequantize(Table(values, columns=("half", "rare", "fine")))
    assert notes[1].startswith("values repeat, but lie on no grid: 'half';")
    assert notes[2] == "nearly constant, one value in over 95% of the rows: 'rare'"
    numbered = torch.from_numpy(np.stack([np.arange(400) + 1.0, drawn()], 1))
    _, notes = dequantize(Table(numbered, columns=("id", "fine")))
    assert notes[0].startswith(
        "rises by the same step from row to row, as the number of a row: 'id'"
    )
    assert len(notes) == 1


def test_iris_was_measured_to_a_millimetre() -> None:
    iris = load_sklearn("iris")
    table, notes = dequantize(iris)
    assert (table.values - iris.values).abs().max() <= 0.05 + 1e-12
    assert "'sepal length (cm)' (step 0.1)" in notes[0]
    assert "add +9.2103 nats" in notes[0]  # -4 log 0.1
