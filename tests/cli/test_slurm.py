"""A Slurm of one node: jobs that are requeued, told, preempted and killed end as if left alone."""

import json
import os
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
# A quarter of a minute, so that there is time to disturb it.
LONG = [
    "data=gaussian_mixture", "model=realnvp", "model.hidden=32", "model.couplings=4",
    "trainer.device=cpu", "trainer.batch_size=64", "trainer.max_steps=4000",
    "trainer.evaluate_every=1000", "trainer.log_every=50", "trainer.figures=false",
    "evaluation.grid=32", "splits.train=2000", "splits.val=200", "splits.test=200",
    "seed=0,1,2,3,4",
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
        patch.setenv("OMP_NUM_THREADS", "1")
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
    command = [sys.executable, "-m", "flowtrain", "-m", *LONG, *arguments]
    with folder.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [*command, f"hydra.sweep.dir={folder}"], stdout=log, stderr=subprocess.STDOUT
        )


def job(folder: Path, number: int) -> Standing:
    """Return how a job of a sweep stands."""
    return standing(folder / f"seed={number}")


def wait_until(reached: Callable[[], bool], seconds: float = 300) -> None:
    """Wait for what is to come."""
    until = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < until, "it has not come"
        time.sleep(0.2)


def under_way(folder: Path, number: int) -> Callable[[], bool]:
    """Return whether a job has taken its first steps and not its last."""
    return lambda: job(folder, number).state == "running" and job(folder, number).step > 200


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
    first = sweep(*ON_SLURM, folder=disturbed)
    wait_until(under_way(disturbed, 0))
    array = slurm("squeue", "-h", "-o", "%F").splitlines()[0]
    slurm("scontrol", "requeue", f"{array}_0")
    wait_until(under_way(disturbed, 1))
    os.kill(int(job(disturbed, 1).owner.split()[1]), signal.SIGUSR2)  # as Slurm does in the end
    wait_until(under_way(disturbed, 2))
    wait_until(under_way(disturbed, 3))
    slurm("sbatch", "-p", "high", "-n", "2", "-o", "/dev/null", "--wrap", "sleep 1")
    wait_until(under_way(disturbed, 4))
    os.kill(int(job(disturbed, 4).owner.split()[1]), signal.SIGKILL)
    assert first.wait(600) == 1
    wait_until(lambda: not slurm("squeue", "-h"))
    states = [job(disturbed, number).state for number in range(5)]
    assert states == ["completed"] * 4 + ["killed"]
    logs = [(disturbed / f"seed={n}" / "flowtrain.log").read_text() for n in range(5)]
    assert all("interrupted at step" in log and "resuming at step" in log for log in logs[:4])
    for log in logs[:4]:  # no step is lost
        saved = log.partition("interrupted at step ")[2].partition(";")[0]
        assert f"resuming at step {saved}\n" in log

    assert sweep(*ON_SLURM, folder=disturbed).wait(600) == 0
    assert "4 completed, 1 killed; 1 to run" in disturbed.with_suffix(".log").read_text()
    assert sweep(folder=alone).wait(600) == 0
    for number in range(5):
        one, other = (content(folder / f"seed={number}") for folder in (disturbed, alone))
        assert one == other
    assert (disturbed / "compare.md").exists()
