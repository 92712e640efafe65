"""Loggers: one stream of scalars, figures and settings, shown by each; services in their extras."""

import csv
import json
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowtrain.config.logger import Csv, MLflow, NoLogger, WandB
from flowtrain.config.schema import Config
from flowtrain.errors import ConfigError
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.result import read_result
from flowtrain.training import trainer
from flowtrain.training.run import Run
from flowtrain.training.step import train_step
from flowtrain.training.tracking import Tracker
from flowtrain.training.trainer import train

Tiny = Callable[..., Config]
History = Callable[[Path], list[dict[str, Any]]]


def scalars(lines: list[dict[str, Any]]) -> list[tuple[int, str, float]]:
    """Return every scalar of metrics.jsonl with its step and tag."""
    return [
        (line["step"], tag, value)
        for line in lines
        for tag, value in line.items()
        if tag not in ("step", "seconds")
    ]


def killed_and_resumed(config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, die at step 17, seven steps after a checkpoint, and go on to the end."""
    original = train_step

    def die(run: Run, tracker: Tracker) -> None:
        original(run, tracker)
        if run.progress.step == 17:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_step", die)
        with pytest.raises(KeyboardInterrupt):
            train(config, folder)
    train(config, folder)


def test_the_csv_has_every_scalar_once_after_a_resumption(
    tiny: Tiny, tmp_path: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_and_resumed(tiny("logger=csv", "trainer.log_every=1"), tmp_path, monkeypatch)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = [(int(r["step"]), r["tag"], float(r["value"])) for r in csv.DictReader(file)]
    assert rows == scalars(history(tmp_path))
    assert {row[0] for row in rows if row[1] == "loss"} == set(range(1, 21))
    assert not list(tmp_path.glob("events*"))


def test_without_a_logger_metrics_jsonl_is_there_all_the_same(
    tiny: Tiny, tmp_path: Path, history: History
) -> None:
    train(tiny("logger=none"), tmp_path)
    assert [line["step"] for line in history(tmp_path) if "nll/val" in line] == [0, 10, 20]
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoints", "metrics.jsonl", "result.json",
    }  # fmt: skip


def test_a_resumed_run_may_have_another_logger(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny("trainer.max_steps=10"), tmp_path)
    train(tiny("logger=csv"), tmp_path)
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert {line.split(",")[0] for line in rows if "nll/val" in line} == {"0", "10", "20"}
    assert read_result(RunFolder(tmp_path))["config"]["logger"] == {"name": "csv"}


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_extra_is_told_with_its_command(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("flowtrain.config.section.find_spec", lambda _: None)
    with pytest.raises(ConfigError) as told:
        train(tiny(f"logger={name}"), tmp_path)
    assert str(told.value) == f"logger={name} is an extra: pip install 'flowtrain[{name}]'"
    assert read_result(RunFolder(tmp_path))["status"] == "failed"


def test_each_logger_says_what_shows_the_run() -> None:
    folder = Path("outputs/demo")
    assert NoLogger(name="none").view(folder) == ["outputs/demo/metrics.jsonl"]
    assert Csv(name="csv").view(folder) == ["outputs/demo/metrics.csv"]
    wandb: dict[str, Any] = {"name": "wandb", "project": "flows", "entity": None, "group": None}
    assert WandB(**wandb, mode="offline").view(folder) == [
        "wandb sync outputs/demo/wandb/offline-run-*"
    ]
    assert "flows" in WandB(**wandb, mode="online").view(folder)[0]
    store = MLflow(name="mlflow", experiment="flows", tracking_uri="sqlite:///m.db")
    assert store.view(folder) == ["mlflow ui --backend-store-uri sqlite:///m.db, experiment flows"]


# --- W&B, offline: `make test-extras` -----------------------------------------------------------


def stored_by_wandb(path: Path) -> Iterator[Any]:
    """Yield the records of a .wandb file: LevelDB's log format after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2 as wandb

    data, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:  # no header fits into the rest of a block
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield wandb.Record.FromString(record)
            record = b""


def test_wandb_offline_has_the_run_and_goes_on_with_its_id(
    tiny: Tiny, tmp_path: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    config = tiny("logger=wandb", "logger.mode=offline", "trainer.figures=true")
    killed_and_resumed(config, tmp_path, monkeypatch)
    run_id = json.loads((tmp_path / "logger.json").read_text())["wandb"]
    stored = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert {path.name for path in stored} == {f"run-{run_id}.wandb"}
    assert len(stored) == 2
    records = [record for path in stored for record in stored_by_wandb(path)]
    runs = [record.run for record in records if record.HasField("run")]
    assert {(run.run_id, run.project) for run in runs} == {(run_id, "flowtrain")}
    found: dict[tuple[int, str], Any] = {}
    for record in records:
        if record.HasField("history"):
            items = {
                "/".join(item.nested_key) or item.key: json.loads(item.value_json)
                for item in record.history.item
            }
            found |= {(items["step"], tag): value for tag, value in items.items()}
    for step, tag, value in scalars(history(tmp_path)):
        assert found[step, tag] == pytest.approx(value)
    assert {step for step, tag in found if tag.startswith("figures/density")} == {10, 20}
    assert [record.exit.exit_code for record in records if record.HasField("exit")] == [0, 0]


# --- MLflow, in a file: `make test-extras` ------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # of SQLAlchemy and MLflow to one another
def test_mlflow_has_the_run_and_goes_on_with_it(
    tiny: Tiny, tmp_path: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)  # artifacts go to mlruns/ here
    store = f"sqlite:///{tmp_path}/mlflow.db"
    config = tiny("logger=mlflow", f"logger.tracking_uri='{store}'", "trainer.figures=true")
    folder = tmp_path / "run"
    killed_and_resumed(config, folder, monkeypatch)
    client = mlflow.MlflowClient(tracking_uri=store)
    (experiment,) = client.search_experiments(filter_string="name = 'flowtrain'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == json.loads((folder / "logger.json").read_text())["mlflow"]
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
    assert run.data.params["model.name"] == "realnvp"
    for step, tag, value in scalars(history(folder)):
        told = client.get_metric_history(run.info.run_id, tag)
        assert value in [point.value for point in told if point.step == step]
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"config.yaml", "environment.yaml", "figures"}
    pictures = {file.path for file in client.list_artifacts(run.info.run_id, "figures")}
    assert pictures == {f"figures/density-step-{step:06d}.png" for step in (10, 20)}


@pytest.mark.filterwarnings("ignore")  # of SQLAlchemy and MLflow to one another
def test_a_store_of_mlflow_s_that_fails_is_told_once_and_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    section = MLflow(name="mlflow", experiment="e", tracking_uri=f"sqlite:///{tmp_path}/m.db")
    logger = section.build(RunFolder(tmp_path), step=-1, kept=[])
    (tmp_path / "m.db").write_bytes(b"damaged" * 1000)
    for step in range(3):
        logger.scalars(step, time.monotonic(), {"loss": 1.0})
        logger.picture(step, "figures/density", np.zeros((2, 2, 3), np.uint8))
    (warning,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert warning.startswith("mlflow: not all is logged there: ")
    assert len(warning.splitlines()) == 1
    with pytest.raises(ConfigError, match="logger: mlflow: "):
        section.build(RunFolder(tmp_path), step=-1, kept=[])
