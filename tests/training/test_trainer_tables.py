"""Runs on users' points: what stands in for KL where nobody knows the density."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowtrain.build import build_splits
from flowtrain.config.schema import Config, validate
from flowtrain.data.splits import split_rows
from flowtrain.errors import ConfigError, UserError
from flowtrain.evaluation.baselines import gaussian_nll, kde_nll
from flowtrain.evaluation.checks import warnings_about
from flowtrain.runs.load import load, open_run
from flowtrain.training.trainer import train

BRIEF = (
    "trainer=debug", "trainer.device=cpu", "trainer.threads=1", "trainer.max_steps=4",
    "trainer.evaluate_every=2", "trainer.log_every=1",
)  # fmt: skip
SMALL = {
    "realnvp": ("model.couplings=2", "model.hidden=8", "model.depth=1"),
    "spline": ("model.couplings=2", "model.hidden=8", "model.depth=1"),
    "affine": (),
    "ffjord": ("model.width=8", "model.depth=1", "solver=bosh3", "solver@evaluation.solver=bosh3"),
}
CPU = torch.device("cpu")

Compose = Callable[..., dict[str, Any]]


@pytest.fixture
def on_table(compose: Compose, tmp_path: Path) -> Callable[..., Config]:
    """Return a function from a number of columns to the config of a brief run on such a table."""

    def on_table(columns: int, *overrides: str, model: str = "realnvp") -> Config:
        mixed = np.random.default_rng(0).standard_normal((400, columns)).cumsum(1) * 3 + 7
        header = ",".join(f"c{i}" for i in range(columns))
        path = tmp_path / "points.csv"
        np.savetxt(path, mixed, delimiter=",", header=header, comments="")
        return validate(
            compose(
                f"model={model}", "data=table", f"data.path={path}", *BRIEF, *SMALL[model],
                *overrides,
            )
        )  # fmt: skip

    return on_table


@pytest.mark.parametrize(
    ("model", "columns"),
    [("realnvp", 2), ("realnvp", 7), ("spline", 3), ("affine", 1), ("ffjord", 1), ("ffjord", 3)],
)
def test_a_table_of_any_dimension_trains(
    on_table: Callable[..., Config], tmp_path: Path, model: str, columns: int
) -> None:
    config = on_table(columns, model=model)
    result = train(config, tmp_path / "run")
    assert (result.status, result.step) == ("completed", 4)
    assert result.metric == result.metrics["nll/val"]
    assert not any(tag.startswith(("kl", "mass", "nll/entropy")) for tag in result.metrics)
    assert all(math.isfinite(value) for value in result.metrics.values())
    pictures = {path.name for path in (tmp_path / "run" / "figures").glob("marginals-*")}
    steps = ("step-000002", "step-000004", "final")
    assert pictures == {f"marginals-{step}.png" for step in steps}


def test_a_held_out_nll_stands_beside_its_baselines_and_distances_beside_their_floors(
    on_table: Callable[..., Config], tmp_path: Path
) -> None:
    config = on_table(3, "trainer.figures=false")
    metrics = train(config, tmp_path / "run").metrics
    splits = build_splits(config, CPU)
    train_x, test_x = splits.train.x, splits.test.x
    assert (len(train_x), len(splits.val.x), len(test_x)) == (320, 40, 40)
    assert metrics["nll_gaussian/test"] == gaussian_nll(train_x, test_x)
    assert metrics["nll_kde/test"] == kde_nll(train_x, test_x, seed=0)
    floors = {tag for tag in metrics if "_floor/" in tag}
    assert floors == {f"{name}_floor/test" for name in ("energy", "mmd", "sliced_w2")}
    assert {tag.replace("_floor", "") for tag in floors} <= {*metrics}
    assert metrics["nll/test"] < metrics["nll_gaussian/test"] + metrics["nll_error/test"]
    assert not any("best Gaussian" in line for line in warnings_about(metrics))
    logged = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
    assert logged == metrics


def test_every_seed_trains_on_the_same_split(on_table: Callable[..., Config]) -> None:
    first, second = (build_splits(on_table(2, f"seed={seed}"), CPU) for seed in (0, 1))
    other = build_splits(on_table(2, "splits.seed=1"), CPU)
    assert torch.equal(first.train.x, second.train.x)
    assert not torch.equal(first.train.x, other.train.x)


def test_columns_are_chosen_and_named(on_table: Callable[..., Config]) -> None:
    split = build_splits(on_table(4, "data.columns=[c2,0]"), CPU).train
    assert split.columns == ("c2", "c0")
    assert split.x.shape == (320, 2)


def test_a_table_s_nll_is_in_its_own_units(on_table: Callable[..., Config], tmp_path: Path) -> None:
    """The best Gaussian, before the first step, against an independent computation."""
    config = on_table(2, "trainer.figures=false", model="affine")
    train(config, tmp_path / "run")
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    splits = build_splits(config, CPU)
    expected = gaussian_nll(splits.train.x, splits.val.x)
    assert first["nll/val"] == pytest.approx(expected, abs=0.01)  # but for the shrinkage


@pytest.mark.parametrize("name", ["digits", "iris", "wine", "breast_cancer", "diabetes"])
def test_scikit_learn_s_sets_train(compose: Compose, tmp_path: Path, name: str) -> None:
    small = (*SMALL["realnvp"], "model.log_scale_bound=0.5", "trainer.figures=false")
    config = validate(compose("data=sklearn", f"data.name={name}", *BRIEF, *small))
    metrics = train(config, tmp_path).metrics
    assert ("bits_per_dimension/test" in metrics) == (name == "digits")
    if name == "digits":
        bits = metrics["nll/test"] / (64 * math.log(2)) + math.log2(17)
        assert metrics["bits_per_dimension/test"] == pytest.approx(bits)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1,2\n3,nan\n5,6\n", "line 2, column 'x1': the value is missing"),
        ("a,b\n1,2\n1,3\n1,4\n1,5\n", "data: constant, so without a density: 'a'"),
        ("1,2\n3,4\n5,6\n", "leave 0 for val; each split needs 2"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(
    compose: Compose, tmp_path: Path, text: str, problem: str
) -> None:
    path = tmp_path / "points.csv"
    path.write_text(text)
    config = validate(compose("data=table", f"data.path={path}", *BRIEF, *SMALL["realnvp"]))
    with pytest.raises(UserError) as caught:
        train(config, tmp_path / "run")
    assert problem in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_coupling_flows_refuse_a_single_column(
    on_table: Callable[..., Config], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="at least 2 dimensions, this has 1; use model=maf_spline"):
        train(on_table(1), tmp_path / "run")


@pytest.mark.parametrize(("offset", "scale"), [(1.7e9, 30.0), (1e8, 1.0), (0.0, 1e38)])
def test_offsets_and_scales_that_float32_cannot_hold_cost_nothing(
    compose: Compose, tmp_path: Path, offset: float, scale: float
) -> None:
    plain = np.random.default_rng(0).random((300, 2))
    nll = []
    for name, points in (("plain", plain), ("moved", offset + scale * plain)):
        np.save(tmp_path / f"{name}.npy", points)
        overrides = ("model.whitening=johnson", "trainer.figures=false", *BRIEF, *SMALL["realnvp"])
        config = validate(
            compose("data=table", f"data.path={tmp_path / name}.npy", "model=realnvp", *overrides)
        )
        nll.append(train(config, tmp_path / name).metrics["nll/test"])
    assert nll[1] - nll[0] == pytest.approx(2 * math.log(scale), abs=1e-2)
    flow = load(tmp_path / "moved")
    samples = flow.sample(1000, torch.Generator().manual_seed(0))
    assert len(samples[:, 0].unique()) == 1000


def test_a_run_that_patience_stopped_says_so(
    compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = validate(
        compose(
            "data=sklearn", "data.name=iris", "model=affine", "trainer.figures=false",
            "trainer.patience=2", "trainer.evaluate_every=1", "optimizer.lr=0.5",
        )
    )  # fmt: skip
    with caplog.at_level("INFO", logger="flowtrain"):
        result = train(config, tmp_path)
    assert result.step < 1500
    assert "for 120 rows of 4 columns: trainer.max_steps=1500" in caplog.text
    assert "the last 2 evaluations were no better (trainer.patience)" in caplog.text
    assert "better than the start, a Gaussian fitted to the rows as model.whitening" in caplog.text
    saved = json.loads((tmp_path / "result.json").read_text())["config"]["trainer"]
    assert saved["max_steps"] == 1500


def test_a_settled_run_goes_on_when_started_again_in_its_folder(
    compose: Compose, tmp_path: Path
) -> None:
    overrides = ("data=sklearn", "data.name=iris", "trainer.figures=false", "model.couplings=1")
    few = (*overrides, "trainer.evaluate_every=2")
    assert train(validate(compose(*few, "trainer.max_steps=2")), tmp_path).step == 2
    assert train(validate(compose(*few, "trainer.max_steps=4")), tmp_path).step == 4


# --- given a condition --------------------------------------------------------------------------


@pytest.fixture
def given_kind(compose: Compose, tmp_path: Path) -> Callable[..., Config]:
    """Return a function to the config of a brief run on rows of two kinds, b ten times as wide."""

    def given_kind(*overrides: str, model: str = "affine", condition: str = "[kind]") -> Config:
        rng = np.random.default_rng(0)
        kind, size = rng.choice(["a", "b"], 400), rng.uniform(0, 1, 400)
        x = rng.normal(size=400) * np.where(kind == "a", 0.1, 1.0)
        rows = zip(kind, size.tolist(), x.tolist(), strict=True)
        lines = [f"{k},{s!r},{v!r},{s * v!r}" for k, s, v in rows]
        path = tmp_path / "kinds.csv"
        path.write_text("\n".join(["kind,size,x,y", *lines]))
        return validate(
            compose(
                f"model={model}", "data=table", f"data.path={path}", f"data.condition={condition}",
                "data.columns=[x,y]", "trainer.figures=false", *BRIEF, *SMALL[model], *overrides,
            )
        )  # fmt: skip

    return given_kind


@pytest.mark.parametrize("model", SMALL)
def test_every_kind_of_model_trains_on_rows_given_a_kind(
    given_kind: Callable[..., Config], tmp_path: Path, model: str
) -> None:
    result = train(given_kind(model=model), tmp_path / "run")
    flow = load(tmp_path / "run")
    assert flow.context_dim == 2
    assert flow.condition is not None
    assert {"nll_gaussian_linear/test", "nll_gaussian_by_class/test"} <= {*result.metrics}
    assert all(math.isfinite(value) for value in result.metrics.values())


def test_the_baselines_know_the_condition(
    given_kind: Callable[..., Config], tmp_path: Path
) -> None:
    config = given_kind("trainer.max_steps=1")
    metrics = train(config, tmp_path / "run").metrics
    splits = build_splits(config, CPU)
    blind = gaussian_nll(splits.train.x, splits.test.x)
    assert metrics["nll_gaussian_by_class/test"] < blind - 1  # two widths
    assert metrics["nll_gaussian_linear/test"] == pytest.approx(blind, abs=0.1)  # one mean
    warned = " ".join(warnings_about(metrics))
    assert "a Gaussian for each class beats this flow on held-out points" in warned


def test_points_of_numbers_are_paired_with_nobody(
    given_kind: Callable[..., Config], tmp_path: Path
) -> None:
    asked = ("objective=flow_matching", "objective.coupling=optimal_transport",
             "objective.targets=sample")  # fmt: skip
    run = [*asked, "solver=none", "solver@evaluation.solver=bosh3"]
    numbers = given_kind(*run, model="ffjord", condition="[kind,size]")
    with pytest.raises(UserError, match=r"objective.coupling: .* hardly two have the same size"):
        train(numbers, tmp_path / "numbers")
    result = train(given_kind(*run, model="ffjord"), tmp_path / "kinds")
    assert result.status == "completed"


def test_a_kind_that_no_training_row_has_stops_the_run_at_once(
    given_kind: Callable[..., Config], tmp_path: Path
) -> None:
    config = given_kind()
    path = tmp_path / "kinds.csv"
    header, *rows = path.read_text().splitlines()
    test = split_rows(len(rows), val=0.1, test=0.1, seed=0)["test"]
    rows[int(test[0])] = "rare" + rows[int(test[0])][1:]
    path.write_text("\n".join([header, *rows]))
    with pytest.raises(UserError, match="'rare' is unknown; known: 'a', 'b', in the training rows"):
        train(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"


def test_a_table_that_changed_is_dealt_no_second_time(
    on_table: Callable[..., Config], tmp_path: Path
) -> None:
    config = on_table(2, "trainer.figures=false", "trainer.max_steps=2", model="affine")
    train(config, tmp_path / "run")
    path = Path(config.model_dump()["data"]["path"])
    kept = path.read_text()
    path.write_text(kept + kept.splitlines()[-1] + "\n")
    with pytest.raises(UserError, match=r"run: its table has changed since: .* --points FILE"):
        _ = open_run(tmp_path / "run").splits
    more = {"trainer": {"max_steps": 4}}
    with pytest.raises(ConfigError, match=r"run: its table has changed since: .*init_from=.*run"):
        train(config, tmp_path / "run", asked=more)
    path.unlink()
    with pytest.raises(UserError, match=r"run: its table is no more at .*; put it back"):
        _ = open_run(tmp_path / "run").splits
    path.write_text(kept)
    assert train(config, tmp_path / "run", asked=more).step == 4


def test_a_run_goes_on_where_its_table_has_moved_to(
    on_table: Callable[..., Config], tmp_path: Path
) -> None:
    config = on_table(2, "trainer.figures=false", "trainer.max_steps=2", model="affine")
    train(config, tmp_path / "run")
    path = Path(config.model_dump()["data"]["path"])
    moved = path.rename(tmp_path / "moved.csv")
    more = {"trainer": {"max_steps": 4}, "data": {"path": str(moved)}}
    assert train(config, tmp_path / "run", asked=more).step == 4
    assert open_run(tmp_path / "run").splits.train.columns == open_run(tmp_path / "run").columns
    (tmp_path / "other.csv").write_text(moved.read_text().replace("1", "2"))
    more = {"trainer": {"max_steps": 6}, "data": {"path": str(tmp_path / "other.csv")}}
    with pytest.raises(ConfigError, match=r"run: its table has changed since"):
        train(config, tmp_path / "run", asked=more)
