"""Replicas: each is the run of its seed, and the folder of all is their mixture."""

import json
import math
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import flowtrain
from flowtrain.comparison.summary import find_runs
from flowtrain.config.schema import Config, validate
from flowtrain.errors import CheckpointError, ConfigError
from flowtrain.runs.load import open_run
from flowtrain.runs.lock import LockedError, locked
from flowtrain.training import together
from flowtrain.training.outcome import Result
from flowtrain.training.replicas import replica_config
from flowtrain.training.run import Run
from flowtrain.training.stack import Stack
from flowtrain.training.tracking import Tracker
from flowtrain.training.trainer import train
from flowtrain.training.validation import validate_weights

Tiny = Callable[..., Config]
History = Callable[[Path], list[dict[str, Any]]]

SEED, NUMBER = 5, 3


def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


def assert_alike(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """Compare lines of metrics.jsonl, but for the clock."""
    assert [line["step"] for line in found] == [line["step"] for line in wanted]
    for line, other in zip(found, wanted, strict=True):
        assert line.keys() == other.keys()
        for tag, value in line.items():
            if tag != "seconds" and not tag.startswith("speed/"):
                assert value == pytest.approx(other[tag], rel=1e-4, abs=1e-5), tag


@pytest.fixture(scope="module")
def config(tiny: Tiny) -> Config:
    return tiny(f"seed={SEED}", f"trainer.replicas={NUMBER}", "trainer.max_steps=20")


@pytest.fixture(scope="module")
def folder(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of replicas that have been trained."""
    folder = tmp_path_factory.mktemp("replicas") / "run"
    ended = train(config, folder)
    assert (ended.status, ended.step) == ("completed", 20)
    return folder


def test_each_replica_is_the_run_of_its_seed_alone(
    config: Config, folder: Path, tmp_path: Path, history: History
) -> None:
    number = 2
    train(replica_config(config, number), tmp_path)
    own = folder / f"replica-{number}"
    assert_alike(history(own), history(tmp_path))
    assert result(own)["seed"] == SEED + number
    assert result(own)["config"] == result(tmp_path)["config"]
    x = torch.linspace(-2, 2, 20).reshape(10, 2)
    torch.testing.assert_close(
        flowtrain.load(folder, replica=number).log_prob(x), flowtrain.load(tmp_path).log_prob(x)
    )


def test_the_result_has_the_mean_its_error_and_each(folder: Path, history: History) -> None:
    whole = result(folder)
    each = [result(folder / f"replica-{n}")["metrics"]["kl/test"] for n in range(NUMBER)]
    mean = sum(each) / NUMBER
    error = math.sqrt(sum((kl - mean) ** 2 for kl in each) / (NUMBER - 1) / NUMBER)
    assert whole["replicas"]["kl/test"]["each"] == each
    assert whole["replicas"]["kl/test"]["mean"] == whole["metrics"]["kl/test"]
    assert whole["metrics"]["kl/test"] == pytest.approx(mean)
    assert whole["replicas"]["kl/test"]["error"] == pytest.approx(error)
    assert whole["status"] == "completed"
    evaluated = [line for line in history(folder) if "nll/val" in line]
    assert [line["step"] for line in evaluated] == [0, 10, 20]
    assert evaluated[-1]["kl_sem/val"] > 0


def test_the_folder_loads_as_the_mixture(folder: Path) -> None:
    flow = flowtrain.load(folder)
    each = [flowtrain.load(folder, replica=n) for n in range(NUMBER)]
    x = flow.sample(500, torch.Generator().manual_seed(0))
    mean = torch.stack([one.log_prob(x).exp() for one in each]).mean(0)
    torch.testing.assert_close(flow.log_prob(x).exp(), mean, rtol=1e-4, atol=1e-7)
    whole = result(folder)
    # By Jensen's inequality, on one grid.
    assert whole["mixture"]["kl/test"] < whole["metrics"]["kl/test"]
    assert open_run(folder).seeds == f"seeds {SEED} to {SEED + NUMBER - 1}"


@pytest.mark.parametrize("number", [-1, NUMBER])
def test_a_replica_that_is_not_there_is_refused(folder: Path, number: int) -> None:
    with pytest.raises(CheckpointError, match=f"no replica {number}: it has 0 to 2"):
        flowtrain.load(folder, replica=number)


def test_a_comparison_takes_the_replicas_as_runs_of_their_seeds(folder: Path) -> None:
    runs = find_runs([folder.parent])
    assert [run.value("seed") for run in runs] == [5, 6, 7]


# --- going on -----------------------------------------------------------------------------------


class Killed(BaseException):
    """What a process meets that is killed: nothing more is written."""


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, how: Callable[[], None]) -> None:
    original = together.train_steps

    def stepped(runs: Any, trackers: Any, backward: Any) -> Tensor:
        losses = original(runs, trackers, backward)
        if runs[0].progress.step == step:
            how()
        return losses

    monkeypatch.setattr(together, "train_steps", stepped)


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


def kill() -> None:
    raise Killed


@pytest.mark.parametrize(("step", "how"), [(7, terminate), (13, kill)])
def test_replicas_go_on_bit_for_bit(
    config: Config,
    folder: Path,
    tmp_path: Path,
    history: History,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    how: Callable[[], None],
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, step, how)
        try:
            ended: Result | None = train(config, tmp_path)
        except Killed:
            ended = None
    assert ended is None or (ended.status, ended.step) == ("interrupted", step)
    assert result(tmp_path)["status"] == ("running" if ended is None else "interrupted")
    assert train(config, tmp_path, asked={}).status == "completed"
    for place in ("", *(f"replica-{n}" for n in range(NUMBER))):
        found, wanted = ({**result(each / place)["metrics"]} for each in (tmp_path, folder))
        assert found == wanted
        lines = [[line["step"] for line in history(each / place)] for each in (tmp_path, folder)]
        assert lines[0] == lines[1]


def test_a_replica_that_was_left_behind_catches_up(
    config: Config, tmp_path: Path, history: History
) -> None:
    raw = config.model_dump()
    short = validate({**raw, "trainer": {**raw["trainer"], "replicas": 2, "max_steps": 10}})
    whole, longer = tmp_path / "whole", {"trainer": {"max_steps": 20}}
    train(short, whole)
    assert train(short, whole / "replica-1", asked=longer).step == 20  # the other waits
    assert train(short, whole, asked=longer).step == 20
    for place in ("replica-0", "replica-1"):
        found = result(whole / place)
        assert (found["status"], found["step"]) == ("completed", 20)
        assert [line["step"] for line in history(whole / place) if "nll/val" in line] == [0, 10, 20]


def test_a_folder_holds_as_many_replicas_as_it_began_with(config: Config, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer.replicas: the run has 3, this asks for 4"):
        train(config, folder, asked={"trainer": {"replicas": 4}})


def test_the_folder_of_a_single_run_takes_no_replicas(config: Config, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer.replicas: the run has 1, this asks for 3"):
        train(config, folder / "replica-0")


def test_a_step_that_fails_is_skipped_by_its_replica_alone(
    config: Config, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = Stack.backward, iter(range(1000))

    def backward(stack: Stack, *given: Any) -> Tensor:
        losses = original(stack, *given)
        if next(calls) == 10:
            losses[1] = torch.nan
        return losses

    monkeypatch.setattr(Stack, "backward", backward)
    train(config, tmp_path)
    assert [result(tmp_path / f"replica-{n}")["skipped_steps"] for n in range(3)] == [0, 1, 0]
    assert result(tmp_path)["skipped_steps"] == 1
    for number in (0, 2):
        found, wanted = (result(each / f"replica-{number}") for each in (tmp_path, folder))
        assert found["metrics"] == wanted["metrics"]


def test_patience_ends_each_replica_by_itself_and_training_in_vain_is_told(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny(
        "optimizer.lr=1e-30", "trainer.patience=2", "trainer.evaluate_every=2", "trainer.replicas=2"
    )
    assert train(config, tmp_path).step == 4
    told = [line for line in caplog.messages if "no evaluation was better" in line]
    assert [line[:10] for line in told] == ["replica-0:", "replica-1:"]


def test_the_whole_goes_on_with_those_that_have_not_ended(
    tiny: Tiny,
    tmp_path: Path,
    history: History,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "flowtrain")
    original = validate_weights

    def validated(run: Run, tracker: Tracker) -> None:
        original(run, tracker)
        if run.config.seed == SEED and run.progress.step == 5:
            run.progress.stale = 9  # the first one's patience is at its end

    monkeypatch.setattr(together, "validate_weights", validated)
    config = tiny(
        f"seed={SEED}", "trainer.replicas=2", "trainer.max_steps=10", "trainer.patience=9",
        "trainer.evaluate_every=5",
    )  # fmt: skip
    assert train(config, tmp_path).step == 10
    assert [result(tmp_path / f"replica-{n}")["step"] for n in range(2)] == [5, 10]
    first, last = (result(tmp_path / f"replica-{n}")["seconds"] for n in range(2))
    assert first < last == result(tmp_path)["seconds"]
    assert [line["step"] for line in history(tmp_path) if "nll/val" in line] == [0, 5, 10]
    assert "5 to 10 of each" in caplog.text


def test_the_least_hopeful_are_pruned(config: Config, tmp_path: Path) -> None:
    told: list[int] = []

    def hopeless(step: int, metrics: dict[str, float]) -> bool:
        told.append(step)
        return "kl/val" in metrics

    assert train(config, tmp_path, hopeless=hopeless).status == "pruned"
    assert told == [10]
    assert result(tmp_path / "replica-1")["status"] == "pruned"


def test_what_has_reached_its_end_is_not_pruned(config: Config, tmp_path: Path) -> None:
    ended = train(config, tmp_path, hopeless=lambda step, _: step == 20)
    assert (ended.status, ended.step) == ("completed", 20)


def test_a_replica_that_another_process_trains_is_left_alone(
    config: Config, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    half_written = tmp_path / "replica-1" / "checkpoints" / "last.pt.0a1b2c3d.tmp"
    half_written.write_text("another's")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    more = {"trainer": {"max_steps": 30}}
    with (
        locked(tmp_path / "replica-1"),
        pytest.raises(LockedError, match="replica-1: process"),
    ):
        train(config, tmp_path, asked=more)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_replicas_that_could_not_start_leave_their_folder_free(
    config: Config, tiny: Tiny, tmp_path: Path
) -> None:
    absent = tiny("data=custom", "data.target=nosuch:Mine", "trainer.replicas=2")
    with pytest.raises(ConfigError, match="nosuch"):
        train(absent, tmp_path)
    assert result(tmp_path)["status"] == "failed"
    assert train(config, tmp_path).status == "completed"


def test_a_link_in_the_place_of_a_replica_is_refused(config: Config, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / "replica-1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="replica-1: refused: it is a link"):
        train(config, tmp_path / "run")
    assert list((tmp_path / "elsewhere").iterdir()) == []


# --- what has no replicas -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "overrides", "why"),
    [
        ("maf", [], "maf by maximum_likelihood cannot be computed for several flows at once"),
        ("ffjord", [], "ffjord by maximum_likelihood cannot"),
        ("ffjord", ["objective=flow_matching_then_likelihood"], "flow_matching_then_likelihood"),
        ("realnvp", ["objective=reverse_kl"], "realnvp by reverse_kl cannot"),
        ("realnvp", ["data.condition=component"], "their mixture takes no condition"),
        ("realnvp", ["logger=wandb"], "logger=wandb shows a single run"),
        ("realnvp", ["trainer.compile=true"], "trainer.compile compiles a single flow"),
        (
            "ffjord",
            ["objective=flow_matching", "solver=none", "trainer.animation=true"],
            "trainer.animation shows a single flow",
        ),
    ],
)
def test_what_cannot_be_stacked_is_refused_in_one_line(
    tiny: Tiny, model: str, overrides: list[str], why: str
) -> None:
    with pytest.raises(ConfigError, match=why) as refused:
        tiny("trainer.replicas=2", *overrides, model=model)
    assert "\n" not in str(refused.value)
    assert "launcher=joblib" in str(refused.value)
