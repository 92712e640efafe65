"""Where the jobs of a sweep run: as many processes as the cores have threads for, a GPU each."""

import multiprocessing
import re
import shutil
import sys
from typing import Any

from omegaconf import DictConfig

from flowtrain.config.memory import in_words, memory_bytes
from flowtrain.errors import UserError

PROCESS = 10**8  # bytes of a process at least: that of torch which processes do not share


def fit_launcher(config: DictConfig) -> None:
    """Fit a launcher to this machine, or refuse it.

    joblib gets as many processes as have cores for their threads; a number that is asked for is
    kept, and warned about if the cores do not have it.

    Raises:
        UserError: a number of processes that cannot be, or a Slurm that is not there.
    """
    launcher = config.hydra.launcher
    kind = str(launcher.get("_target_")).rpartition(".")[2]
    if kind == "SlurmLauncher" and shutil.which("srun") is None:
        raise UserError("launcher=slurm: there is no Slurm on this machine: no srun was found")
    if kind == "JoblibLauncher":
        asked = config.trainer.threads  # not checked yet
        threads = asked if type(asked) is int and asked > 0 else 1
        launcher.n_jobs = _processes(launcher.n_jobs, threads=threads)


def jobs_at_once(config: DictConfig) -> int:
    """Return how many jobs a launcher that was fitted runs at a time."""
    launcher = config.hydra.launcher
    return int(launcher.get("n_jobs") or launcher.get("array_parallelism") or 1)


def _processes(asked: Any, *, threads: int) -> int:
    from joblib import cpu_count

    cores: int = cpu_count()
    if not isinstance(asked, int) or asked == 0 or asked < -cores:
        raise UserError(
            f"hydra.launcher.n_jobs: {asked} is refused: it should be a number of processes, "
            "or -1 for as many as fit"
        )
    processes = asked if asked > 0 else max(1, (cores + 1 + asked) // threads)
    if processes * PROCESS > memory_bytes():
        raise UserError(
            f"hydra.launcher.n_jobs: {in_words(processes * PROCESS)} of memory at least; "
            f"this machine has {in_words(memory_bytes())}: ask for less"
        )
    print(f"{processes} processes of {threads} thread{'s' * (threads > 1)} on {cores} cores")
    if processes * threads > cores:
        sys.stderr.write(
            "flowtrain: warning: these threads are more than the cores, and wait for each other; "
            f"hydra.launcher.n_jobs={max(1, cores // threads)} would fit\n"
        )
    return processes


def deal_gpu() -> None:
    """Make another GPU the current one in each of joblib's processes, round-robin."""
    import torch

    worker = re.search(r"LokyProcess-(\d+)", multiprocessing.current_process().name)
    if worker and torch.cuda.device_count() > 1:
        torch.cuda.set_device((int(worker[1]) - 1) % torch.cuda.device_count())
