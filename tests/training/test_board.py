"""The rows of TensorBoard's HPARAMS: which settings stand there, and under which name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.plugins.hparams import plugin_data_pb2

from flowtrain.config.schema import Config
from flowtrain.runs.folder import RunFolder
from flowtrain.training.board import short_name, telling_settings, trial

Tiny = Callable[..., Config]


def test_settings_that_were_typed_stand_beside_those_of_every_run(
    tiny: Tiny, tmp_path: Path
) -> None:
    typed = [
        "model=realnvp", "optimizer.lr=0.25", "seed=7", "model.couplings=2", "trainer=debug",
        "scheduler=constant", "solver@evaluation.solver=none", "init_from=null",
        "trainer.log_every=9",
    ]  # fmt: skip
    folder = RunFolder(tmp_path)
    folder.overrides.parent.mkdir()
    folder.overrides.write_text(yaml.safe_dump(typed))
    config = tiny("optimizer.lr=0.25", "seed=7", "scheduler=constant").model_dump()
    assert telling_settings(config, folder) == {
        "model": "realnvp", "data": "gaussian_mixture", "lr": 0.25, "seed": "7",
        "typed.model.couplings": 2, "typed.trainer": "debug", "typed.scheduler": "constant",
        "typed.evaluation.solver": "none",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("model=realnvp,model.couplings=2", {"typed.model.couplings": 2}),
        ("width=2", {"typed.model.couplings": 2, "typed.scheduler": "constant"}),
    ],
    ids=["a job", "a name of one's own"],
)
def test_what_the_jobs_of_a_sweep_share_is_left_out(
    tiny: Tiny, tmp_path: Path, name: str, shown: dict[str, Any]
) -> None:
    folder = RunFolder(tmp_path / name)
    folder.overrides.parent.mkdir(parents=True)
    folder.overrides.write_text(
        yaml.safe_dump(["model=realnvp", "model.couplings=2", "scheduler=constant"])
    )
    found = telling_settings(tiny("scheduler=constant").model_dump(), folder)
    assert {key: value for key, value in found.items() if key.startswith("typed.")} == shown


def test_a_table_is_named_by_its_file(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny().model_dump()
    config["data"] = {"name": "table", "path": "data/points.csv"}
    assert telling_settings(config, RunFolder(tmp_path))["data"] == "points"


def test_a_trial_is_named_by_its_folder(tiny: Tiny, tmp_path: Path) -> None:
    named = []
    for parent in ("moons", "rings"):
        folder = RunFolder(tmp_path / parent / "seed-0")
        start, _ = trial(tiny().model_dump(), {"nll/val": 1.0}, folder)
        content = start.value[0].metadata.plugin_data.content
        told = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
        named.append(told.group_name)
    above = " in ".join(reversed(tmp_path.resolve().parts[1:]))
    assert named == [f"seed-0 in moons in {above}", f"seed-0 in rings in {above}"]


def test_jobs_of_a_sweep_differ_in_the_letters_that_are_shown() -> None:
    jobs = [f"model={m},data=circles,seed={s}" for m in ("affine", "realnvp") for s in range(10)]
    jobs += ["optimizer.lr=0.001,model.hidden=[32,32]", "optimizer.lr=0.01,model.hidden=[32,32]"]
    assert len({short_name(job)[:18] for job in jobs}) == len(jobs)
    assert short_name("optimizer.lr=0.01,model.hidden=[32,32]") == "[32,32] 0.01"
