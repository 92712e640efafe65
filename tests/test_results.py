"""Whole trainings with the defaults, held to the figures that the README states. Minutes long."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flowtrain import load

CHAIN = Path(__file__).parents[1] / "benchmarks" / "posterior_chain.json"

# The largest KL, by quadrature with the evaluation solver, in nats.
KL = {
    ("realnvp", "moons"): 0.01,
    ("realnvp", "circles"): 0.03,
    ("realnvp", "pinwheel"): 0.02,
    ("ffjord", "moons"): 0.03,
    ("ffjord", "circles"): 0.04,
    ("ffjord", "pinwheel"): 0.04,
}
INVERSE_ERROR = {"realnvp": 1e-4, "ffjord": 1e-2}

# Overrides, and the largest KL they may leave.
RECIPES: dict[tuple[str, ...], float] = {
    **{
        ("experiment=best", f"data={data}"): 0.005
        for data in ("moons", "circles", "pinwheel", "eight_gaussians", "swissroll")
    },
    ("experiment=best", "data=rings"): 0.015,
    ("experiment=best", "data=two_spirals"): 0.015,
    ("experiment=best", "data=checkerboard"): 0.02,
    ("model=ffjord", "objective=flow_matching", "data=moons"): 0.015,
    ("model=ffjord", "objective=flow_matching", "data=circles"): 0.015,
    ("model=ffjord", "objective=flow_matching_then_likelihood", "data=moons"): 0.005,
    ("model=ffjord", "objective=flow_matching_then_likelihood", "data=circles"): 0.005,
    ("experiment=swissroll_small",): 0.0155,
}
DIGITS = [
    ("experiment=digits_ffjord",),
    *(("data=sklearn", "data.name=digits", f"model={model}") for model in ("realnvp", "spline")),
]


def train(folder: Path, *overrides: str) -> dict[str, float]:
    """Train in a process of its own and return the final metrics."""
    command = [*overrides, f"hydra.run.dir={folder}"]
    subprocess.run([sys.executable, "-m", "flowtrain", *command], check=True)
    metrics: dict[str, float] = json.loads((folder / "result.json").read_text())["metrics"]
    return metrics


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("model", "data"), KL)
def test_the_defaults_come_close_to_the_truth(
    model: str, data: str, seed: int, tmp_path: Path
) -> None:
    metrics = train(tmp_path, f"model={model}", f"data={data}", f"seed={seed}")
    assert -3 * metrics["kl_error/test"] < metrics["kl/test"] <= KL[model, data]
    assert metrics["kl_error/test"] < 1e-3
    assert metrics["mass/test"] == pytest.approx(1, abs=1e-3)
    assert metrics["inverse_error/test"] < INVERSE_ERROR[model]
    assert abs(metrics.get("solver_gap/test", 0.0)) <= 0.01


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=" ".join)
def test_a_recipe_reaches_its_row(recipe: tuple[str, ...], tmp_path: Path) -> None:
    metrics = train(tmp_path, *recipe)
    assert -3 * metrics["kl_error/test"] < metrics["kl/test"] <= RECIPES[recipe]
    assert metrics["mass/test"] == pytest.approx(1, abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", DIGITS, ids=" ".join)
def test_flows_of_digits_beat_both_baselines(recipe: tuple[str, ...], tmp_path: Path) -> None:
    metrics = train(tmp_path, *recipe)
    baselines = metrics["nll_gaussian/test"], metrics["nll_kde/test"]
    assert metrics["nll/test"] < min(baselines) - 2 * metrics["nll_error/test"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("data", ["u1", "u2", "u3", "banana"])
def test_variational_inference_loses_no_part_of_a_target(
    data: str, seed: int, tmp_path: Path
) -> None:
    few = ("trainer.max_steps=2000", "trainer.evaluate_every=1000", "splits.train=20_000")
    told = (f"data={data}", f"seed={seed}", "trainer.figures=false")
    metrics = train(tmp_path, "model=spline", "objective=reverse_kl", *told, *few)
    assert metrics["kl_reverse/test"] <= (0.05 if data == "u3" else 0.01)
    assert metrics["ess/test"] >= 0.9
    assert metrics.get("least_component/test", 1.0) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_flow_comes_nearer_to_a_posterior_than_any_gaussian(seed: int, tmp_path: Path) -> None:
    few = ("trainer.max_steps=1200", "trainer.evaluate_every=400", "trainer.figures=false")
    told = ("model.couplings=4", "model.whitening=covariance", f"seed={seed}")
    metrics = train(
        tmp_path, "model=spline", "objective=reverse_kl", "data=logistic_regression", *told, *few
    )
    assert metrics["elbo/test"] > -55.40  # the best Gaussian has -55.465
    assert metrics["ess/test"] > 0.7
    chain = json.loads(CHAIN.read_text(encoding="utf-8"))
    samples = load(tmp_path).sample(100_000, torch.Generator().manual_seed(0))
    off = (samples.mean(0).double() - torch.tensor(chain["mean"])) / torch.tensor(chain["std"])
    assert off.abs().max() < 0.1
