"""A run that stops and goes on: the same bits as one that never stopped."""

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from flowtrain.config.schema import Config
from flowtrain.errors import ConfigError, UserError
from flowtrain.runs import checkpoint
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.load import load
from flowtrain.training import trainer
from flowtrain.training.resume import warm_start
from flowtrain.training.run import Run, build_run
from flowtrain.training.step import train_step
from flowtrain.training.tracking import Tracker
from flowtrain.training.trainer import train

Tiny = Callable[..., Config]
History = Callable[[Path], list[dict[str, Any]]]
Flowtrain = Callable[..., subprocess.CompletedProcess[str]]
Launch = Callable[..., subprocess.Popen[str]]

KINDS = {
    "realnvp": ("realnvp", ["model.mixing=random"]),
    "adamw-ema-patience": (
        "realnvp",
        ["optimizer=adamw", "trainer.ema=0.8", "trainer.patience=50", "trainer.evaluate_every=3"],
    ),
    "spline": ("spline", []),
    "flow-matching-then-likelihood": (
        "ffjord",
        ["objective=flow_matching_then_likelihood", "objective.switch=0.5"],
    ),
    "ffjord-hutchinson": ("ffjord", ["model.divergence=hutchinson", "trainer.evaluate_every=5"]),
}


class Killed(BaseException):
    """What a process meets that is killed: nothing more is written."""


def kill() -> None:
    raise Killed


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that trains until a step is done, then stops by a signal or dies."""
    original = train_step

    def stop_after(config: Config, folder: Path, *, step: int, how: Callable[[], None]) -> None:
        def last_step(run: Run, tracker: Tracker) -> None:
            original(run, tracker)
            if run.progress.step == step:
                how()

        with monkeypatch.context() as patch:
            patch.setattr(trainer, "train_step", last_step)
            try:
                result = train(config, folder)
            except Killed:
                return
            assert result.status == "interrupted"

    return stop_after


def flat(state: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every number and tensor of a checkpoint, except its clock."""
    if isinstance(state, dict | list | tuple):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        for key, value in items:
            yield from flat(value, f"{path}.{key}")
    elif not path.endswith("seconds"):
        yield path, state


def assert_same_checkpoint(first: Path, second: Path) -> None:
    a, b = (dict(flat(checkpoint.read(path))) for path in (first, second))
    assert a.keys() == b.keys()
    different = [
        key
        for key, value in a.items()
        if not (torch.equal(value, b[key]) if isinstance(value, torch.Tensor) else value == b[key])
    ]
    assert different == []


def without_clock(line: dict[str, Any]) -> dict[str, Any]:
    return {tag: v for tag, v in line.items() if tag != "seconds" and not tag.startswith("speed/")}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("step", "how"),
    [(10, terminate), (7, terminate), (13, kill), (1, terminate)],
    ids=["at an evaluation", "between evaluations", "killed", "at once"],
)
def test_a_resumed_run_equals_one_that_never_stopped(
    tiny: Tiny,
    tmp_path: Path,
    history: History,
    stop_after: Callable[..., None],
    kind: str,
    step: int,
    how: Callable[[], None],
) -> None:
    model, overrides = KINDS[kind]
    config = tiny("trainer.max_steps=15", "trainer.log_every=2", *overrides, model=model)
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train(config, straight)
    stop_after(config, stopped, step=step, how=how)
    train(config, stopped)
    for name in ("last.pt", "best.pt"):
        assert_same_checkpoint(straight / "checkpoints" / name, stopped / "checkpoints" / name)
    expected, found = ([without_clock(x) for x in history(f)] for f in (straight, stopped))
    assert found == expected


@pytest.mark.parametrize("optimizer", ["adam", "muon", "soap"])
def test_a_run_may_stop_many_times(
    tiny: Tiny, tmp_path: Path, stop_after: Callable[..., None], optimizer: str
) -> None:
    if optimizer == "soap":
        pytest.importorskip("pytorch_optimizer")  # of the extra [optim]
    config = tiny("trainer.max_steps=12", f"optimizer={optimizer}", "model.depth=2")
    train(config, tmp_path / "straight")
    for step, how in [(2, terminate), (3, terminate), (5, kill), (9, terminate), (10, terminate)]:
        stop_after(config, tmp_path / "stopped", step=step, how=how)
    train(config, tmp_path / "stopped")
    assert_same_checkpoint(
        tmp_path / "straight/checkpoints/last.pt", tmp_path / "stopped/checkpoints/last.pt"
    )


def test_the_best_value_and_the_patience_survive(
    tiny: Tiny, tmp_path: Path, stop_after: Callable[..., None]
) -> None:
    config = tiny("optimizer.lr=1e-30", "trainer.patience=4", "trainer.evaluate_every=2")
    stop_after(config, tmp_path, step=5, how=terminate)
    progress = checkpoint.read(tmp_path / "checkpoints" / "last.pt")["progress"]
    assert (progress["best_step"], progress["stale"]) == (0, 2)
    assert train(config, tmp_path).step == 8


def test_an_interrupted_run_says_so_in_its_result(
    tiny: Tiny, tmp_path: Path, stop_after: Callable[..., None]
) -> None:
    stop_after(tiny(), tmp_path, step=7, how=terminate)
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["status"], result["step"]) == ("interrupted", 7)
    assert checkpoint.read(tmp_path / "checkpoints" / "last.pt")["progress"]["step"] == 7


def test_a_finished_run_is_left_as_it_is(tiny: Tiny, tmp_path: Path) -> None:
    first = train(tiny(), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = train(tiny(), tmp_path)
    assert again == first
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_finished_run_whose_result_is_damaged_is_closed_again(tiny: Tiny, tmp_path: Path) -> None:
    metrics = train(tiny(), tmp_path).metrics
    (tmp_path / "result.json").write_text('{"status": "completed"}')
    assert train(tiny(), tmp_path).metrics == metrics
    assert json.loads((tmp_path / "result.json").read_text())["metrics"] == metrics


def test_a_finished_run_goes_on_when_it_is_asked_for_more(
    tiny: Tiny, tmp_path: Path, history: History
) -> None:
    train(tiny(), tmp_path)
    result = train(tiny(), tmp_path, asked={"trainer": {"max_steps": 30}})
    assert (result.status, result.step) == ("completed", 30)
    assert checkpoint.read(tmp_path / "checkpoints/last.pt")["config"]["trainer"]["max_steps"] == 30
    measured = [line["step"] for line in history(tmp_path) if "kl_error/val" in line]
    assert measured[0] == 0
    assert measured[-1] == 30


# --- from the shell -----------------------------------------------------------------------------


def interrupt(process: subprocess.Popen[str], signum: int) -> tuple[str, str]:
    """Send a signal once a run has taken its first steps; return what it printed."""
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    head = next(line for line in lines if re.search(r"%\s+step", line))
    process.send_signal(signum)
    out, err = process.communicate(timeout=60)
    return head + out, err


def test_an_interrupted_run_goes_on_by_resume_and_then_says_that_it_is_finished(
    launch: Launch, flowtrain: Flowtrain, tiny_overrides: list[str], tmp_path: Path
) -> None:
    endless = ["trainer.max_steps=1000000", "trainer.evaluate_every=1000000"]
    process = launch(*tiny_overrides, *endless, "hydra.run.dir=run")
    out, err = interrupt(process, signal.SIGINT)
    assert process.returncode == 130
    assert err == ""
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "interrupted"
    assert f"interrupted at step {result['step']}; go on with" in out
    assert "flowtrain resume=" in out

    more = result["step"] + 5
    resumed = flowtrain("resume=run", f"trainer.max_steps={more}")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert f"resuming at step {result['step']}" in resumed.stdout
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["status"], result["step"]) == ("completed", more)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]

    again = flowtrain("resume=run")
    assert again.returncode == 0
    assert f"finished already, at step {more}" in again.stdout

    refused = flowtrain("resume=run", "model.hidden=9", "data=moons")
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [
        "flowtrain: this folder holds another run:",
        "data.name: the run has 'gaussian_mixture', this asks for 'moons'",
        "model.hidden: the run has 8, this asks for 9",
        "leave these out to go on with it; for a run that has them choose another hydra.run.dir, "
        "without resume",
    ]


def test_a_requeued_run_goes_on_in_its_own_folder(
    launch: Launch, flowtrain: Flowtrain, tiny_overrides: list[str], tmp_path: Path
) -> None:
    command = [
        *tiny_overrides, "trainer.max_seconds=2.5", "trainer.max_steps=10000000",
        "trainer.evaluate_every=10000000", "hydra.run.dir=run",
    ]  # fmt: skip
    process = launch(*command)
    interrupt(process, signal.SIGTERM)
    assert process.returncode == 143
    step = json.loads((tmp_path / "run" / "result.json").read_text())["step"]
    again = flowtrain(*command)
    assert (again.returncode, again.stderr) == (0, "")
    assert f"resuming at step {step}" in again.stdout
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "completed"
    assert result["step"] > step


def test_a_folder_that_is_no_run_is_refused(flowtrain: Flowtrain, tmp_path: Path) -> None:
    for folder, problem in (
        ("nowhere", "nowhere: no such folder"),
        (".", "there is no checkpoint checkpoints/last.pt: . is no run folder"),
    ):
        refused = flowtrain(f"resume={folder}")
        assert refused.returncode == 1
        assert refused.stderr == f"flowtrain: resume: {problem}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_checkpoint_is_refused(flowtrain: Flowtrain, tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.pt").write_bytes(b"PK\x03\x04 half a checkpoint")
    refused = flowtrain("resume=run")
    assert refused.returncode == 1
    path = "run/checkpoints/last.pt"
    assert refused.stderr == (
        f"flowtrain: {path} is truncated, damaged or no checkpoint of flowtrain's\n"
    )


# --- damage -------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_a_damaged_or_lost_last_checkpoint_falls_back_to_the_best_one(
    tiny: Tiny, tmp_path: Path, history: History, stop_after: Callable[..., None],
    damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    config = tiny("trainer.max_steps=15", "trainer.log_every=2")
    straight, run = tmp_path / "straight", tmp_path / "run"
    train(config, straight)
    stop_after(config, run, step=13, how=terminate)
    damage(run / "checkpoints" / "last.pt")
    with caplog.at_level("WARNING", logger="flowtrain"):
        train(config, run)
    assert f"going on from {run / 'checkpoints' / 'best.pt'}, of step 10" in caplog.text
    assert_same_checkpoint(straight / "checkpoints/last.pt", run / "checkpoints/last.pt")
    expected, found = ([without_clock(x) for x in history(f)] for f in (straight, run))
    assert found == expected


def test_where_the_best_weights_are_damaged_the_last_are_judged(
    tiny: Tiny, tmp_path: Path, stop_after: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny("trainer.max_steps=15", "optimizer.lr=0.5", "trainer.clip=0")
    stop_after(config, tmp_path, step=13, how=terminate)
    cut(tmp_path / "checkpoints" / "best.pt")
    with caplog.at_level("WARNING", logger="flowtrain"):
        assert train(config, tmp_path).status == "completed"
    if "the last weights are judged instead" not in caplog.text:  # a later step was better
        assert checkpoint.read(tmp_path / "checkpoints/best.pt")["progress"]["step"] == 15
    load(tmp_path)


def forge(path: Path, *keys: str, value: Any) -> None:
    """Change a part of a checkpoint and seal it again, as whoever made it could."""
    state = torch.load(path, weights_only=True)
    part = state
    for key in keys[:-1]:
        part = part[int(key) if key.isdecimal() else key]
    part[keys[-1]] = value
    checkpoint.save(path, state)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("model", "standardize.mean"), torch.zeros(3)),
        (("model", "standardize.mean"), torch.full((2,), torch.nan)),
        (("model", "more"), torch.zeros(3)),
        (("optimizer", "state"), {0: {"step": 1}}),
        (("optimizer", "state", "0", "exp_avg"), torch.zeros(7, 7)),
        (("optimizer", "state", "0"), {}),
        (("progress", "metrics"), {}),
        (("progress", "metrics"), {"nll/val": "2"}),
        (("progress", "metrics"), {"nll/val": 2.0}),
        (("progress", "best"), "low"),
        (("progress", "stale"), -1),
        (("progress", "more"), 1),
        (("config", "model", "hidden"), 9),
        (("config", "model", "hidden"), 10**9),
        (("config", "model", "name"), "nsf"),
        (("config", "seed"), "x\x1b[2J"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_wrong_parts_is_refused_in_one_message(
    flowtrain: Flowtrain, tiny: Tiny, tmp_path: Path, finished_run: Path, keys: tuple[str, ...],
    value: Any,
) -> None:  # fmt: skip
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    for name in ("last.pt", "best.pt"):
        forge(run / "checkpoints" / name, *keys, value=value)
    done = flowtrain(f"resume={run}", "trainer.max_steps=30")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("flowtrain: ")
    assert done.stderr[:-1].isprintable()
    if keys[0] in ("model", "config"):
        with pytest.raises(UserError):
            load(run)


@pytest.fixture(scope="module")
def finished_run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    train(tiny("trainer.max_steps=4"), folder)
    return folder


# --- starting from another run's weights --------------------------------------------------------


@pytest.mark.parametrize("model", ["spline", "ffjord"])
@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_a_warm_start_is_the_other_run_s_best(
    tiny: Tiny, tmp_path: Path, history: History, model: str, ema: float
) -> None:
    train(tiny(f"trainer.ema={ema}", model=model), tmp_path / "a")
    other = load(tmp_path / "a")
    again = tiny(
        f"init_from={tmp_path / 'a'}",
        "seed=1",
        "trainer.ema=0.9",
        "trainer.max_steps=1",
        model=model,
    )
    run = build_run(again, RunFolder(tmp_path / "b"))
    warm_start(run.state, again)
    x = run.splits.test.x
    with torch.no_grad():
        for flow in (run.state.flow, run.state.eval_flow):
            assert torch.equal(flow.log_prob(x), other.log_prob(x))
    train(again, tmp_path / "b")
    first = next(line for line in history(tmp_path / "b") if "nll/val" in line)
    points = run.splits.val.x
    assert first["nll/val"] == pytest.approx(-other.log_prob(points).mean().item(), rel=1e-5)


def test_a_run_that_started_warm_resumes_without_the_other(
    tiny: Tiny, tmp_path: Path, stop_after: Callable[..., None]
) -> None:
    train(tiny(), tmp_path / "a")
    config = tiny(f"init_from={tmp_path / 'a'}", "seed=1")
    train(config, tmp_path / "whole")
    stop_after(config, tmp_path / "b", step=7, how=terminate)
    shutil.rmtree(tmp_path / "a")
    train(config, tmp_path / "b")
    whole, resumed = (
        checkpoint.read(tmp_path / name / "checkpoints" / "last.pt")["model"]
        for name in ("whole", "b")
    )
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_what_does_not_shape_the_weights_may_differ(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny("objective=flow_matching", "solver=none", model="ffjord"), tmp_path / "a")
    config = tiny(f"init_from={tmp_path / 'a'}", "model.divergence=hutchinson", model="ffjord")
    assert train(config, tmp_path / "b").status == "completed"


@pytest.mark.parametrize(
    ("model", "override", "difference"),
    [
        ("spline", "model.hidden=16", "model.hidden: the run has 8, this asks for 16"),
        (
            "spline",
            "model.bound=2.5",
            "model.bound: the run has 4.0, this asks for 2.5",
        ),
        ("realnvp", "model.depth=2", "model.name: the run has 'spline', this asks for 'realnvp'"),
    ],
)
def test_another_architecture_is_refused_by_its_differences(
    tiny: Tiny, tmp_path: Path, model: str, override: str, difference: str
) -> None:
    train(tiny(model="spline"), tmp_path / "a")
    with pytest.raises(ConfigError) as caught:
        train(tiny(f"init_from={tmp_path / 'a'}", override, model=model), tmp_path / "b")
    assert str(caught.value).splitlines() == [
        f"init_from: {tmp_path / 'a'} holds another model:", difference
    ]  # fmt: skip


def test_a_folder_without_weights_is_refused_and_leaves_none(
    flowtrain: Flowtrain, tiny_overrides: list[str], tmp_path: Path
) -> None:
    done = flowtrain(*tiny_overrides, "init_from=nowhere")
    assert done.returncode == 1
    assert done.stderr == "flowtrain: init_from: nowhere: no such folder\n"
    assert list(tmp_path.iterdir()) == []


def test_another_model_in_the_folder_of_a_run_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny("trainer.max_steps=2"), tmp_path)
    before = (tmp_path / "checkpoints" / "last.pt").read_bytes()
    with pytest.raises(ConfigError, match=r"model\.hidden: the run has 8, this asks for 9"):
        train(tiny("model.hidden=9"), tmp_path)
    assert (tmp_path / "checkpoints" / "last.pt").read_bytes() == before
