"""A launcher that fits the machine, and a GPU for each of its processes."""

import multiprocessing
import sys
from types import ModuleType

import pytest
import torch
from omegaconf import OmegaConf

from flowtrain.build import pick_device
from flowtrain.cli.launchers import deal_gpu, fit_launcher
from flowtrain.errors import UserError


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this a machine of four cores that has joblib."""
    joblib = ModuleType("joblib")
    joblib.cpu_count = lambda: 4  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "joblib", joblib)


def fitted(n_jobs: object, threads: int | None) -> int:
    launcher = {"_target_": "hydra_plugins.any.JoblibLauncher", "n_jobs": n_jobs}
    config = OmegaConf.create({"hydra": {"launcher": launcher}, "trainer": {"threads": threads}})
    fit_launcher(config)
    processes: int = config.hydra.launcher.n_jobs
    return processes


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(
    ("n_jobs", "threads", "processes", "warned"),
    [
        (-1, 1, 4, False), (-1, 2, 2, False), (-1, 3, 1, False), (-1, 8, 1, True),
        (-2, 1, 3, False), (2, 2, 2, False), (4, 2, 4, True), (-1, None, 4, False),
    ],
)  # fmt: skip
def test_processes_times_threads_fit_the_cores(
    capsys: pytest.CaptureFixture[str], n_jobs: int, threads: int, processes: int, warned: bool
) -> None:
    assert fitted(n_jobs, threads) == processes
    out, err = capsys.readouterr()
    assert out.startswith(f"{processes} processes of {threads or 1} thread")
    assert bool(err) == warned


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize("n_jobs", [0, -5, "many", 1.5])
def test_a_number_of_processes_that_cannot_be_is_refused(n_jobs: object) -> None:
    with pytest.raises(UserError, match=f"n_jobs: {n_jobs} is refused"):
        fitted(n_jobs, 1)


@pytest.mark.usefixtures("four_cores")
def test_processes_that_the_memory_does_not_hold_are_refused() -> None:
    with pytest.raises(UserError, match="n_jobs: 100 TB of memory at least; this machine has"):
        fitted(10**6, 1)


def test_a_slurm_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    config = OmegaConf.create(
        {"hydra": {"launcher": {"_target_": "hydra_plugins.a.SlurmLauncher"}}}
    )
    with pytest.raises(UserError, match="there is no Slurm on this machine: no srun was found"):
        fit_launcher(config)


@pytest.mark.parametrize(
    ("process", "gpu"),
    [("LokyProcess-1", 0), ("LokyProcess-2", 1), ("LokyProcess-6", 2), ("MainProcess", 0)],
)
@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_each_process_of_joblib_computes_on_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, process: str, gpu: int, asked: str
) -> None:
    current = [0]
    monkeypatch.setattr(multiprocessing.current_process(), "name", process)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: current.append(index))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1])
    deal_gpu()
    assert pick_device(asked, "float32") == torch.device("cuda", gpu)
    assert pick_device("cuda:1", "float32") == torch.device("cuda:1")


def test_a_process_of_joblib_without_gpus_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing.current_process(), "name", "LokyProcess-2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    deal_gpu()
    assert pick_device("auto", "float64") == torch.device("cpu")
