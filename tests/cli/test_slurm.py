"""A Slurm of one node: jobs that are requeued, out of time, preempted, killed end all the same."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from flowtrain.runs.standing import Standing, standing

SCRIPTS = Path(__file__).parents[1] / "slurm"
PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch")
RUN = [
    "data=gaussian_mixture", "model=realnvp", "model.hidden=32", "model.couplings=4",
    "trainer.device=cpu", "trainer.batch_size=64", "trainer.log_every=50",
    "trainer.figures=false", "evaluation.grid=32", "splits.train=2000", "splits.val=200",
    "splits.test=200",
]  # fmt: skip
# Seconds for each, so that there is time to disturb it.
SIX = [*RUN, "trainer.max_steps=2500", "trainer.evaluate_every=1000", "seed=range(0,6)"]
STUDY = [
    *RUN, "trainer.max_steps=400", "trainer.evaluate_every=50", "sweep=optuna",
    "optimizer.lr=tag(log,interval(1e-5,1e-2))", "hydra.sweeper.n_trials=8",
    "hydra.sweeper.n_jobs=2", "hydra.sweeper.startup_trials=2",
]  # fmt: skip
ON_SLURM = [
    "launcher=slurm", "hydra.launcher.partition=low", "hydra.launcher.array_parallelism=2",
    "hydra.launcher.timeout_min=10",
]  # fmt: skip

pytestmark = pytest.mark.slow
Slurm = Callable[..., str]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Return a function that runs a command of a Slurm that is up while the tests last."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher.submitit_launcher")
    if missing := [name for name in PROGRAMS if shutil.which(name) is None] or os.getuid():
        pytest.skip(f"no Slurm to start: root and its programs are needed, missing: {missing}")
    folder = tmp_path_factory.mktemp("slurm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        started = subprocess.run([SCRIPTS / "start.sh", folder], capture_output=True, text=True)
        if started.returncode:
            pytest.skip(f"Slurm does not start here: {started.stderr}")
        try:
            yield lambda *command: subprocess.run(
                command, capture_output=True, text=True, check=True
            ).stdout.strip()
        finally:
            subprocess.run([SCRIPTS / "stop.sh", folder], check=True)


def sweep(*arguments: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start a sweep and write what it tells beside its folder."""
    command = [sys.executable, "-m", "flowtrain", "-m", *arguments]
    with folder.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [*command, f"hydra.sweep.dir={folder}"], stdout=log, stderr=subprocess.STDOUT
        )


def job(folder: Path, number: int) -> Standing:
    """Return how a job of a sweep over seeds stands."""
    return standing(folder / f"seed={number}")


def pid_of(at_work: Standing) -> int:
    """Return the process that is at work on a run."""
    return int(at_work.owner.split()[1])


def wait_until(reached: Callable[[], bool], seconds: float = 300) -> None:
    """Wait for what is to come."""
    until = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < until, "it has not come"
        time.sleep(0.2)


def under_way(folder: Path, number: int) -> Callable[[], bool]:
    """Return whether a job has taken some steps, and not its last."""
    result = folder / f"seed={number}" / "result.json"

    def reached() -> bool:
        at_work = job(folder, number)
        stepping = at_work.state == "running" and at_work.step > 200
        return stepping and '"status": "running"' in result.read_text()  # not still resuming

    return reached


def content(run: Path) -> dict[str, Any]:
    """Return all that a run left but for its seconds."""
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    times = [key for key in state["progress"] if "seconds" in key]
    for key in times:
        del state["progress"][key]
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    kept = [{k: v for k, v in line.items() if "second" not in k} for line in lines]
    return {
        "weights": {key: tensor.tolist() for key, tensor in state["model"].items()},
        "progress": state["progress"],
        "lines": kept,
        "metrics": json.loads((run / "result.json").read_text())["metrics"],
    }


def test_jobs_that_are_disturbed_end_as_if_left_alone(slurm: Slurm, tmp_path: Path) -> None:
    disturbed, alone = tmp_path / "disturbed", tmp_path / "alone"
    first = sweep(*SIX, *ON_SLURM, folder=disturbed)
    wait_until(under_way(disturbed, 0))
    array = slurm("squeue", "-h", "-o", "%F").splitlines()[0]
    slurm("scontrol", "requeue", f"{array}_0")

    wait_until(under_way(disturbed, 1))
    os.kill(pid_of(job(disturbed, 1)), signal.SIGSTOP)  # Slurm wakes it when its time runs out
    slurm("scontrol", "update", f"JobId={array}_1", "TimeLimit=2")
    wait_until(lambda: job(disturbed, 1).state == "interrupted")
    slurm("scontrol", "update", f"JobId={array}_1", "TimeLimit=10")

    wait_until(under_way(disturbed, 2))
    os.kill(pid_of(job(disturbed, 2)), signal.SIGKILL)

    wait_until(under_way(disturbed, 3))
    slurm("sbatch", "-p", "high", "-n", "2", "-o", "/dev/null", "--wrap", "sleep 1")
    wait_until(lambda: job(disturbed, 3).state == "interrupted")

    wait_until(under_way(disturbed, 4))
    slurm("scontrol", "update", "PartitionName=low", "GraceTime=0")
    slurm("sbatch", "-p", "high", "-n", "2", "-o", "/dev/null", "--wrap", "sleep 1")
    wait_until(lambda: job(disturbed, 4).state == "interrupted")

    assert first.wait(900) == 1
    wait_until(lambda: not slurm("squeue", "-h"))
    states = [job(disturbed, number).state for number in range(6)]
    assert states == ["completed", "completed", "killed", "completed", "completed", "completed"]
    for number in (0, 1, 3, 4):
        log = (disturbed / f"seed={number}" / "flowtrain.log").read_text()
        saved = {int(step) for step in re.findall(r"interrupted at step (\d+);", log)}
        assert saved == {int(step) for step in re.findall(r"resuming at step (\d+)\n", log)}
        assert max(saved) > 200  # not the checkpoint of an evaluation: no step is lost

    assert sweep(*SIX, *ON_SLURM, folder=disturbed).wait(900) == 0
    assert "5 completed, 1 killed; 1 to run" in disturbed.with_suffix(".log").read_text()
    assert sweep(*SIX, folder=alone).wait(900) == 0
    for number in range(6):
        one, other = (content(folder / f"seed={number}") for folder in (disturbed, alone))
        assert one == other
    assert (disturbed / "compare.md").exists()


def test_a_study_through_slurm_loses_no_trial_and_runs_none_twice(
    slurm: Slurm, tmp_path: Path, trials: Callable[[Path], list[dict[str, Any]]]
) -> None:
    pytest.importorskip("optuna")
    disturbed, alone = tmp_path / "disturbed", tmp_path / "alone"

    def at_work(number: int) -> Callable[[], bool]:
        return lambda: standing(disturbed / f"{number}-trial").state == "running"

    first = sweep(*STUDY, *ON_SLURM, folder=disturbed)
    wait_until(at_work(2))
    array = slurm("squeue", "-h", "-o", "%F").splitlines()[0]
    slurm("scontrol", "requeue", f"{array}_0")
    wait_until(at_work(4))
    first.kill()  # its jobs go on
    first.wait()
    assert sweep(*STUDY, *ON_SLURM, folder=disturbed).wait(900) == 0
    assert sweep(*STUDY, folder=alone).wait(900) == 0

    found = trials(disturbed)
    assert [trial["number"] for trial in found] == list(range(8))
    assert found == trials(alone)
    assert {trial["state"] for trial in found} == {"COMPLETE", "PRUNED"}
    for number in range(8):
        one, other = (folder / f"{number}-trial" for folder in (disturbed, alone))
        assert content(one) == content(other)
