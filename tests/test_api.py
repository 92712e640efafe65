"""`flowtrain.train` and `flowtrain.fit`: what the command does, from Python and without traces."""

import json
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flowtrain
from flowtrain.comparison.compare import compare
from flowtrain.comparison.summary import find_runs
from flowtrain.runs import checkpoint
from flowtrain.runs.load import open_run
from flowtrain.runs.lock import LockedError, locked
from flowtrain.training import trainer
from flowtrain.training.run import Run
from flowtrain.training.step import train_step
from flowtrain.training.tracking import Tracker

FEW = ["trainer.max_steps=20", "trainer.evaluate_every=10", "trainer.figures=false"]

Command = Callable[..., subprocess.CompletedProcess[str]]


def files(folder: Path) -> set[str]:
    """Return what a run leaves, but for the name of TensorBoard's file and Hydra's own settings."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if "tfevents" not in name and name != ".hydra/hydra.yaml"}


def test_train_leaves_the_run_of_the_command(
    flowtrain_command: Command, tiny_overrides: list[str], tmp_path: Path
) -> None:
    done = flowtrain_command(*tiny_overrides, "seed=3", f"hydra.run.dir={tmp_path}/shell")
    assert (done.returncode, done.stderr) == (0, "")
    trained = flowtrain.train([*tiny_overrides, "seed=3"], folder=tmp_path / "python", quiet=True)
    assert files(tmp_path / "python") == files(tmp_path / "shell")
    results = [json.loads((tmp_path / n / "result.json").read_text()) for n in ("shell", "python")]
    assert results[0]["metrics"] == results[1]["metrics"] == trained.metrics
    assert results[0]["config"] == results[1]["config"]
    log_lines = (tmp_path / "python" / "flowtrain.log").read_text()
    assert "INFO realnvp on gaussian_mixture in " in log_lines
    assert "NLL of test sample" in log_lines
    states = [checkpoint.read(tmp_path / n / "checkpoints/last.pt") for n in ("shell", "python")]
    for name, weight in states[0]["model"].items():
        assert torch.equal(weight, states[1]["model"][name])
    assert torch.equal(
        trained.flow.log_prob(torch.ones(1, 2)),
        flowtrain.load(tmp_path / "shell").log_prob(torch.ones(1, 2)),
    )


@pytest.fixture(name="flowtrain_command")
def fixture_flowtrain_command(request: pytest.FixtureRequest) -> Command:
    """Return the fixture of the command, whose name is the package's."""
    command: Command = request.getfixturevalue("flowtrain")
    return command


def test_a_run_goes_on_by_resume_and_by_its_folder(
    tiny_overrides: list[str], tmp_path: Path
) -> None:
    half = flowtrain.train([*tiny_overrides, "trainer.max_steps=10"], folder=tmp_path, quiet=True)
    assert half.folder == tmp_path
    whole = flowtrain.train([f"resume={tmp_path}", "trainer.max_steps=20"], quiet=True)
    again = flowtrain.train(tiny_overrides, folder=tmp_path, quiet=True)
    assert half.metrics != whole.metrics == again.metrics
    with pytest.raises(flowtrain.UserError, match=r"seed: the run has 0, this asks for 1"):
        flowtrain.train([*tiny_overrides, "seed=1"], folder=tmp_path, quiet=True)
    with pytest.raises(flowtrain.UserError, match="resume: it names the folder"):
        flowtrain.train([f"resume={tmp_path}"], folder=tmp_path)


def test_nothing_is_left_in_the_process_and_lines_are_printed(
    tiny_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("flowtrain")
    torch.set_num_threads(2)
    try:
        before = (
            torch.get_num_threads(), torch.get_rng_state().tolist(), list(log.handlers),
            list(logging.getLogger().handlers), signal.getsignal(signal.SIGINT), list(sys.path),
        )  # fmt: skip
        trained = flowtrain.train(tiny_overrides, folder=tmp_path)
        assert before == (
            torch.get_num_threads(), torch.get_rng_state().tolist(), list(log.handlers),
            list(logging.getLogger().handlers), signal.getsignal(signal.SIGINT), list(sys.path),
        )  # fmt: skip
    finally:
        torch.set_num_threads(1)
    out = capsys.readouterr().out
    assert out.startswith(f"realnvp on gaussian_mixture in {tmp_path}")
    assert out.count("NLL of test sample") == 1
    assert "Coupling" not in repr(trained)
    flowtrain.train(tiny_overrides, folder=tmp_path / "quiet", quiet=True)
    assert capsys.readouterr() == ("", "")


def test_two_threads_train_at_once_each_into_its_own_log(
    tiny_overrides: list[str], tmp_path: Path
) -> None:
    trained: dict[int, Any] = {}

    def work(seed: int) -> None:
        overrides = [*tiny_overrides, f"seed={seed}"]
        trained[seed] = flowtrain.train(overrides, folder=tmp_path / str(seed), quiet=True)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in (0, 1):
        lines = (tmp_path / str(seed) / "flowtrain.log").read_text()
        assert f"seed {seed}, in nats" in lines
        assert f"seed {1 - seed}, in nats" not in lines
    assert trained[0].metrics["nll/test"] != trained[1].metrics["nll/test"]


def test_an_interruption_is_raised_once_the_run_is_saved(
    tiny_overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = train_step

    def interrupt(run: Run, tracker: Tracker) -> None:
        original(run, tracker)
        if run.progress.step == 7:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            flowtrain.train(tiny_overrides, folder=tmp_path, quiet=True)
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "interrupted"
    assert checkpoint.read(tmp_path / "checkpoints/last.pt")["progress"]["step"] == 7
    trained = flowtrain.train([f"resume={tmp_path}"], quiet=True)
    assert (
        trained.metrics
        == flowtrain.train(tiny_overrides, folder=tmp_path / "whole", quiet=True).metrics
    )


def test_a_failed_start_says_why_in_one_line_and_in_the_folder(tmp_path: Path) -> None:
    overrides = ["model=affine", "data=gaussian_mixture", "data.weights=[1.0]"]
    with pytest.raises(flowtrain.UserError) as told:
        flowtrain.train(overrides, folder=tmp_path, quiet=True)
    assert len(str(told.value).splitlines()) == 1
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["status"], result["error"]) == ("failed", str(told.value))


# --- fit ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.array([1700.0, -3.0]) + np.random.default_rng(0).normal(size=(300, 2)) * [20.0, 0.1]


def test_fit_answers_in_the_units_of_the_points(x: np.ndarray, tmp_path: Path) -> None:
    few = [*FEW, "optimizer.lr=0.1", "trainer.max_steps=200", "trainer.evaluate_every=50"]
    trained = flowtrain.fit(x, model="affine", folder=tmp_path, overrides=few, quiet=True)
    sample = trained.flow.sample(4000, torch.Generator().manual_seed(0)).double().numpy()
    assert sample.mean(0) == pytest.approx(x.mean(0), abs=3.0)
    assert sample.std(0) == pytest.approx(x.std(0), rel=0.1)
    log_q = trained.flow.log_prob(torch.from_numpy(x))
    assert log_q.dtype == torch.float64
    gaussian = torch.distributions.MultivariateNormal(
        torch.from_numpy(x.mean(0)), torch.from_numpy(np.cov(x.T))
    )
    assert log_q.mean().item() == pytest.approx(
        gaussian.log_prob(torch.from_numpy(x)).mean().item(), abs=0.05
    )
    again = flowtrain.fit(x, model="affine", folder=tmp_path, overrides=few, quiet=True)
    assert again.metrics == trained.metrics
    with pytest.raises(flowtrain.UserError, match="this folder holds a run on other points"):
        flowtrain.fit(x + 1, model="affine", folder=tmp_path, overrides=few, quiet=True)


def test_the_run_of_fit_is_resumed_and_evaluated_like_any_other(
    x: np.ndarray, tmp_path: Path, flowtrain_command: Command
) -> None:
    trained = flowtrain.fit(
        torch.from_numpy(x), model="affine", folder=tmp_path / "run", overrides=FEW, quiet=True
    )
    done = flowtrain_command(f"resume={tmp_path}/run", "trainer.max_steps=30")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["step"], result["config"]["data"]["path"]) == (30, f"{tmp_path}/run/points.npz")
    assert trained.folder == tmp_path / "run"


def test_two_flows_of_the_same_points_compete(x: np.ndarray, tmp_path: Path) -> None:
    for model in ("affine", "planar"):
        flowtrain.fit(x, model=model, folder=tmp_path / model, overrides=FEW, quiet=True)
    comparison = compare(find_runs([tmp_path]))
    assert comparison.keys == ("model", "data")
    assert len(comparison.best("nll/test")) == 1


def test_the_run_of_fit_may_be_moved(x: np.ndarray, tmp_path: Path) -> None:
    few: dict[str, Any] = {"model": "affine", "overrides": FEW, "quiet": True}
    trained = flowtrain.fit(x, folder=tmp_path / "a", **few)
    points = open_run(tmp_path / "a").splits.test.x
    (tmp_path / "a").rename(tmp_path / "b")
    assert torch.equal(open_run(tmp_path / "b").splits.test.x, points)
    assert flowtrain.fit(x, folder=tmp_path / "b", **few).metrics == trained.metrics


def test_points_of_a_run_at_work_are_not_written_over(x: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "points.npz").write_bytes(b"another's")
    with locked(tmp_path), pytest.raises(LockedError, match="is at work there"):
        flowtrain.fit(x, folder=tmp_path, quiet=True)
    assert (tmp_path / "points.npz").read_bytes() == b"another's"


def test_fit_takes_which_conditions_are_categories(x: np.ndarray, tmp_path: Path) -> None:
    code, size = np.arange(300) % 3 + 0.5, np.random.default_rng(1).normal(size=300)
    overrides = [*FEW, "data.categorical=[c0]"]
    trained = flowtrain.fit(
        x, context=np.stack([code, size], 1), model="affine", folder=tmp_path, quiet=True,
        overrides=overrides,
    )  # fmt: skip
    assert trained.flow.context_dim == 4


def test_seconds_bound_the_training(x: np.ndarray, tmp_path: Path) -> None:
    overrides = ["trainer.max_steps=1000000", "trainer.figures=false"]
    flowtrain.fit(x, model="affine", seconds=0.5, folder=tmp_path, overrides=overrides, quiet=True)
    assert json.loads((tmp_path / "result.json").read_text())["seconds"] < 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"x": [[1.0, None]]}, "None is no number"),
        ({"model": "splin"}, "model: no option 'splin'; did you mean spline"),
        ({"seconds": 0}, "trainer.max_seconds: 0 is refused"),
        ({"overrides": ["data=moons"]}, "data=moons: fit begins a run on x, given context; see"),
        ({"overrides": ["++data.path=b.csv"]}, "data.path=b.csv: fit begins a run on x, given"),
        ({"overrides": ["data.condition=[x1]"]}, "data.condition=.*: fit begins a run on x, given"),
        ({"columns": ["height"]}, "x has no column 'height'"),
    ],
)
def test_a_refused_fit_leaves_no_folder(
    x: np.ndarray, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    points = settings.pop("x", x)
    with pytest.raises(flowtrain.UserError, match=message):
        flowtrain.fit(points, folder=tmp_path / "run", quiet=True, **settings)
    assert not (tmp_path / "run").exists()


# --- the package --------------------------------------------------------------------------------


def test_importing_the_package_is_cheap_and_dir_is_complete() -> None:
    code = (
        "import sys, flowtrain; names = dir(flowtrain);"
        "assert {'train', 'fit', 'load', 'UserError'} <= set(names), names;"
        "assert not {'torch', 'hydra', 'numpy'} & set(sys.modules);"
        "[getattr(flowtrain, name) for name in names]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_fit_on_labels_leaves_a_flow_that_takes_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kind = rng.choice(["small", "large"], 400)
    x = rng.normal(size=(400, 2)) * np.where(kind == "small", 0.1, 1.0)[:, None]
    few = ["trainer.max_steps=150", "trainer.evaluate_every=50", "trainer.figures=false"]
    more: dict[str, Any] = {"model": "affine", "overrides": [*few, "optimizer.lr=0.05"]}
    trained = flowtrain.fit(x, context={"kind": kind}, folder=tmp_path, quiet=True, **more)
    condition = trained.flow.condition
    assert condition is not None
    context = condition.encode({"kind": kind})
    with torch.no_grad():
        nll = -trained.flow.log_prob(torch.from_numpy(x), context).mean().item()
    both = torch.from_numpy(x)
    pooled = torch.distributions.MultivariateNormal(both.mean(0), both.T.cov())
    assert nll < -pooled.log_prob(both).mean().item() - 0.5  # it has learned the two widths
    for label, width in (("small", 0.1), ("large", 1.0)):
        given = condition.encode({"kind": label})
        drawn = trained.flow.sample(2000, torch.Generator().manual_seed(0), given)
        assert 0.5 * width < drawn.std().item() < 2.5 * width
    again = flowtrain.fit(x, context={"kind": kind}, folder=tmp_path, quiet=True, **more)
    assert again.metrics == trained.metrics
    for other in (None, {"kind": kind[::-1]}, {"sort": kind}):
        with pytest.raises(flowtrain.UserError, match="this folder holds a run on other points"):
            flowtrain.fit(x, context=other, folder=tmp_path, quiet=True, **more)


def test_a_flow_keeps_its_condition_under_another_solver(tmp_path: Path) -> None:
    x, kind = np.random.default_rng(0).normal(size=(100, 2)), ["a", "b"] * 50
    overrides = ["trainer.max_steps=1", "trainer.figures=false", "model.width=8", "model.depth=1"]
    trained = flowtrain.fit(
        x, context=kind, model="ffjord", folder=tmp_path, overrides=overrides, quiet=True
    )
    run = open_run(tmp_path).with_solver({"name": "rk4", "step_size": 0.5})
    assert run.flow.condition == trained.flow.condition
    assert run.flow.condition is not None
    given = run.flow.condition.encode({"c0": "a"})
    assert run.flow.sample(3, context=given).shape == (3, 2)


@pytest.mark.parametrize("name", ["flowtrain.log", ".hydra", "checkpoints"])
def test_nothing_is_written_through_a_link(
    tiny_overrides: list[str], tmp_path: Path, name: str
) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "run"
    folder.mkdir()
    victim.touch() if name.endswith(".log") else victim.mkdir()
    (folder / name).symlink_to(victim)
    with pytest.raises(flowtrain.UserError, match=f"{name}: refused: it is a link"):
        flowtrain.train(tiny_overrides, folder=folder, quiet=True)
    assert not (victim.read_bytes() if victim.is_file() else [*victim.iterdir()])


def test_a_folder_where_another_process_is_at_work_keeps_its_config(
    tiny_overrides: list[str], tmp_path: Path
) -> None:
    with locked(tmp_path), pytest.raises(LockedError):
        flowtrain.train(tiny_overrides, folder=tmp_path, quiet=True)
    assert not (tmp_path / ".hydra").exists()


def test_points_that_were_refused_leave_their_folder_free(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(200, 2))
    flat, few = x * [1.0, 0.0], ["trainer.max_steps=2", "trainer.figures=false"]
    more: dict[str, Any] = {"model": "affine", "overrides": few, "folder": tmp_path, "quiet": True}
    with pytest.raises(flowtrain.UserError, match="constant"):
        flowtrain.fit(flat, **more)
    assert flowtrain.fit(x, **more).flow.dim == 2
