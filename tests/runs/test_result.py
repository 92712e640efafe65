"""result.json: written whole or not at all, with all that a reader needs to run it again."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from flowtrain import __version__
from flowtrain.config.schema import Config
from flowtrain.errors import CheckpointError
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.migrate import load_config
from flowtrain.runs.result import environment, read_result, write_result
from flowtrain.training.trainer import train


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert read_result(folder) == {}
    write_result(folder, status="running", metrics={"kl/val": 0.5}, error="größer")
    write_result(folder, status="failed", metrics={"kl/val": float("nan")})
    assert read_result(folder)["status"] == "failed"
    assert str(read_result(folder)["metrics"]["kl/val"]) == "nan"
    assert [each.name for each in folder.path.iterdir()] == ["result.json"]


def test_a_full_disk_keeps_the_result_before(
    tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    folder = RunFolder(tmp_path)
    write_result(folder, status="running")
    with full_disk(100), pytest.raises(CheckpointError) as caught:
        write_result(folder, status="completed", error="x" * 5000)
    assert str(caught.value).startswith(f"cannot write {folder.result}: ")
    assert read_result(folder) == {"status": "running"}
    assert [*tmp_path.iterdir()] == [folder.result]


def test_the_environment_tells_what_is_needed_to_run_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/flowtrain", "data=moons", "seed=3"])
    told = environment(torch.device("cpu"))
    assert told["command"] == "flowtrain data=moons seed=3"
    assert told["flowtrain"] == __version__
    assert told["device"] == "cpu"
    assert isinstance(told["peak_memory_mib"], int)
    assert told["peak_memory_mib"] > 10
    assert {"revision", "python", "torch", "platform", "threads", "cores"} <= told.keys()


def test_the_result_of_a_run_holds_its_config_metrics_and_steps(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny("seed=3", "trainer.max_steps=4")
    metrics = train(config, tmp_path).metrics
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["metrics"] == metrics
    assert load_config(result["config"]) == config
    assert {key: result[key] for key in ("status", "model", "data", "seed", "step")} == {
        "status": "completed", "model": "realnvp", "data": "gaussian_mixture", "seed": 3, "step": 4,
    }  # fmt: skip
    assert result["parameters"] > 0
    assert result["seconds"] > 0
