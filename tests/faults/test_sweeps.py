"""Sweeps whose processes are all killed: the same command ends them as if they were left alone."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.faults

SMALL = (
    "trainer=debug", "trainer.device=cpu", "trainer.figures=false", "trainer.batch_size=32",
    "trainer.max_steps=12", "trainer.log_every=2", "trainer.evaluate_every=4",
    "splits.train=256", "splits.val=32", "splits.test=32", "evaluation.grid=16",
    "model.couplings=2", "model.hidden=8", "model.depth=1", "logger=none",
)  # fmt: skip
GRID = (*SMALL, "model=realnvp,spline", "data=moons,circles,gaussian_mixture", "seed=0,1,2,3")
STUDY = (
    *SMALL, "model=spline", "data=gaussian_mixture", "sweep=optuna", "hydra.sweeper.n_trials=20",
    "optimizer.lr=tag(log,interval(1e-4,1e-1))",
)  # fmt: skip
LAUNCHERS = {"basic": (), "joblib": ("hydra.launcher.n_jobs=2",)}


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a sweep in a process group of its own."""
    command = [sys.executable, "-m", "flowtrain", "-m", *arguments, f"hydra.sweep.dir={folder}"]
    with folder.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def ended(folder: Path) -> int:
    """Return how many jobs have come to an end."""
    results = (json.loads(path.read_text()) for path in folder.glob("*/result.json"))
    return sum(result["status"] in ("completed", "pruned") for result in results)


def kill_at(process: subprocess.Popen[bytes], folder: Path, jobs: int, chance: float) -> None:
    """Kill all processes of a sweep some moment after so many jobs."""
    while ended(folder) < jobs:
        assert process.poll() is None, folder.with_suffix(".log").read_text()
        time.sleep(0.02)
    time.sleep(chance)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def table(folder: Path) -> list[dict[str, str]]:
    """Return the rows of a sweep's table but for the seconds."""
    rows = csv.DictReader((folder / "compare.csv").read_text(encoding="utf-8").splitlines())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_killed_sweep_of_24_jobs_has_the_table_of_one_left_alone(
    tmp_path: Path, chance: random.Random, launcher: str
) -> None:
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher.joblib_launcher")
    killed, alone = tmp_path / "killed", tmp_path / "alone"
    command = (*GRID, f"launcher={launcher}", *LAUNCHERS[launcher])
    for jobs in (5, 14):
        kill_at(start(killed, *command), killed, jobs, chance.random())
    assert start(killed, *command).wait() == 0
    assert start(alone, *GRID).wait() == 0
    assert table(killed) == table(alone)
    assert sum(int(row["runs"]) for row in table(killed)) == 24


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_killed_study_of_20_trials_loses_none_and_runs_none_twice(
    tmp_path: Path,
    chance: random.Random,
    launcher: str,
    trials: Callable[[Path], list[dict[str, Any]]],
) -> None:
    pytest.importorskip("optuna")
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher.joblib_launcher")
    killed, alone = tmp_path / "killed", tmp_path / "alone"
    at_once = f"hydra.sweeper.n_jobs={len(LAUNCHERS[launcher]) + 1}"
    command = (*STUDY, at_once, f"launcher={launcher}", *LAUNCHERS[launcher])
    for jobs in (4, 12):
        kill_at(start(killed, *command), killed, jobs, chance.random())
    assert start(killed, *command).wait() == 0
    assert start(alone, *STUDY, at_once).wait() == 0
    found = trials(killed)
    assert found == trials(alone)
    assert [trial["number"] for trial in found] == list(range(20))
    assert {trial["state"] for trial in found} <= {"COMPLETE", "PRUNED"}
    assert table(killed) == table(alone)
