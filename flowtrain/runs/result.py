"""result.json: how a run ended, what it reached, its config and its environment."""

import json
import os
import platform
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtrain import __version__
from flowtrain.errors import CheckpointError
from flowtrain.files import replacing
from flowtrain.runs.folder import RunFolder

if TYPE_CHECKING:
    import torch


def write_result(folder: RunFolder, **content: Any) -> None:
    """Write result.json whole: a reader never sees half of it.

    Raises:
        CheckpointError: the folder cannot be written.

    >>> from flowtrain.runs.folder import RunFolder
    >>> write_result(RunFolder(tmp_path), status="completed", step=6)
    >>> read_result(RunFolder(tmp_path))
    {'status': 'completed', 'step': 6}
    """
    try:
        with replacing(folder.result) as file:
            file.write((json.dumps(content, indent=2) + "\n").encode())
    except OSError as error:
        raise CheckpointError(f"cannot write {folder.result}: {error.strerror}") from error


def write_failed_start(
    folder: RunFolder, error: str, *, model: str, data: str, seed: int, **more: Any
) -> None:
    """Write a result.json that says why a run could not begin.

    Raises:
        CheckpointError: the folder cannot be written.

    >>> folder = RunFolder(tmp_path)
    >>> write_failed_start(folder, "no such file", model="affine", data="table", seed=0)
    >>> read_result(folder)["status"], read_result(folder)["error"]
    ('failed', 'no such file')
    """
    about = {"model": model, "data": data, "seed": seed}
    nothing = {"parameters": 0, "step": 0, "seconds": 0.0, "metrics": {}}
    write_result(folder, status="failed", error=error, **about, **nothing, **more)


def read_history(folder: RunFolder) -> list[dict[str, float | None]]:
    """Return the lines of metrics.jsonl; a line that is still being written is left out.

    >>> from flowtrain.runs.folder import RunFolder
    >>> [line["step"] for line in read_history(RunFolder(run_folder)) if "nll/val" in line]
    [0, 3, 6]
    """
    if not folder.metrics.is_file():
        return []
    lines = folder.metrics.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def read_result(folder: RunFolder) -> dict[str, Any]:
    """Return what result.json says; nothing if the run has not written one.

    >>> from flowtrain.runs.folder import RunFolder
    >>> result = read_result(RunFolder(run_folder))
    >>> result["status"], result["step"], round(result["metrics"]["kl/test"], 4)
    ('completed', 6, 0.9931)
    >>> read_result(RunFolder(tmp_path))
    {}
    """
    if not folder.result.exists():
        return {}
    content: dict[str, Any] = json.loads(folder.result.read_text(encoding="utf-8"))
    return content


def environment(device: "torch.device") -> dict[str, str | int]:
    """Return what a reader needs to run this again: command, versions, machine, revision.

    >>> found = environment(torch.device("cpu"))
    >>> found["device"], found["torch"] == str(torch.__version__)
    ('cpu', True)
    """
    import torch  # not above: whoever reads folders only need not wait for it

    on_gpu = device.type == "cuda"
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "flowtrain": __version__,
        "revision": _revision(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if on_gpu else str(device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count() or 0,
        "peak_memory_mib": _peak_memory(device),
    }


def _peak_memory(device: "torch.device") -> int:
    """Return the most memory this process has held, the device's own where it keeps count."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) // 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)


@cache
def _revision() -> str:
    """Return the git revision of the source, if it is a checkout."""
    git = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
    ]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
