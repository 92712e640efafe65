"""What a run's folder records of it, wherever it is written, and which runs are found."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flowtrain.comparison.summary import find_runs, summarise
from flowtrain.config.schema import Config
from flowtrain.config.section import dotted
from flowtrain.errors import UserError
from flowtrain.runs import checkpoint
from flowtrain.runs.migrate import SCHEMA
from flowtrain.training.trainer import train

RESULT: dict[str, Any] = {
    "status": "completed", "model": "realnvp", "data": "moons", "seed": 0, "parameters": 100,
    "seconds": 20.0, "metrics": {"kl/test": 0.1},
}  # fmt: skip
CONFIG: dict[str, Any] = {"model": {"name": "realnvp", "width": 3}, "seed": 0}


def record(folder: Path, content: Any = RESULT, **more: Any) -> Path:
    """Write a result.json."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {**content, **more} if isinstance(content, dict) else content
    (folder / "result.json").write_text(json.dumps(whole))
    return folder


def record_hydra(folder: Path, config: dict[str, Any]) -> Path:
    """Write Hydra's record of a config."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_runs_are_found_once_at_any_depth(tmp_path: Path) -> None:
    inner, outer = record(tmp_path / "sweep" / "deep" / "0"), record(tmp_path / "1")
    record_hydra(inner, CONFIG)
    found = find_runs([inner, tmp_path, tmp_path / "sweep" / "." / "deep"])
    assert [run.folder for run in found] == [inner, outer]


def test_folders_without_a_run_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, message in (
        ("nowhere", "no such folder"),
        ("file", "a file, no folder"),
        ("empty", "no folder has a result.json"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            find_runs([tmp_path / name])
        assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (RESULT, "completed"),
        ({**RESULT, "status": "failed"}, "failed"),
        ({"score": 3}, "with a result.json that is no run's"),
        ([RESULT], "with a result.json that is no run's"),
        (
            {key: RESULT[key] for key in RESULT if key != "seconds"},
            "with a result.json that is no run's",
        ),
    ],
)
def test_the_status_is_the_run_s_or_what_is_wrong_with_its_result(
    tmp_path: Path, content: Any, status: str
) -> None:
    assert summarise(record(tmp_path, content)).status == status


def test_half_a_result_and_none_are_told(tmp_path: Path) -> None:
    assert summarise(tmp_path).status == "without a result.json"
    (tmp_path / "result.json").write_text('{"status": "comp')
    assert summarise(tmp_path).status == "with a result.json that is no run's"
    assert summarise(tmp_path).metrics == {}


def test_what_is_no_number_is_no_metric(tmp_path: Path) -> None:
    metrics = {"kl/test": 0.1, "nll/test": None, "mass/test": float("nan"), "x": float("inf")}
    run = summarise(record(tmp_path, metrics=metrics))
    assert run.metrics == {"kl/test": 0.1, "x": float("inf")}


def test_the_history_leaves_out_the_line_that_is_being_written(tmp_path: Path) -> None:
    run = summarise(record(tmp_path))
    assert run.history() == []
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "kl/val": null}\n{"step": 10, "nll/v')
    assert run.history() == [{"step": 0, "kl/val": None}]


def test_the_config_is_that_of_the_result(tmp_path: Path) -> None:
    record(tmp_path, config={"schema": SCHEMA, **CONFIG})
    record_hydra(tmp_path, {"model": {"name": "ffjord"}, "seed": 5})
    run = summarise(tmp_path)
    assert run.config == {"model": "realnvp", "model.name": "realnvp", "model.width": 3, "seed": 0}
    assert (run.value("model"), run.value("model.width"), run.value("absent")) == (
        "realnvp", 3, None,
    )  # fmt: skip


def test_a_job_that_never_began_has_hydra_s_record(tmp_path: Path) -> None:
    (run,) = find_runs([record_hydra(tmp_path, CONFIG)])
    assert run.status == "without a result.json"
    assert run.config["model.width"] == 3


@pytest.mark.parametrize("content", [{"schema": SCHEMA + 1, "x": 1}, {"pools": 3}, {"schema": 0}])
def test_a_config_that_cannot_be_read_is_empty(tmp_path: Path, content: dict[str, Any]) -> None:
    assert summarise(record(tmp_path, config=content)).config == {}


def test_a_run_without_any_record_of_its_config_has_none(tmp_path: Path) -> None:
    run = summarise(record(tmp_path))
    assert run.config == {}
    assert run.value("model") == "realnvp"


def test_the_summary_of_a_real_run_is_whole_without_checkpoints_and_hydra_s_record(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("trainer.max_steps=4")
    result = train(config, tmp_path)

    def refuse(path: Path) -> Any:
        raise AssertionError(f"{path} is opened")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "read", refuse)
        (run,) = find_runs([tmp_path])
        before = run.config
    shutil.rmtree(tmp_path / "checkpoints")
    (run,) = find_runs([tmp_path])
    assert run.config == before
    assert dotted(config.model_dump()).items() <= run.config.items()
    assert run.metrics == result.metrics
    assert {line["step"] for line in run.history()} == {0, 4}
