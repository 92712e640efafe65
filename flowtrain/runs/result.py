"""result.json: how a run ended, what it reached, its config and its environment."""

import logging
import os
import platform
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtrain import __version__
from flowtrain.errors import CheckpointError, UserError
from flowtrain.files import json_text, replacing
from flowtrain.runs.folder import RunFolder
from flowtrain.untrusted import is_number, is_plain, read_json, read_records

if TYPE_CHECKING:
    import torch

    from flowtrain.config.schema import Config

log = logging.getLogger("flowtrain")


def write_result(folder: RunFolder, **content: Any) -> None:
    """Write result.json whole: a reader never sees half of it. What is not finite becomes null.

    Raises:
        CheckpointError: the folder cannot be written.

    >>> from flowtrain.runs.folder import RunFolder
    >>> write_result(RunFolder(tmp_path), status="completed", step=6, best=float("inf"))
    >>> (tmp_path / "result.json").read_text().split()
    ['{', '"status":', '"completed",', '"step":', '6,', '"best":', 'null', '}']
    """
    try:
        with replacing(folder.result) as file:
            file.write((json_text(content, indent=2) + "\n").encode())
    except OSError as error:
        raise CheckpointError(f"cannot write {folder.result}: {error.strerror}") from error


def named(config: "Config") -> dict[str, Any]:
    """Return what every result.json names its run by: model, data and seed.

    >>> from flowtrain.runs.load import open_run
    >>> named(open_run(run_folder).config)
    {'model': 'realnvp', 'data': 'pinwheel', 'seed': 0}
    """
    return {"model": config.model.name, "data": config.data.name, "seed": config.seed}


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
    """Return the lines of metrics.jsonl that are whole; none where it cannot be read.

    >>> from flowtrain.runs.folder import RunFolder
    >>> [line["step"] for line in read_history(RunFolder(run_folder)) if "nll/val" in line]
    [0, 3, 6]
    """
    try:
        return read_records(folder.metrics, inside=folder.path)[0]
    except UserError:
        return []


def read_result(folder: RunFolder) -> dict[str, Any]:
    """Return what result.json says; nothing if the run has written none, or it is damaged.

    >>> from flowtrain.runs.folder import RunFolder
    >>> result = read_result(RunFolder(run_folder))
    >>> result["status"], result["step"], round(result["metrics"]["kl/test"], 4)
    ('completed', 6, 0.9931)
    >>> read_result(RunFolder(tmp_path))
    {}
    """
    try:
        content = read_json(folder.result, inside=folder.path)
    except FileNotFoundError:
        return {}
    except UserError as error:
        log.warning("%s; it counts for nothing", error)
        return {}
    if not _is_result(content):
        log.warning("%s: no result of a run; it counts for nothing", folder.result)
        return {}
    result: dict[str, Any] = content
    return result


def _is_result(content: Any) -> bool:
    """Say whether JSON has a status, and what else readers know is of its type."""
    if not (isinstance(content, dict) and is_plain(content)):
        return False
    metrics = content.get("metrics", {})
    return (
        isinstance(status := content.get("status"), str)
        and status.isidentifier()
        and all(type(content.get(key, 0)) is int for key in ("seed", "step", "best_step"))
        and all(
            isinstance(content.get(key, ""), str) for key in ("model", "data", "error", "table")
        )
        and all(is_number(content.get(key, 0)) for key in ("parameters", "seconds", "step"))
        and isinstance(metrics, dict)
        and all(value is None or is_number(value) for value in metrics.values())
        and ("metrics" in content or status != "completed")
        and isinstance(content.get("config", {}), dict)
    )


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
