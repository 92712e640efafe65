"""The settings of a run that goes on: its own, and what is asked for where they may change."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowtrain.config.schema import Config
from flowtrain.errors import CheckpointError, ConfigError
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.settings import held_config, reconcile

Tiny = Callable[..., Config]


def test_settings_of_the_run_may_change(tiny: Tiny) -> None:
    saved = tiny().model_dump()
    asked: dict[str, dict[str, Any]] = {
        "trainer": {"max_steps": 99, "max_seconds": 5.0, "log_every": 7, "evaluate_every": 8},
        "evaluation": {"grid": 32},
    }
    merged = reconcile(saved, asked)
    assert merged["trainer"] == {**saved["trainer"], **asked["trainer"]}
    assert merged["evaluation"] == {**saved["evaluation"], "grid": 32}


def test_a_path_is_the_same_however_it_is_typed(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved = {**tiny().model_dump(), "data": {"name": "table", "path": str(tmp_path / "p.csv")}}
    asked = {"data": {"name": "table", "path": "p.csv"}}
    assert reconcile(saved, asked)["data"] == saved["data"]
    moved = reconcile(saved, {"data": {"name": "table", "path": "q.csv"}})["data"]
    assert moved == {"name": "table", "path": str(tmp_path / "q.csv")}


def test_contradictions_are_refused_with_both_values(tiny: Tiny) -> None:
    asked = {
        "seed": 3, "data": {"name": "moons", "noise": 0.1}, "model": {"hidden": 9, "depth": 1},
        "optimizer": {"lr": 0.1},
    }  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        reconcile(tiny("optimizer.lr=0.2").model_dump(), asked)
    assert set(str(caught.value).splitlines()[1:-1]) == {
        "seed: the run has 0, this asks for 3",
        "data.name: the run has 'gaussian_mixture', this asks for 'moons'",
        "model.hidden: the run has 8, this asks for 9",
        "optimizer.lr: the run has 0.2, this asks for 0.1",
    }


@pytest.mark.parametrize("content", ["{", "{}", '{"status": "running", "config": {"schema": 7}}'])
def test_a_result_that_says_no_config_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"result\.json does not say what .* holds$"):
        held_config(RunFolder(tmp_path))
