"""Whole trainings with the defaults, held to the figures that the README states. Minutes long."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("model", "data"), KL)
def test_the_defaults_come_close_to_the_truth(
    model: str, data: str, seed: int, tmp_path: Path
) -> None:
    command = [f"model={model}", f"data={data}", f"seed={seed}", f"hydra.run.dir={tmp_path}"]
    subprocess.run([sys.executable, "-m", "flowtrain.cli", *command], check=True)
    metrics = json.loads((tmp_path / "result.json").read_text())["metrics"]
    assert -3 * metrics["kl_error/test"] < metrics["kl/test"] <= KL[model, data]
    assert metrics["kl_error/test"] < 1e-3
    assert metrics["mass/test"] == pytest.approx(1, abs=1e-3)
    assert metrics["inverse_error/test"] < INVERSE_ERROR[model]
    assert abs(metrics.get("solver_gap/test", 0.0)) <= 0.01
