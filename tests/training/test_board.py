"""The rows of TensorBoard's HPARAMS: which settings stand there, and under which name."""

from collections.abc import Callable
from pathlib import Path

import yaml
from tensorboard.plugins.hparams import plugin_data_pb2

from flowtrain.config.schema import Config
from flowtrain.runs.folder import RunFolder
from flowtrain.training.board import telling_settings, trial

Tiny = Callable[..., Config]


def test_settings_that_were_typed_stand_beside_those_of_every_run(
    tiny: Tiny, tmp_path: Path
) -> None:
    typed = [
        "model=realnvp", "optimizer.lr=0.25", "seed=7", "model.couplings=2", "trainer=debug",
        "scheduler=constant", "solver@evaluation.solver=none", "init_from=null",
    ]  # fmt: skip
    folder = RunFolder(tmp_path)
    folder.overrides.parent.mkdir()
    folder.overrides.write_text(yaml.safe_dump(typed))
    config = tiny("optimizer.lr=0.25", "seed=7", "scheduler=constant").model_dump()
    assert telling_settings(config, folder) == {
        "model": "realnvp", "data": "gaussian_mixture", "lr": 0.25, "seed": 7,
        "typed.model.couplings": 2, "typed.trainer": "debug", "typed.scheduler": "constant",
        "typed.evaluation.solver": "none",
    }  # fmt: skip


def test_a_table_is_named_by_its_file(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny().model_dump()
    config["data"] = {"name": "table", "path": "data/points.csv"}
    assert telling_settings(config, RunFolder(tmp_path))["data"] == "points"


def test_a_trial_is_named_by_its_folder(tiny: Tiny, tmp_path: Path) -> None:
    start, _ = trial(tiny().model_dump(), {"nll/val": 1.0}, RunFolder(tmp_path / "demo"))
    content = start.value[0].metadata.plugin_data.content
    told = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert told.group_name == f"demo in {tmp_path}"
