"""Sweeps that stop, fail and go on, on the command line."""

import csv
import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flowtrain.errors import TrainingError
from flowtrain.runs.lock import locked
from flowtrain.training import trainer
from flowtrain.training.run import Run
from flowtrain.training.step import train_step
from flowtrain.training.tracking import Tracker

Flowtrain = Callable[..., subprocess.CompletedProcess[str]]

SWEEP = ["-m", "hydra.sweep.dir=sweep", "seed=0,1,2"]


def states(sweep: Path) -> dict[str, str]:
    """Return how each job ended, by its name."""
    found = sorted(sweep.glob("*/result.json"))
    return {path.parent.name: json.loads(path.read_text())["status"] for path in found}


def figures(sweep: Path) -> list[dict[str, str]]:
    """Return the rows of a sweep's table but for the seconds."""
    rows = csv.DictReader((sweep / "compare.csv").read_text(encoding="utf-8").splitlines())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_an_interrupted_sweep_goes_on_and_ends_as_if_it_never_stopped(
    flowtrain: Flowtrain,
    tiny_overrides: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert flowtrain(*SWEEP, *tiny_overrides, "hydra.sweep.dir=whole").returncode == 0
    step = train_step

    def struck(run: Run, tracker: Tracker) -> None:
        step(run, tracker)
        if run.config.seed == 1 and run.progress.step == 7:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_step", struck)
        told = flowtrain(*SWEEP, *tiny_overrides)
    sweep = tmp_path / "sweep"
    assert told.returncode == 130
    assert states(sweep) == {"seed=0": "completed", "seed=1": "interrupted"}
    assert "go on with\n  flowtrain -m resume_sweep=sweep\n" in told.stdout
    assert "kl/test" in told.stdout  # a table of what is done
    done = (sweep / "seed=0" / "result.json").read_bytes()

    told = flowtrain("-m", "resume_sweep=sweep")
    assert (told.returncode, told.stderr) == (0, "")
    assert "sweep: 3 jobs: 1 completed, 1 interrupted, 1 waiting; 2 to run" in told.stdout
    assert "resuming at step 7" in told.stdout
    assert (sweep / "seed=0" / "result.json").read_bytes() == done
    assert figures(sweep) == figures(tmp_path / "whole")

    told = flowtrain(*SWEEP, *tiny_overrides)
    assert (told.returncode, told.stderr) == (0, "")
    assert "sweep: 3 jobs: 3 completed; none to run" in told.stdout
    assert "Launching" not in told.stdout


def test_failed_jobs_run_again_and_no_others(
    flowtrain: Flowtrain,
    tiny_overrides: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["-m", "hydra.sweep.dir=sweep", *tiny_overrides, "optimizer.lr=2e-3,1e-3"]
    step = train_step

    def failing(run: Run, tracker: Tracker) -> None:
        if run.config.optimizer.settings()["lr"] == 2e-3:
            raise TrainingError("out of luck")
        step(run, tracker)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_step", failing)
        told = flowtrain(*command)
    assert told.returncode == 1
    name = "optimizer.lr=0.002"
    last = told.stderr.splitlines()[-1]
    assert last.startswith(f"flowtrain: 1 of 2 jobs did not complete: {name} (failed); run")
    done = (tmp_path / "sweep" / "optimizer.lr=0.001" / "result.json").read_bytes()
    told = flowtrain(*command)
    assert (told.returncode, told.stderr) == (0, "")
    assert "1 failed" in told.stdout
    assert {*states(tmp_path / "sweep").values()} == {"completed"}
    assert (tmp_path / "sweep" / "optimizer.lr=0.001" / "result.json").read_bytes() == done


def test_a_sweep_s_folder_belongs_to_one_sweep(
    flowtrain: Flowtrain, tiny_overrides: list[str], tmp_path: Path
) -> None:
    (tmp_path / "sweep").mkdir()
    with locked(tmp_path / "sweep"):
        told = flowtrain(*SWEEP, *tiny_overrides)
    assert told.returncode == 1
    assert "is at work there" in told.stderr
    assert len(told.stderr.splitlines()) == 1
    assert flowtrain(*SWEEP, *tiny_overrides, "seed=0", "trainer.max_steps=1").returncode == 0
    told = flowtrain(*SWEEP, *tiny_overrides, "seed=1")
    assert told.stderr.startswith("flowtrain: sweep holds another sweep: 0 is")
    assert (told.returncode, told.stdout) == (1, "")


def test_a_sweep_over_files_stays_in_its_folder(
    flowtrain: Flowtrain, tmp_path: Path, tiny_overrides: list[str]
) -> None:
    work = tmp_path / "x" / "y"
    for place in (tmp_path, work):
        place.mkdir(exist_ok=True, parents=True)
        rows = [f"{i % 7 / 3},{i * i % 11 / 5}" for i in range(90)]
        (place / "p.csv").write_text("\n".join(["a,b", *rows]))
    others = [each for each in tiny_overrides if not each.startswith(("data", "splits"))]
    paths = f"data.path={tmp_path}/x/y/p.csv,{tmp_path}/x/../p.csv"
    told = flowtrain("-m", *others, "data=table", paths, "trainer.max_steps=1", "hydra.sweep.dir=s")
    assert (told.returncode, told.stderr) == (0, "")
    assert [f"job {number} of 2: " in told.stdout for number in range(4)] == [
        False, True, True, False,
    ]  # fmt: skip
    results = sorted(tmp_path.rglob("result.json"))
    assert len(results) == 2
    for result in results:
        assert result.parents[1] == tmp_path / "s"
        assert result.parent.name.startswith("data.path=p.csv-")
        assert json.loads(result.read_text())["status"] == "completed"
    assert not (tmp_path / "outputs").exists()


def test_the_subfolders_of_a_sweep_may_be_named_by_the_user(
    flowtrain: Flowtrain, tmp_path: Path, tiny_overrides: list[str]
) -> None:
    flowtrain(*SWEEP, *tiny_overrides, "trainer.max_steps=1", "hydra.sweep.subdir=${seed}-mine")
    assert sorted(states(tmp_path / "sweep")) == ["0-mine", "1-mine", "2-mine"]


def test_what_tells_jobs_apart_must_have_an_effect(flowtrain: Flowtrain, tmp_path: Path) -> None:
    idle = ("data=table", "data.path=p.csv", "model=affine")
    (tmp_path / "p.csv").write_text("\n".join(["a,b", *(f"{i},{i * i % 7}.5" for i in range(40))]))
    told = flowtrain("-m", "hydra.sweep.dir=s", "evaluation.grid=32,64", *idle)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith("flowtrain: evaluation.grid: table has no known density")
    assert not (tmp_path / "s").exists()
    alone = flowtrain("hydra.run.dir=r", "evaluation.grid=32", *idle)
    assert alone.returncode == 1
    assert alone.stderr.startswith("flowtrain: evaluation.grid: table has no known density")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hydra.sweep.subdir=mine"], "hydra.sweep.subdir: two jobs have the folder 'mine'; put"),
        (["hydra.sweep.subdir=${seed}/a"], "hydra.sweep.subdir: '0/a' is no name of a folder: no"),
        (["launcher=lsf"], "launcher: no option 'lsf'; choose from basic, joblib, slurm"),
        (["seed=range(3,3)"], "seed=range(3,3): there is nothing to choose from"),
        (["optimizer.lr=interval(1e-4,1e-2)"], "optimizer.lr=interval(1e-4,1e-2): an interval"),
        (
            ["seed=range(0,1000)", "optimizer.lr=range(1,1000000000000)"],
            "seed=range(0,1000) optimizer.lr=range(1,1000000000000): more than 100,000 jobs",
        ),
        (["resume_sweep=nowhere"], "nowhere is not there: it has no sweep.json"),
        (["model=spline,glou"], "model: no option 'glou'"),
        (["model=affine,spline", "trainer.draw_every=0"], "trainer.draw_every: 0 is refused: it "),
    ],
)
def test_a_mistake_is_told_in_one_line_and_leaves_nothing(
    flowtrain: Flowtrain, tmp_path: Path, arguments: list[str], message: str
) -> None:
    several = [] if any(each.startswith("seed=") for each in arguments) else ["seed=0,1"]
    told = flowtrain("-m", "hydra.sweep.dir=of/mine/sweep", *several, *arguments)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith(f"flowtrain: {message}")
    assert len(told.stderr.splitlines()) == 1
    assert not (tmp_path / "of").exists()


def test_a_sweep_of_which_one_job_is_refused_runs_the_others(
    flowtrain: Flowtrain, tmp_path: Path, tiny_overrides: list[str]
) -> None:
    told = flowtrain("-m", *tiny_overrides, "trainer.max_steps=1,0", "hydra.sweep.dir=sweep")
    assert told.returncode == 1
    assert "1 of 2 jobs did not complete: trainer.max_steps=0 (failed)" in told.stderr
    assert states(tmp_path / "sweep")["trainer.max_steps=1"] == "completed"


def test_a_value_that_is_given_twice_makes_one_job(
    flowtrain: Flowtrain, tmp_path: Path, tiny_overrides: list[str]
) -> None:
    twice = ("-m", *tiny_overrides, "trainer.max_steps=1", "seed=1,0,1", "hydra.sweep.dir=sweep")
    assert "job 2 of 2" in flowtrain(*twice).stdout
    assert "2 jobs: 2 completed; none to run" in flowtrain(*twice).stdout
    assert states(tmp_path / "sweep") == {"seed=0": "completed", "seed=1": "completed"}


def test_a_sweep_of_which_all_jobs_are_refused_tells_every_reason(flowtrain: Flowtrain) -> None:
    told = flowtrain("-m", "seed=0,1", "optimizer.lr=-1,-2")
    assert (told.returncode, told.stdout) == (1, "")
    reasons = [f"optimizer.lr: -{n} is refused: it should be greater than 0" for n in (1, 2)]
    assert told.stderr.removeprefix("flowtrain: ").splitlines() == reasons
