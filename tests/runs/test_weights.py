"""Weights in one file: read back to the bit, migrated like any run, refused when damaged."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import flowtrain
from flowtrain.errors import CheckpointError, UserError
from flowtrain.runs.load import open_run
from flowtrain.runs.migrate import SCHEMA
from flowtrain.runs.weights import about, save_weights

RUNS = Path(__file__).parent
WHOLE: dict[str, Any] = {"config": {"schema": SCHEMA}, "dim": 2, "step": 6}
DAMAGED: list[dict[str, Any]] = [
    {"config": "realnvp"}, {"config": None}, {"config": [1]}, {"config": {"schema": 0}},
    {"config": {"x": [0] * 10**5}}, {"config": {"schema": SCHEMA - 1, "trainer": 1}},
    {"dim": "2"}, {"dim": 0}, {"step": "six"}, {"columns": "ab"}, {"columns": [1]},
    {"condition": {"x": [0] * 10**5}},
]  # fmt: skip


@pytest.mark.parametrize("folder", ["schema_0/realnvp", "schema_1/ffjord"])
def test_weights_come_back_to_the_bit(folder: str, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    saved = open_run(RUNS / folder)
    save_weights(tmp_path / "model.safetensors", saved)
    flow = flowtrain.load(tmp_path / "model.safetensors")
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(flow.log_prob(x), saved.flow.log_prob(x))
    assert not flow.training
    again = open_run(tmp_path / "model.safetensors")
    assert (again.config, again.step) == (saved.config, saved.step)


def test_others_read_the_file_without_flowtrain(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    saved = open_run(RUNS / "schema_0/realnvp")
    save_weights(tmp_path / "model.safetensors", saved)
    with safetensors.safe_open(tmp_path / "model.safetensors", "np") as file:
        assert {*file.keys()} == {*saved.flow.state_dict()}
        assert json.loads(file.metadata()["flowtrain"]) == about(saved)


def test_a_file_that_is_no_export_is_refused(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    path = tmp_path / "model.safetensors"
    with pytest.raises(CheckpointError, match="cannot read"):
        flowtrain.load(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match="damaged, or not written by flowrun export"):
        flowtrain.load(path)
    safetensors.save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="damaged, or not written by flowrun export"):
        flowtrain.load(path)
    weights = {"x": torch.zeros(2)}
    for damage in DAMAGED:
        safetensors.save_file(weights, path, {"flowtrain": json.dumps(WHOLE | damage)})
        with pytest.raises(CheckpointError, match="damaged, or not written by flowrun export"):
            flowtrain.load(path)
    newer = {"config": {"schema": 10**6}, "dim": 2, "step": 6}
    safetensors.save_file({"x": torch.zeros(2)}, path, {"flowtrain": json.dumps(newer)})
    with pytest.raises(CheckpointError, match="written by a newer flowtrain"):
        flowtrain.load(path)


def test_a_missing_package_is_told_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowtrain.runs.weights.find_spec", lambda _: None)
    saved = open_run(RUNS / "schema_0/realnvp")
    with pytest.raises(UserError) as told:
        save_weights(tmp_path / "model.safetensors", saved)
    assert str(told.value) == "exports need safetensors: pip install 'flowtrain[export]'"
    with pytest.raises(UserError, match="exports need safetensors"):
        flowtrain.load(tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []
