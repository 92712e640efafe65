"""result.json: written whole or not at all, with all that a reader needs to run it again."""

import json
import math
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

WHOLE = {"model": "affine", "data": "moons", "seed": 0, "parameters": 6, "seconds": 0.5}


def test_what_is_not_finite_is_null_in_every_reader_s_json(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    metrics = {"mmd/test": math.nan, "nll/test": math.inf, "kl/test": 0.5}
    write_result(folder, **WHOLE, status="failed", metrics=metrics)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    found = json.loads(folder.result.read_text(), parse_constant=refuse)["metrics"]
    assert found == {"mmd/test": None, "nll/test": None, "kl/test": 0.5}


RESULT = {**WHOLE, "status": "completed", "metrics": {"kl/test": 0.5}}
DAMAGED: dict[str, bytes] = {
    "cut": json.dumps(RESULT).encode()[:-9],
    "empty": b"",
    "null": b"null",
    "not UTF-8": b'{"status": "\xff\xfe"}',
    "NULs": bytes(200),
    "deeply nested": b"[" * 100_000,
    "a list": json.dumps([RESULT]).encode(),
    "no status": json.dumps({**RESULT, "status": None}).encode(),
    "a status of its own": json.dumps({**RESULT, "status": "\x1b[2J"}).encode(),
    "metrics are a list": json.dumps({**RESULT, "metrics": [1]}).encode(),
    "a metric is text": json.dumps({**RESULT, "metrics": {"kl/test": "0.5"}}).encode(),
    "a huge number": json.dumps({**RESULT, "parameters": 10**400}).encode(),
    "an object in place of a name": json.dumps({**RESULT, "model": {}}).encode(),
    "completed without metrics": json.dumps({**WHOLE, "status": "completed"}).encode(),
    "a config is text": json.dumps({**RESULT, "config": "x"}).encode(),
    "a million settings": json.dumps({**RESULT, "config": {"x": [0] * 10**6}}).encode(),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_result_counts_for_nothing_and_says_so(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "result.json").write_bytes(DAMAGED[damage])
    assert read_result(RunFolder(tmp_path)) == {}
    assert len(caplog.messages) == 1
    assert str(tmp_path / "result.json") in caplog.messages[0]


def test_a_result_with_nan_of_release_0_1_is_read(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({**RESULT, "metrics": {"mmd/test": math.nan}}))
    assert math.isnan(read_result(RunFolder(tmp_path))["metrics"]["mmd/test"])


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert read_result(folder) == {}
    write_result(folder, **WHOLE, status="running", metrics={"kl/val": 0.5}, error="größer")
    write_result(folder, **WHOLE, status="failed", metrics={"kl/val": 0.25})
    assert read_result(folder) == {**WHOLE, "status": "failed", "metrics": {"kl/val": 0.25}}
    assert [each.name for each in folder.path.iterdir()] == ["result.json"]


def test_a_full_disk_keeps_the_result_before(
    tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    folder = RunFolder(tmp_path)
    write_result(folder, **WHOLE, status="running", metrics={})
    with full_disk(100), pytest.raises(CheckpointError) as caught:
        write_result(folder, **WHOLE, status="completed", error="x" * 5000)
    assert str(caught.value).startswith(f"cannot write {folder.result}: ")
    assert read_result(folder)["status"] == "running"
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
