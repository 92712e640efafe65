"""Numbers that are hard to compute with: a run trains on them, or says in one line why not."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytestmark = pytest.mark.faults

Hold = Callable[..., str]

BRIEF = (
    "trainer=debug", "trainer.device=cpu", "trainer.figures=false", "trainer.batch_size=64",
    "trainer.log_every=1", "hydra.run.dir=run",
)  # fmt: skip
FFJORD = ("model=ffjord", "model.width=8", "model.depth=1", "solver@evaluation.solver=dopri5")
MODELS = {
    "realnvp": ("model=realnvp", "model.couplings=2", "model.hidden=8"),
    "spline": ("model=spline", "model.couplings=2", "model.hidden=8"),
    "maf": ("model=maf", "model.layers=2", "model.hidden=8"),
    "ffjord": (*FFJORD, "objective=maximum_likelihood", "solver=dopri5"),
    "flow matching": (*FFJORD, "objective=flow_matching"),
}
FAR = "cannot be told apart"
# Rows of a table, and what the run says of them; None where it trains.
TABLES: dict[str, tuple[Callable[[], NDArray[np.float64]], str | None]] = {
    "1 row": (lambda: rows()[:1], "constant"),
    "2 rows": (lambda: rows()[:2], "each split needs 2"),
    "20 rows": (lambda: rows()[:20], None),
    "200 columns": (lambda: noise(300, 200), None),
    "200 columns of 30 rows": (lambda: noise(30, 200), None),
    "four points, each a hundred times": (lambda: rows()[:4].repeat(100, 0), None),
    "half of the rows are one": (lambda: rows()[[*range(200), *[0] * 200]], None),
    "a constant column": (lambda: with_column(3.0), "constant, so without a density: 'x3'"),
    "only zeros of both signs": (lambda: 0.0 * rows(), "constant"),
    "a column constant but in few rows": (lambda: with_column(nearly_constant()), None),
    "a column twice": (lambda: with_column(rows()[:, 0]), None),
    "1e30": (lambda: 1e30 * rows(), None),
    "1e-30": (lambda: 1e-30 * rows(), None),
    "1e30 beside 1e-30": (lambda: rows() * [1e30, 1, 1e-30], None),
    "1e300": (lambda: 1e300 * rows(), None),
    "1e-300": (lambda: 1e-300 * rows(), None),
    "1e30 and one": (lambda: 1e30 + rows(), "constant"),
    "one row of 1e30": (lambda: np.r_[rows()[1:], [[1e30] * 3]], FAR),
    "Cauchy": (lambda: np.random.default_rng(0).standard_cauchy((400, 3)), None),
    "log-normal over 20 decades": (lambda: np.exp(8 * rows()), None),
    "NaN": (lambda: np.r_[rows(), [[0, np.nan, 0]]], "the value is missing"),
    "infinity": (lambda: np.r_[rows(), [[0, -np.inf, 0]]], "-inf is not finite"),
}
# Trainings that have no good end; some reach one all the same.
WILD = {
    "lr 10": ("optimizer.lr=10",),
    "lr 10, nothing clipped, in float64": ("optimizer.lr=10", "trainer.clip=0", "dtype=float64"),
    "lr 1000, averaged": ("optimizer.lr=1000", "scheduler=constant", "trainer.ema=0.9"),
    "lr 1e30, nothing clipped": ("optimizer.lr=1e30", "trainer.clip=0", "scheduler=constant"),
}
STIFF = {
    "waves of length 1e-6": ("model.scale=1e6", "optimizer.lr=0.1"),
    "one step of Euler": ("solver=euler", "solver.step_size=1", "optimizer.lr=1"),
    "ten steps are too few": ("solver.max_steps=10", "solver.rtol=1e-9", "solver.atol=1e-9"),
}


def rows() -> NDArray[np.float64]:
    """Return 400 correlated rows of three columns."""
    mixed: NDArray[np.float64] = noise(400, 3) @ [[1, 0.5, 0], [0, 1, 0.3], [0, 0, 1]]
    return mixed


def noise(n: int, d: int) -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(size=(n, d))


def with_column(values: float | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([rows(), np.broadcast_to(values, 400)])


def nearly_constant() -> NDArray[np.float64]:
    """Return values off any grid that are one number in all but 20 rows, spread over the splits."""
    values = np.full(400, 0.3141592653)
    values[::20] += noise(20, 1)[:, 0]
    return values


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("table", TABLES)
def test_a_table_trains_or_says_why_not(hold: Hold, tmp_path: Path, table: str, model: str) -> None:
    make, told = TABLES[table]
    np.save(tmp_path / "rows.npy", make())
    length = ("trainer.max_steps=4", "trainer.evaluate_every=2")
    said = hold(tmp_path, *BRIEF, *length, "data=table", "data.path=rows.npy", *MODELS[model])
    assert told in said if told else said == ""
    if told is None:
        metrics = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
        unknown = {tag for tag, value in metrics.items() if value is None}
        assert unknown <= {"mmd/test", "mmd_floor/test"}  # there is none of less than four rows


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("wild", WILD)
def test_a_training_that_diverges_ends_in_a_line(
    hold: Hold, tmp_path: Path, wild: str, model: str
) -> None:
    np.save(tmp_path / "rows.npy", rows())
    length = ("trainer.max_steps=30", "trainer.evaluate_every=10")
    data = ("data=table", "data.path=rows.npy")
    hold(tmp_path, *BRIEF, *length, *data, *MODELS[model], *WILD[wild])


@pytest.mark.parametrize("stiff", STIFF)
def test_a_stiff_field_ends_in_a_line(hold: Hold, tmp_path: Path, stiff: str) -> None:
    length = ("trainer.max_steps=10", "trainer.evaluate_every=5", "splits.train=500")
    sizes = ("splits.val=100", "splits.test=100", "evaluation.grid=32", "data=gaussian_mixture")
    hold(tmp_path, *BRIEF, *length, *sizes, *MODELS["ffjord"], *STIFF[stiff])
