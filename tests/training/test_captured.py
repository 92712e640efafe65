"""A recorded step: the same run as without, refused in a line where it cannot be one."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from flowtrain.config.schema import Config
from flowtrain.errors import ConfigError
from flowtrain.runs import checkpoint
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.result import read_result
from flowtrain.training import replicas, run
from flowtrain.training.cuda_graph import CudaGraph
from flowtrain.training.trainer import train

Tiny = Callable[..., Config]
Losses = Callable[[Path], list[float]]

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
SHORT = ("trainer.max_steps=5", "trainer.log_every=1", "scheduler=constant")
FIXED = ("solver=rk4", "solver.step_size=0.25")
# What a graph has to hold: every kind of map, and all that is drawn in a step.
STEPS = {
    **{
        name: (name,)
        for name in ("affine", "glow", "iaf", "maf", "maf_spline", "radial", "realnvp", "spline")
    },
    "a condition": ("realnvp", "data.condition=component"),
    "a learned base": ("spline", "model.base=student_t"),
    "tails bent, in float64": ("realnvp", "model.whitening=johnson"),
    "an average": ("realnvp", "trainer.ema=0.9"),
    "fixed steps": ("ffjord", *FIXED),
    "an estimated trace": ("ffjord", *FIXED, "model.divergence=hutchinson"),
    "penalties": ("ffjord", *FIXED, "regularization=rnode"),
    "flow matching": ("ffjord", "objective=flow_matching", "solver=none"),
    "two objectives": ("ffjord", "objective=flow_matching_then_likelihood", *FIXED),
    "replicas": ("realnvp", "trainer.replicas=3"),
}  # fmt: skip


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call the function again where a GPU would replay its graph."""

    def record(self: CudaGraph, *inputs: Tensor) -> SimpleNamespace:
        self.inputs = [each.clone() for each in inputs]

        def replay() -> None:
            self.result = self.function(*self.inputs)

        return SimpleNamespace(replay=replay)

    monkeypatch.setattr(CudaGraph, "record", record)
    for module in (run, replicas):
        monkeypatch.setattr(module, "refuse_without_cuda", lambda device: None)


@pytest.mark.usefixtures("replayed")
@pytest.mark.parametrize("model", ["realnvp", "ffjord"])
def test_a_run_is_the_same_with_and_without_and_resumes_either_way(
    tiny: Tiny, tmp_path: Path, losses: Losses, caplog: pytest.LogCaptureFixture, model: str
) -> None:
    caplog.set_level("INFO", "flowtrain")
    more = () if model == "realnvp" else FIXED
    plain, whole, mixed = (tmp_path / name for name in ("plain", "whole", "mixed"))
    train(tiny(*SHORT, *more, model=model), plain)
    train(tiny(*SHORT, *more, "trainer.capture=true", model=model), whole)
    assert "captured in" in caplog.text
    train(tiny(*SHORT, *more, "trainer.max_steps=3", "trainer.capture=true", model=model), mixed)
    train(tiny(*SHORT, *more, model=model), mixed)
    expected = losses(plain)
    assert len(expected) == 5
    assert losses(whole) == losses(mixed) == expected
    states = [checkpoint.read(each / "checkpoints" / "last.pt") for each in (plain, whole, mixed)]
    assert torch.equal(states[0]["generator"], states[1]["generator"])  # the same batches


@needs_cuda
@pytest.mark.parametrize("case", STEPS)
def test_recorded_steps_are_those_of_a_run_without(
    tiny: Tiny, tmp_path: Path, losses: Losses, case: str
) -> None:
    model, *more = STEPS[case]
    more += ["trainer.device=cuda"]
    found = {}
    for name in ("true", "false"):
        folder = tmp_path / name
        train(tiny(*SHORT, *more, f"trainer.capture={name}", model=model), folder)
        assert read_result(RunFolder(folder))["skipped_steps"] == 0
        inside = [folder / f"replica-{n}" for n in range(3)] if case == "replicas" else [folder]
        found[name] = [losses(each) for each in inside]
    assert all(len(each) == 5 for each in found["true"])
    assert found["true"] == [pytest.approx(each, rel=1e-4) for each in found["false"]]


def test_a_cpu_is_refused_before_anything_is_trained(tiny: Tiny, tmp_path: Path) -> None:
    for number in (1, 2):
        folder = tmp_path / str(number)
        with pytest.raises(ConfigError, match="cpu has no CUDA graphs; leave it false"):
            train(tiny("trainer.capture=true", f"trainer.replicas={number}"), folder)
        assert read_result(RunFolder(folder))["status"] == "failed"
        assert not (folder / "checkpoints").exists()


@pytest.mark.parametrize(
    ("model", "more", "why"),
    [
        ("ffjord", ["solver=dopri5"], "dopri5 looks at each step before the next; try solver=rk4"),
        ("ffjord", ["solver=explicit_adams"], "explicit_adams looks"),
        ("ffjord", [*FIXED, "solver.adjoint=true"], "an adjoint solve does; try solver.adjoint=f"),
        ("realnvp", ["objective=reverse_kl"], "reverse_kl draws its samples on the CPU; leave"),
        (
            "ffjord",
            ["objective=flow_matching", "objective.targets=sample", "solver=none",
             "objective.coupling=optimal_transport"],
            "coupling=optimal_transport pairs points on the CPU; leave it false",
        ),
    ],
)  # fmt: skip
def test_what_waits_for_the_cpu_is_refused(
    tiny: Tiny, model: str, more: list[str], why: str
) -> None:
    with pytest.raises(ConfigError, match=f"trainer.capture: a CUDA graph cannot wait.* {why}"):
        tiny("trainer.capture=true", *more, model=model)


def test_a_recording_that_gives_another_loss_is_refused(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(self: CudaGraph, *inputs: Tensor) -> SimpleNamespace:
        self.inputs = [each.clone() for each in inputs]
        self.result = (torch.tensor(7.0), dict)
        return SimpleNamespace(replay=lambda: None)

    monkeypatch.setattr(CudaGraph, "record", record)
    monkeypatch.setattr(run, "refuse_without_cuda", lambda device: None)
    with pytest.raises(ConfigError, match=r"recorded \(its recording gives another loss or grad"):
        train(tiny("trainer.capture=true"), tmp_path)
    assert not (tmp_path / "checkpoints").exists()
