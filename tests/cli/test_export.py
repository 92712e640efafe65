"""`flowrun export`: what it writes and says, and what it refuses before the work."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import flowtrain

Flowrun = Callable[..., subprocess.CompletedProcess[str]]


def test_a_graph_is_written_with_what_it_takes_gives_and_how_exact_it_is(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path
) -> None:
    told = flowrun("export", folders["ffjord"], "-o", "model.pt2", "--steps", "2")
    assert (told.returncode, told.stdout) == (0, "")
    wrote, runtime, steps = told.stderr.splitlines()
    assert wrote == "flowrun: wrote model.pt2: x (n, 2) -> log_prob (n), float32, for any n"
    assert runtime.startswith("flowrun: torch.export.load is within ")
    assert steps.startswith("flowrun: rk4 in 2 steps is within ")
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(0))
    found = torch.export.load(tmp_path / "model.pt2").module()(x)
    assert torch.allclose(found, flowtrain.load(folders["ffjord"]).log_prob(x), atol=0.05)


def test_weights_are_a_run_for_every_command(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("safetensors")
    told = flowrun("export", folders["realnvp"], "-o", "model.safetensors")
    assert (told.returncode, told.stdout) == (0, "")
    assert told.stderr == (
        "flowrun: wrote model.safetensors: flowtrain.load('model.safetensors') reads it\n"
    )
    whole = flowrun("sample", folders["realnvp"], "-n", "5", "-o", "-")
    assert flowrun("sample", "model.safetensors", "-n", "5", "-o", "-").stdout == whole.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "model.pt"], "model.pt: .pt is unknown; use .safetensors, .onnx, .pt2"),
        (["-o", "m.safetensors", "--steps", "4"], "--steps has no effect on .safetensors"),
        (["-o", "m.safetensors", "--function", "sample"], "--function has no effect on"),
        (["-o", "m.pt2", "--steps", "4"], "--steps: model=realnvp solves no ODE"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path, arguments: list[str], message: str
) -> None:
    told = flowrun("export", folders["realnvp"], *arguments)
    assert told.returncode == 1
    assert message in told.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["onnx", "safetensors"])
def test_a_missing_extra_is_one_line(
    flowrun: Flowrun, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr("flowtrain.runs.weights.find_spec", lambda _: None)
    told = flowrun("export", folders["realnvp"], "-o", f"model.{suffix}")
    assert told.returncode == 1
    (line,) = told.stderr.splitlines()
    assert line.endswith("pip install 'flowtrain[export]'")
