"""Runs on a CUDA GPU, where there is one: trained, judged, resumed there and on the CPU."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flowtrain.config.schema import Config
from flowtrain.evaluation.metrics import evaluate
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.load import open_run
from flowtrain.runs.result import read_result
from flowtrain.training.trainer import train

Tiny = Callable[..., Config]

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
RUNS = {
    **{
        name: (name,)
        for name in (
            "affine", "glow", "iaf", "maf", "maf_spline", "planar", "radial", "realnvp", "spline",
            "ffjord",
        )
    },
    "an adjoint": ("ffjord", "solver.adjoint=true"),
    "fixed steps": ("ffjord", "solver=rk4"),
    "flow matching": ("ffjord", "objective=flow_matching", "solver=none"),
    "optimal transport": (
        "ffjord", "objective=flow_matching", "solver=none", "objective.targets=sample",
        "objective.coupling=optimal_transport",
    ),
    "two objectives": ("ffjord", "objective=flow_matching_then_likelihood"),
    "from model to data": ("realnvp", "objective=reverse_kl"),
    "a condition": ("realnvp", "data.condition=component"),
    "float64": ("realnvp", "dtype=float64"),
    "tails bent": ("realnvp", "model.whitening=johnson"),
    "muon": ("realnvp", "optimizer=muon"),
    "replicas": ("realnvp", "trainer.replicas=2"),
}  # fmt: skip


@pytest.mark.parametrize("case", RUNS)
def test_a_run_ends_and_is_judged_alike_on_both_devices(
    tiny: Tiny, tmp_path: Path, case: str
) -> None:
    model, *more = RUNS[case]
    train(tiny("trainer.device=cuda", *more, model=model), tmp_path)
    recorded = read_result(RunFolder(tmp_path))
    assert (recorded["status"], recorded["skipped_steps"]) == ("completed", 0)
    folder = tmp_path / "replica-0" if case == "replicas" else tmp_path
    found = []
    for device in ("cpu", "cuda"):
        run = open_run(folder, device=device)
        assert run.flow.device.type == device
        found.append(evaluate(run.flow, run.splits, training_solver=None, grid=16, batch_size=64))
    assert found[0]["nll/test"] == pytest.approx(found[1]["nll/test"], abs=1e-3)


@pytest.mark.parametrize("devices", [("cpu", "cuda"), ("cuda", "cpu")])
@pytest.mark.parametrize("model", ["realnvp", "ffjord"])
def test_a_run_goes_on_on_another_device(
    tiny: Tiny, tmp_path: Path, devices: tuple[str, str], model: str
) -> None:
    for steps, device in zip((4, 8), devices, strict=True):
        limits = (f"trainer.max_steps={steps}", f"trainer.device={device}")
        result = train(tiny(*limits, "scheduler=constant", model=model), tmp_path)
        assert (result.status, result.step) == ("completed", steps)
